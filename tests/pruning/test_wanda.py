"""Wanda prunes by the size of weights times the norms of inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pith
from contracts.tiny import tiny, tokens
from pith.core import PithWarning
from pith.pruning.wanda import Wanda
from pith.weights import Calibration, block_linears, blocks, weight_of


def calibration() -> Calibration:
    return Calibration(tokens(6, 40))


def read_by(model: Any, name: str, rows: Tensor) -> Tensor:
    """What a layer reads in a forward of the whole model."""
    seen: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(rows)
    hook.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_rows_lose_the_least_products(sparsity: float) -> None:
    """The first block reads what the dense model reads, so the whole model tells its inputs."""
    dense = tiny("llama_gqa")
    pruned = Wanda(sparsity=sparsity).compress(dense, calibration())
    for name, linear in block_linears(dense).items():
        if ".layers.0." not in name:
            continue
        norms = read_by(dense, name, calibration().tokens).norm(dim=0)
        weight, after = weight_of(linear), weight_of(pruned.get_submodule(name))
        for row, left in zip(weight, after, strict=True):
            order = (row.abs() * norms).sort(stable=True).indices[: int(len(row) * sparsity)]
            expected = row.clone()
            expected[order] = 0
            assert torch.equal(left, expected), name


def test_later_blocks_are_measured_behind_pruned_ones() -> None:
    dense = tiny("llama_gqa")
    pruned = Wanda(sparsity=0.5).compress(dense, calibration())
    name = "model.layers.1.self_attn.q_proj"
    weight, after = weight_of(dense.get_submodule(name)), weight_of(pruned.get_submodule(name))
    # with the first block pruned and the second not, the second reads what the method measured
    halfway = Wanda(sparsity=0.5, skip="model.layers.1.*").compress(dense, calibration())
    expected, wrong = (
        (weight.abs() * read_by(model, name, calibration().tokens).norm(dim=0)).argsort(dim=1, stable=True)[:, :32]
        for model in (halfway, dense)
    )
    assert torch.equal(after, weight.scatter(1, expected, 0.0))
    assert not torch.equal(after, weight.scatter(1, wrong, 0.0))


def test_the_variant_gives_every_row_one_share_of_its_sum() -> None:
    scores = torch.rand(16, 64, generator=torch.Generator().manual_seed(1)) ** 3
    mask = Wanda(sparsity=0.5, variant=True).pruned(scores)
    assert abs(float(mask.float().mean()) - 0.5) < 0.002
    counts = mask.sum(dim=1).tolist()
    assert len(set(counts)) > 1
    gone = (scores * mask).sum(dim=1) / scores.sum(dim=1)
    with_next = [(row.sort().values[: count + 1]).sum() / row.sum() for row, count in zip(scores, counts, strict=True)]
    assert float(gone.max()) <= min(map(float, with_next))  # one alpha lies between


def test_a_pattern_leaves_two_of_four() -> None:
    pruned = pith.compress(tiny("phi3"), "wanda(pattern='2:4')", calibration())
    for linear in block_linears(pruned).values():
        assert ((weight_of(linear).reshape(-1, 4) == 0).sum(dim=1) == 2).all()


def test_an_expert_without_tokens_is_pruned_by_size_and_named() -> None:
    dense = tiny("olmoe")
    one = Calibration(torch.full((1, 2), 5))  # of one word only a few experts are asked
    with pytest.warns(PithWarning, match=r"wanda: no token of the calibration reached .*experts"):
        pruned = Wanda(sparsity=0.5).compress(dense, one)
    experts = blocks(dense)[0].mlp.experts
    after = blocks(pruned)[0].mlp.experts
    assert type(after) is type(experts)
    by_size = 0
    for before, left in zip(experts.down_proj, after.down_proj, strict=True):
        assert (left == 0).sum() == before.numel() // 2
        order = before.abs().argsort(dim=1, stable=True)[:, : before.shape[1] // 2]
        by_size += torch.equal(left, before.scatter(1, order, 0.0))
    assert 0 < by_size < len(experts.down_proj)
