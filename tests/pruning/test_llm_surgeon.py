"""LLM Surgeon removes what costs least by curvature, and what is left makes up for it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.core import ParameterError
from pith.models import builtin
from pith.pruning import llm_surgeon
from pith.pruning.cutting import cut_dead, dead_channels, dead_heads
from pith.pruning.llm_surgeon import LLMSurgeon, gradients_of
from pith.weights import Calibration, block_linears, blocks, parts, weight_of
from pith.weights.duplicate import duplicate


def calibration() -> Calibration:
    return Calibration(tokens(8, 48))


def zeros(model: Any) -> float:
    """The share of the weights of the blocks' linear layers that are zero."""
    weights = [weight_of(linear) for linear in block_linears(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_are_those_of_the_summed_loss(frozen: bool) -> None:
    """sum over tokens of g a^T is the gradient of the weight."""
    model = copy.deepcopy(tiny("llama_gqa")).requires_grad_(not frozen)
    rows = tokens(3, 16)
    found = {name: (a, g) for name, a, g in gradients_of(model, block_linears(model), rows)}
    assert all(parameter.grad is None for parameter in model.parameters())
    model.requires_grad_(True)
    logits = model(rows).logits
    F.cross_entropy(logits[:, :-1].reshape(-1, 97), rows[:, 1:].reshape(-1), reduction="sum").backward()
    assert len(found) == 14
    for name, (a, g) in found.items():
        assert a.shape[0] == g.shape[0] == 48
        assert torch.allclose(g.T @ a, model.get_submodule(name).weight.grad, rtol=1e-3, atol=1e-3), name


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_architecture_is_pruned(name: str) -> None:
    dense = tiny(name)
    before = [p.detach().clone() for p in dense.parameters()]
    pruned = LLMSurgeon(sparsity=0.3, shots=2).compress(dense, calibration())
    assert all(torch.equal(a, b) for a, b in zip(before, dense.parameters(), strict=True))
    assert all(
        p.requires_grad == q.requires_grad for p, q in zip(pruned.parameters(), dense.parameters(), strict=False)
    )
    assert pruned(tokens(1, 8)).logits.isfinite().all()
    assert sum(p.numel() for p in pruned.parameters()) <= sum(p.numel() for p in dense.parameters())


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("structured", 0.3), ("unstructured", 0.5), ("2:4", 0.5), ("2:4", 0.2)]
)
def test_the_share_that_goes_is_the_one_asked_for(
    pattern: str, sparsity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_surgeon, "cut_dead", lambda model: None)
    dense = tiny("llama_gqa")
    pruned = LLMSurgeon(sparsity=sparsity, shots=2, pattern=pattern).compress(dense, calibration())
    assert sparsity - 0.01 < zeros(pruned) <= sparsity
    if pattern == "2:4":
        for linear in block_linears(pruned).values():
            groups = (weight_of(linear).reshape(-1, 4) == 0).sum(dim=1)
            assert set(groups.unique().tolist()) <= {0, 2}
    changed = [
        not torch.equal(
            weight_of(linear)[weight_of(pruned.get_submodule(name)) != 0],
            weight_of(pruned.get_submodule(name))[weight_of(pruned.get_submodule(name)) != 0],
        )
        for name, linear in block_linears(dense).items()
    ]
    assert any(changed)


def test_biases_are_pruned_with_their_rows() -> None:
    pruned = LLMSurgeon(sparsity=0.4, shots=1).compress(tiny("gpt_neox"), calibration())
    gone = 0
    for linear in block_linears(pruned).values():
        dead = ~weight_of(linear).any(dim=1)
        gone += int(dead.sum())
        assert not linear.bias[dead].any()
    assert gone


def test_taking_out_what_is_dead_changes_no_output() -> None:
    model = duplicate(tiny("llama_gqa"))
    first = parts(blocks(model)[0])
    with torch.no_grad():
        for linear in (first.gate, first.up, first.down, first.v, first.o):
            linear.weight = torch.nn.Parameter(linear.weight.clone())
        first.gate.weight[[3, 5]] = 0
        first.up.weight[[5, 8]] = 0
        first.down.weight[:, 40] = 0
        first.v.weight[16:] = 0
        expected = model(tokens(2, 32)).logits
        assert dead_channels(blocks(model)[0]).nonzero().flatten().tolist() == [3, 5, 8, 40]
        assert dead_heads(model, blocks(model)[0]).tolist() == [False, True]
        cut_dead(model)
        assert first.gate.weight.shape == (92, 64)
        assert first.k.weight.shape == (16, 64)
        assert blocks(model)[1].mlp.gate_proj.weight.shape == (96, 64)
        assert torch.allclose(model(tokens(2, 32)).logits, expected, atol=1e-4)


def test_a_head_that_no_query_head_is_read_from_is_dead_only_as_a_whole() -> None:
    model = duplicate(tiny("llama_gqa"))
    first = parts(blocks(model)[0])
    first.o.weight = torch.nn.Parameter(first.o.weight.clone())
    with torch.no_grad():
        first.o.weight[:, :16] = 0  # one of two query heads
        assert dead_heads(model, blocks(model)[0]).tolist() == [False, False]
        first.o.weight[:, 16:32] = 0
        assert dead_heads(model, blocks(model)[0]).tolist() == [True, False]


def test_what_was_done_before_a_stop_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, kept = LLMSurgeon(sparsity=0.3, shots=2), Calibration(tokens(4, 32), folder=tmp_path)
    once = method.compress(tiny("qwen3"), kept)
    monkeypatch.setattr(llm_surgeon, "gradients_of", None)
    again = method.compress(tiny("qwen3"), kept)
    assert torch.equal(once(tokens(1, 16)).logits, again(tokens(1, 16)).logits)


def test_it_saves_and_loads(tmp_path: Path) -> None:
    pruned = LLMSurgeon(sparsity=0.5, shots=1).compress(tiny("llama_gqa"), calibration())
    pruned.save_pretrained(tmp_path)
    again = pith.weights.folder.load_folder(tmp_path).eval()
    assert torch.equal(again(tokens(1, 16)).logits, pruned(tokens(1, 16)).logits)


def test_it_beats_magnitude_at_the_same_share() -> None:
    model, tokenizer = builtin()
    text = pith.calibration(tokenizer, sequences=8, length=128)
    rows = pith.calibration(tokenizer, sequences=40, length=128).tokens[1::8]

    def loss(one: Any) -> float:
        with torch.no_grad():
            return float(one(rows, labels=rows).loss)

    surgeon = pith.compress(model, "llm_surgeon(sparsity=0.2, shots=1)", text)
    magnitude = pith.compress(model, "magnitude_channels(sparsity=0.2)")
    assert loss(surgeon) - loss(model) < 0.5 * (loss(magnitude) - loss(model))


def test_two_of_four_is_at_most_half() -> None:
    with pytest.raises(ParameterError, match=r"sparsity=0.6 is not allowed with pattern='2:4'; allowed is at most 0.5"):
        LLMSurgeon(sparsity=0.6, pattern="2:4")
