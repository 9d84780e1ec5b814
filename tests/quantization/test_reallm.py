"""ReALLM splits matrices into a low-rank part and codes, and counts all that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny
from pith.core import ModelError, PithWarning
from pith.quantization.latent_linear import LatentLinear, bits_per_weight
from pith.quantization.reallm import ReALLM, low_rank
from pith.weights import fit_grid
from pith.weights.folder import FILE
from pith.weights.size import weight_bytes


def matrix(out: int = 96, inputs: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(out, 3, generator=generator) @ torch.randn(3, inputs, generator=generator)
    return 0.05 * (low + torch.randn(out, inputs, generator=generator))


@torch.no_grad()
def coded(weight: torch.Tensor, **values: Any) -> LatentLinear:
    return ReALLM(**values).coded(weight)


def error(weight: torch.Tensor, near: torch.Tensor) -> float:
    return float((weight - near).norm() / weight.norm())


def test_a_low_rank_part_is_the_best_of_its_rank() -> None:
    weight = matrix()
    left, right = low_rank(weight, 4, torch.Generator().manual_seed(0))
    u, sizes, v = torch.linalg.svd(weight, full_matrices=False)
    best = error(weight, u[:, :4] * sizes[:4] @ v[:4])
    assert best * 0.999 <= error(weight, left.float() @ right.float()) < 1.01 * best
    assert torch.allclose(left.float().norm(dim=0), right.float().norm(dim=1), rtol=1e-2)  # the roots are on both sides


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_is_nearer_than_rounding_at_fewer_bits(bits: int) -> None:
    """Rounding as in a model of 16 bits, in groups of 128."""
    weight = matrix(128, 256)
    layer = coded(weight, bits=bits, rank=0, learn=4)
    held = 8 * sum(buffer.nbytes for buffer in layer.buffers()) / weight.numel()
    assert held <= bits + 32 / 128
    assert error(weight, layer.dense()) < error(weight, fit_grid(weight, bits, 128).nearest(weight))


def test_low_rank_and_alternation_lower_the_error() -> None:
    weight = matrix()
    alone, once, often = (
        error(weight, coded(weight, bits=2, rank=rank, rounds=rounds, learn=2).dense())
        for rank, rounds in ((0, 1), (4, 1), (4, 4))
    )
    assert once < alone
    assert often <= once


@pytest.mark.parametrize(
    "values", [{}, {"permute": True}, {"bits": 4}, {"bucket": 1}, {"rank": 0}, {"rank": 7}], ids=str
)
@torch.no_grad()
def test_a_forward_multiplies_with_the_weight_it_stands_for(values: dict[str, Any]) -> None:
    weight, x = matrix(67, 70), torch.randn(3, 5, 70)
    method = ReALLM(**{"bits": 2, "learn": 1, "rounds": 1, **values})
    bias = torch.nn.Parameter(torch.randn(67))
    layer = method.coded(weight, bias)
    assert torch.allclose(layer(x), x @ layer.dense().T + bias, atol=1e-5)
    assert sum(buffer.nbytes for buffer in layer.buffers()) == layer.shape.nbytes()
    assert error(weight, layer.dense()) < 0.5


def test_codes_stay_with_their_numbers_when_the_model_changes_its_dtype() -> None:
    layer = coded(matrix(), bits=2, learn=1, rounds=1)
    before = layer.dense()
    assert torch.equal(layer.to(torch.bfloat16).dense(), before)


@pytest.mark.parametrize("permute", [False, True])
def test_bits_are_all_that_is_held_in_memory_and_on_disk(permute: bool, tmp_path: Path) -> None:
    method = ReALLM(bits=2, learn=1, rounds=1, steps=0, permute=permute)
    with pytest.warns(PithWarning, match="slower than the dense model"):
        smaller = method.compress(llama(), texts())
    layers = [module for module in smaller.modules() if isinstance(module, LatentLinear)]
    assert len(layers) == 28
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    with torch.no_grad():
        rest = weight_bytes(llama()) - 4 * weights
    counted = bits_per_weight(smaller) * weights / 8
    assert weight_bytes(smaller) - rest == pytest.approx(counted, rel=1e-6)
    assert method.predicted_bytes(llama()) == weight_bytes(smaller)
    smaller.save_pretrained(tmp_path)
    on_disk = sum(tensor.nbytes for tensor in load_file(tmp_path / FILE).values())
    assert on_disk == pytest.approx(weight_bytes(smaller), rel=0.01)


def test_tuning_brings_blocks_nearer_and_changes_low_rank_parts_only() -> None:
    prompt = texts().tokens
    with pytest.warns(PithWarning):
        plain, tuned = (
            pith.compress(llama(), f"reallm(bits=2, rank=4, learn=1, rounds=1, steps={steps}, rate=0.01)", texts())
            for steps in (0, 40)
        )
    with torch.no_grad():
        wanted = llama().model(prompt).last_hidden_state
        far, near = (float((m.model(prompt).last_hidden_state - wanted).square().mean()) for m in (plain, tuned))
    assert near < 0.9 * far
    first, second = (m.get_submodule("model.layers.0.self_attn.q_proj") for m in (plain, tuned))
    changed = {
        name for name, _ in first.named_buffers() if not torch.equal(getattr(first, name), getattr(second, name))
    }
    assert changed == {"left", "right"}


def test_experts_are_coded_one_by_one() -> None:
    with pytest.warns(PithWarning):
        smaller = pith.compress(tiny("olmoe"), "reallm(bits=2, rank=1, learn=0, rounds=1, steps=1)", texts(2, 16))
    names = [name for name, module in smaller.named_modules() if isinstance(module, LatentLinear)]
    assert sum(".experts." in name for name in names) == 2 * 4 * 2


def test_a_matrix_with_numbers_that_are_none_is_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        coded(torch.full((4, 4), torch.nan))
