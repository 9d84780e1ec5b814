"""AMQ finds widths within an average by what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.compressors import llama, texts
from pith.core import ModelError, Patterns
from pith.quantization.amq import AMQ, WIDTHS, Archive, Proxies, divergence, not_dominated, pinned_layers
from pith.quantization.hqq import HQQ
from pith.quantization.rbf import CubicRBF
from pith.quantization.rtn import RTN
from pith.quantization.widths import gap_fillers, proposed
from pith.weights import PackedLinear, block_linears
from pith.weights.duplicate import duplicate

QUICK: dict[str, Any] = {
    "sequences": 1, "initial": 6, "rounds": 2, "candidates": 4, "population": 6, "generations": 3,
}  # fmt: skip


def proxies(of: Any = None) -> Proxies:
    model = duplicate(llama())
    return Proxies(model, block_linears(model, "lm_head"), of or RTN(group_size=32), texts().tokens[:2])


def widths(model: Any) -> dict[str, int]:
    return {name: module.bits for name, module in model.named_modules() if isinstance(module, PackedLinear)}  # type: ignore[misc]


def bits_held(model: Any) -> float:
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    held = sum(buffer.nbytes for layer in layers for buffer in layer.buffers())
    return 8 * held / sum(layer.in_features * layer.out_features for layer in layers)


def test_divergence_is_that_of_the_equation() -> None:
    first, second = torch.randn(5, 11), torch.randn(5, 11)
    p, q = first.softmax(-1), second.softmax(-1)
    mean = (p + q) / 2
    expected = ((p * (p / mean).log()).sum(-1) + (q * (q / mean).log()).sum(-1)) / 2
    assert torch.allclose(divergence(first, second, at_once=2), expected, atol=1e-6)
    assert divergence(first, first).abs().max() < 1e-6


@torch.no_grad()
def test_a_choice_is_measured_with_proxies_of_its_widths() -> None:
    found = proxies()
    genes = [index % 3 for index in range(len(found.names))]
    bits = {name: WIDTHS[gene] for name, gene in zip(found.names, genes, strict=True)}
    other = HQQ(bits=Patterns(bits), group_size=32).compress(llama())
    dense, ours = (model(texts().tokens[:2]).logits[:, :-1].flatten(0, 1) for model in (llama(), other))
    assert found.loss(genes) == pytest.approx(float(divergence(dense, ours).mean()), rel=1e-4)
    assert float(found.bits(torch.tensor([genes]))) == pytest.approx(bits_held(other), rel=1e-9)
    found.take_back()
    assert all(type(found._model.get_submodule(name)) is torch.nn.Linear for name in found.names)


def test_layers_far_above_the_middle_one_are_pinned() -> None:
    sensitivity = torch.tensor([0.01, 0.011, 0.5, 0.012, 0.021])
    assert pinned_layers(sensitivity, 2.0).tolist() == [False, False, True, False, False]


@torch.no_grad()
def test_pins_that_go_beyond_the_average_are_let_go() -> None:
    found = proxies()
    sensitivity = torch.full((28,), 0.01).index_fill(0, torch.arange(10), 0.1) + torch.arange(28) * 1e-4
    loose = AMQ(of=RTN(group_size=32), bits=5.9)._pins(found, sensitivity)
    assert loose.nonzero()[:, 0].tolist() == list(range(10))
    tight = AMQ(of=RTN(group_size=32), bits=4.3)._pins(found, sensitivity)
    assert 0 < int(tight.sum()) < 10
    assert tight[9]  # the most sensitive one stays


@pytest.mark.parametrize("bits", [4.2, 5.0, 5.5])
def test_widths_keep_within_the_average_and_lose_least_of_what_was_measured(
    bits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives: list[Archive] = []
    begin = Archive.__init__
    monkeypatch.setattr(Archive, "__init__", lambda self, *args: (archives.append(self), begin(self, *args))[1])
    smaller = AMQ(of=RTN(group_size=32), bits=bits, **QUICK).compress(llama(), texts())
    assert bits_held(smaller) <= bits
    [archive] = archives
    assert len(archive.losses) <= 28 + 3 + 6 + 2 * 4
    held = proxies().bits(archive.genes)
    best = archive.losses[held <= bits].min()
    chosen = torch.tensor([WIDTHS.index(width) for width in widths(smaller).values()])
    assert bool((archive.genes == chosen).all(1).nonzero().numel())
    assert archive.losses[(archive.genes == chosen).all(1)][0] == best
    uniform = [index for index, row in enumerate(archive.genes.tolist()) if len(set(row)) == 1 and held[index] <= bits]
    assert all(best <= archive.losses[index] for index in uniform)


def test_an_average_that_cannot_be_is_refused_and_one_that_is_generous_gives_4_bits() -> None:
    with pytest.raises(ModelError, match=r"bits=3.5 is too few .* allowed is 4 to 6"):
        AMQ(of=RTN(group_size=32), bits=3.5, **QUICK).compress(llama(), texts())
    smaller = AMQ(of=RTN(group_size=32), bits=6.0, **QUICK).compress(llama(), texts())
    assert set(widths(smaller).values()) == {4}


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = AMQ(of=RTN(group_size=32), bits=5.0, **QUICK)
    first = method.compress(llama(), texts(folder=tmp_path))
    monkeypatch.setattr(Proxies, "loss", lambda *_: pytest.fail("measured again"))
    assert widths(method.compress(llama(), texts(folder=tmp_path))) == widths(first)


def test_a_function_goes_through_its_points_and_knows_linear_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    points, asked = (torch.randint(0, 3, (count, 6), generator=generator) / 2 for count in (40, 9))
    curved = points.square().sum(1) + points[:, 0] * points[:, 1]
    assert torch.allclose(CubicRBF.through(points, curved)(points), curved.double(), atol=1e-4)
    slope = torch.arange(6.0)
    assert torch.allclose(CubicRBF.through(points, points @ slope + 2)(asked), (asked @ slope + 2).double(), atol=1e-4)


def test_the_predictor_ranks_choices_that_it_has_not_seen() -> None:
    generator = torch.Generator().manual_seed(1)
    sensitivity = torch.rand(12, generator=generator) ** 3
    genes = torch.randint(0, 3, (90, 12), generator=generator)
    losses = ((2 - genes).float().square() * sensitivity).sum(1)
    predicted = CubicRBF.through(genes[:60] / 2, losses[:60])(genes[60:] / 2)
    ranks = torch.stack([predicted.argsort().argsort().double(), losses[60:].argsort().argsort().double()])
    assert torch.corrcoef(ranks)[0, 1] > 0.9


def test_a_search_begins_with_what_it_is_given_and_comes_nearer_to_the_best() -> None:
    first = torch.tensor([[0, 0, 2, 0, 0, 0], [2, 2, 2, 2, 2, 2]])
    free = [0, 1, 3, 4, 5]
    found = proposed(lambda g: torch.stack([(2 - g).sum(1), g.sum(1)], dim=1).double(), first, free, (10, 5, 0))
    rows = found.tolist()
    assert first[0].tolist() in rows
    assert len(rows) == len(set(map(tuple, rows)))
    assert all(row[2] == 2 for row in rows)
    assert found.equal(
        proposed(lambda g: torch.stack([(2 - g).sum(1), g.sum(1)], dim=1).double(), first, free, (10, 5, 0))
    )


def test_gaps_are_filled_from_the_largest_on() -> None:
    bits, held = torch.tensor([3.1, 3.5, 2.9, 3.55]), torch.tensor([2.5, 3.0, 4.0])
    assert gap_fillers(bits, held, 2) == [1, 0]
    assert sorted(gap_fillers(bits, held, 9)) == [0, 1, 2, 3]


def test_not_dominated() -> None:
    losses, bits = torch.tensor([3.0, 2.0, 2.0, 1.0, 2.5]), torch.tensor([1.0, 2.0, 2.5, 3.0, 1.5])
    assert not_dominated(losses, bits).tolist() == [True, True, False, True, True]
