"""ToMoE makes experts of MLPs, of exactly the share that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny, tokens
from pith.core import ModelError, PithWarning
from pith.pruning import to_moe
from pith.pruning.routed import RoutedMLP, active_share
from pith.pruning.to_moe import Hypernetwork, ToMoE, widths_within
from pith.weights import Calibration
from pith.weights.duplicate import duplicate

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")


def routed(model: Any) -> list[RoutedMLP]:
    return [module for module in model.modules() if isinstance(module, RoutedMLP)]


def test_a_token_goes_through_the_channels_of_its_expert() -> None:
    smaller = pith.compress(llama(), "to_moe(steps=3, experts=4)", texts())
    assert len(routed(smaller)) == 4
    for index, module in enumerate(routed(smaller)):
        x = torch.randn(3, 7, 64)
        given = module(x)
        for at in [(0, 0), (1, 3), (2, 6)]:
            expert = int((module.router @ x[at]).argmax())
            mask = torch.zeros(module.up_proj.out_features).index_fill(0, module.channels[expert].long(), 1.0)
            inner = torch.nn.functional.silu(module.gate_proj(x[at])) * module.up_proj(x[at]) * mask
            assert torch.allclose(given[at], module.down_proj(inner), atol=1e-4), index


@pytest.mark.parametrize("active", [0.1, 0.35, 0.5, 0.8])
def test_the_active_share_is_the_one_asked_for_and_weights_are_the_originals(active: float) -> None:
    smaller = ToMoE(active=active, steps=2, experts=4).compress(llama(), texts())
    assert active_share(smaller, 96) == pytest.approx(active, abs=1 / (4 * 96))
    for index, module in enumerate(routed(smaller)):
        dense = llama().model.layers[index].mlp
        assert len(module.channels.unique()) == module.up_proj.out_features  # what no expert has is cut away
        rows = dense.up_proj.weight
        where = (module.up_proj.weight[:, None] == rows).all(-1).float().argmax(1)
        assert torch.equal(rows[where], module.up_proj.weight)
        assert torch.equal(dense.gate_proj.weight[where], module.gate_proj.weight)
        assert torch.equal(dense.down_proj.weight[:, where], module.down_proj.weight)


def test_with_every_channel_active_it_is_the_dense_model() -> None:
    smaller = ToMoE(active=1.0, steps=1, experts=2).compress(llama(), texts())
    with torch.no_grad():
        assert torch.allclose(smaller(tokens(2, 9)).logits, llama()(tokens(2, 9)).logits, atol=1e-4)


def test_widths_are_those_of_one_threshold() -> None:
    logits = [torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(3)]
    counts = widths_within(logits, 0.5)
    assert sum(counts) == 15
    # any threshold between what is taken and what is left gives these widths
    worth = [one.sort(descending=True).values.amax(0) for one in logits]
    taken = min(float(one[count - 1]) for one, count in zip(worth, counts, strict=True) if count > 1)
    left = max((float(one[count]) for one, count in zip(worth, counts, strict=True) if count < 10), default=-torch.inf)
    assert taken >= left
    assert widths_within([torch.full((2, 10), -9.0), torch.zeros(2, 10)], 0.5) == [1, 9]


def trained(steps: int, **values: Any) -> tuple[Hypernetwork, ToMoE, dict[str, Any]]:
    model, method = duplicate(llama()), ToMoE(steps=steps, experts=2, **values)
    mlps = [layer.mlp for layer in model.model.layers]
    net = Hypernetwork(64, [96] * 4, 2, 0)
    masked = {
        f"model.layers.{index}.mlp": (mlp, to_moe.MaskedMLP(mlp, layer))
        for index, (mlp, layer) in enumerate(zip(mlps, net.layers, strict=True))
    }
    method._train(model, texts(), net, masked)
    return net, method, masked


def test_training_brings_the_share_to_the_one_wanted() -> None:
    net, _, _ = trained(40, rate=0.02, active=0.4, distill=0.0)
    with torch.no_grad():
        masks = [to_moe.hard_sigmoid(one) for one in net.logits()]
    assert float(to_moe.active_of(masks)) == pytest.approx(0.4, abs=0.12)


def test_training_leaves_no_gradients_in_the_model() -> None:
    ToMoE(steps=2, experts=2).compress(llama(), texts())
    assert all(parameter.grad is None for parameter in llama().parameters())


def test_noise_is_drawn_while_it_learns_only() -> None:
    logits = torch.full((2, 500), -3.2)
    assert to_moe.hard_sigmoid(logits).sum() == 0
    assert 0 < to_moe.hard_sigmoid(logits, torch.Generator().manual_seed(0)).mean() < 1
    smaller = ToMoE(steps=1, experts=4).compress(llama(), texts())
    with torch.no_grad():
        assert torch.equal(smaller(tokens(2, 9)).logits, smaller(tokens(2, 9)).logits)


def test_balance_is_1_where_experts_share_tokens_evenly() -> None:
    even = torch.eye(4).repeat(3, 1)
    assert float(to_moe.unevenness(even, even)) == pytest.approx(1)
    one = torch.eye(4)[:1].repeat(8, 1)
    assert float(to_moe.unevenness(one, one)) == pytest.approx(4)


def test_training_goes_on_where_it_was_stopped(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_moe, "_KEPT_EVERY", 2)
    method = ToMoE(steps=5, experts=2)
    whole = method.compress(llama(), texts())

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    calibration: Calibration = texts(folder=tmp_path, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        method.compress(llama(), calibration)
    done: list[int] = []
    again = method.compress(llama(), texts(folder=tmp_path, progress=lambda _, step, total: done.append(step)))
    assert done[0] == 2
    ours = whole.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in again.state_dict().items())


def test_a_quantizer_may_follow() -> None:
    smaller = pith.compress(llama(), "to_moe(steps=1, experts=2) + rtn(bits=8)", texts())
    with torch.no_grad():
        assert torch.isfinite(smaller(tokens(1, 9)).logits).all()
    assert all(type(module.up_proj).__name__ == "Int8Linear" for module in routed(smaller))
    latent = "reallm(bits=2, rank=1, learn=0, rounds=1, steps=1)"
    smaller = pith.compress(llama(), f"to_moe(steps=1, experts=2) + {latent}", texts())
    with torch.no_grad():
        assert torch.isfinite(smaller(tokens(1, 9)).logits).all()


@pytest.mark.parametrize("name", ["phi3", "olmoe", "gpt_neox"])
def test_models_without_a_plain_mlp_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ModelError) as refused:
        pith.compress(tiny(name), "to_moe(steps=1)", texts(1, 8))
    assert "\n" not in str(refused.value)


def test_it_says_that_single_tokens_are_slower() -> None:
    with pytest.warns(PithWarning, match="slower than the dense MLP"):
        pith.compress(llama(), "to_moe(steps=1, experts=2)", texts())
