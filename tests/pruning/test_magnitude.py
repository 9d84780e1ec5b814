"""Magnitude pruning removes the smallest weights of each layer."""

from __future__ import annotations

import pytest
import torch

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.core import ModelError, ParameterError
from pith.pruning.magnitude import Magnitude
from pith.weights import block_linears, weight_of


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 1.0])
def test_each_layer_loses_its_smallest_weights(sparsity: float) -> None:
    dense = tiny("llama_gqa")
    pruned = block_linears(Magnitude(sparsity=sparsity).compress(dense))
    for name, linear in block_linears(dense).items():
        before, after = weight_of(linear), weight_of(pruned[name])
        gone = sorted(before.abs().flatten().tolist())[: int(before.numel() * sparsity)]
        assert int((after == 0).sum()) == len(gone)
        assert all(w == 0 or w == v for w, v in zip(after.flatten().tolist(), before.flatten().tolist(), strict=True))
        if 0 < len(gone) < before.numel():
            assert after[after != 0].abs().min() >= gone[-1]


@pytest.mark.parametrize(("pattern", "pruned", "of"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_with_a_pattern_each_group_loses_its_smallest(pattern: str, pruned: int, of: int) -> None:
    dense = tiny("llama_mha")
    after = block_linears(pith.compress(dense, f"magnitude(pattern={pattern!r})"))
    for name, linear in block_linears(dense).items():
        for group, left in zip(
            weight_of(linear).reshape(-1, of).abs(), weight_of(after[name]).reshape(-1, of), strict=True
        ):
            assert set((left == 0).nonzero().flatten().tolist()) == set(group.sort().indices[:pruned].tolist())


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_architecture_is_pruned_and_stays_plain(name: str) -> None:
    dense = tiny(name)
    pruned = Magnitude(sparsity=0.4).compress(dense)
    assert type(pruned) is type(dense)
    assert [k for k, _ in pruned.named_parameters()] == [k for k, _ in dense.named_parameters()]
    ending = ("experts.gate_up_proj", "experts.down_proj", "o_proj.weight", "dense.weight")
    zeros = {k: float((p == 0).float().mean()) for k, p in pruned.named_parameters() if k.endswith(ending)}
    assert zeros
    assert all(0.39 < share <= 0.4 for share in zeros.values()), zeros
    assert pruned(tokens(1, 8)).logits.isfinite().all()


def test_skipped_layers_stay() -> None:
    dense = tiny("llama_mha")
    pruned = Magnitude(skip=("*.mlp.*", "q_proj")).compress(dense)
    for name, linear in block_linears(dense).items():
        same = torch.equal(weight_of(linear), weight_of(block_linears(pruned)[name]))
        assert same == (".mlp." in name or name.endswith("q_proj"))


def test_a_pattern_fixes_the_share() -> None:
    with pytest.raises(ParameterError, match=r"sparsity=0.3 is not allowed with pattern='2:4'; allowed is 0.5"):
        Magnitude(sparsity=0.3, pattern="2:4")


def test_a_model_without_a_layer_to_prune_is_refused() -> None:
    with pytest.raises(ModelError, match="no plain linear layer"):
        Magnitude(skip="*").compress(tiny("llama_mha"))
