"""FlexiGPT: distances, bases and differences as the equations say, and one copy of what is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny, tokens
from pith.core import ModelError, RecipeError
from pith.pruning.flexi_gpt import choose_bases, cut, distance, share_linear
from pith.pruning.llm_drop import LLMDrop
from pith.weights import PackedLinear, keep_blocks, linears
from pith.weights.duplicate import duplicate
from pith.weights.folder import load_folder
from pith.weights.shared import SharedLinear
from pith.weights.size import weight_bytes


def matrices(count: int, rows: int = 64, columns: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, columns, generator=generator) for _ in range(count)]


def approximated(weight: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]


@pytest.mark.parametrize(("rows", "columns", "rank"), [(64, 64, 8), (24, 64, 16), (64, 24, 8), (24, 24, 24)])
def test_the_distance_is_the_equation(rows: int, columns: int, rank: int) -> None:
    one, other = matrices(2, rows, columns)
    low, low_other = approximated(one, rank), approximated(other, rank)
    difference = approximated(low - low_other, rank)
    naive = (low - (low_other + difference)).norm().item()
    assert distance(cut(one, rank), cut(other, rank), rank) == pytest.approx(naive, rel=1e-4, abs=1e-4)


def test_bases_are_the_nearest_of_those_that_stay() -> None:
    model, rank = duplicate(llama()), 6
    with torch.no_grad():
        for name, linear in linears(model.model.layers[0]):  # nearly the weights of block 2
            other: Any = model.model.layers[2].get_submodule(name)
            noise = torch.randn(other.weight.shape, generator=torch.Generator().manual_seed(1))
            linear.weight = torch.nn.Parameter(other.weight + 0.01 * noise)
        found = choose_bases(model, [0, 3], rank)
    assert found[0] == 2
    far = {}
    for base in (1, 2):
        far[base] = 0.0
        for name, linear in linears(model.model.layers[3]):
            own = approximated(linear.weight.detach(), rank)
            theirs = approximated(model.model.layers[base].get_submodule(name).weight.detach(), rank)
            far[base] += (own - theirs - approximated(own - theirs, rank)).norm().item()
    assert found[3] == min(far, key=lambda base: far[base])


def test_a_shared_layer_is_the_best_of_its_rank() -> None:
    """What is left is the tail of the difference's singular values."""
    plain, base = torch.nn.Linear(40, 24), torch.nn.Linear(40, 24)
    holder = torch.nn.ModuleDict({"base": base})
    layer = share_linear(plain, base, "base", 5, None)
    layer._owner = (holder,)
    holder.__class__ = type("Holder", (torch.nn.ModuleDict,), {"__getattr__": lambda self, name: self[name]})
    weight = base.weight + layer.left @ layer.right
    values = torch.linalg.svdvals(plain.weight - base.weight)
    assert (plain.weight - weight).norm().item() == pytest.approx(values[5:].norm().item(), rel=1e-4)
    x = torch.randn(3, 40)
    assert torch.allclose(layer(x), x @ weight.T + plain.bias, atol=1e-5)


def test_the_output_is_normalised_and_gained() -> None:
    model = pith.compress(llama(), "flexi_gpt(drop=1, steps=0, gain=0.25)", texts())
    layer = next(m for n, m in model.named_modules() if isinstance(m, SharedLinear) and n.endswith("down_proj"))
    output = layer(torch.randn(7, 96))
    assert torch.allclose(output.mean(-1), torch.zeros(7), atol=1e-6)
    assert torch.allclose(output.std(-1, unbiased=False), torch.full((7,), 0.25), rtol=1e-3)


@pytest.mark.parametrize("drop", [1, 2])
def test_gains_of_zero_are_removal(drop: int) -> None:
    model, prompt = pith.compress(llama(), f"flexi_gpt(drop={drop}, steps=0, gain=0.0)", texts()), tokens(2, 21)
    shorter = duplicate(llama())
    with torch.no_grad():
        influence = LLMDrop(part="block").importance(shorter, texts())
        keep_blocks(shorter, sorted(influence.argsort(descending=True)[: 4 - drop].tolist()))
        assert torch.equal(model(prompt).logits, shorter(prompt).logits)


def test_the_whole_difference_without_a_gain_is_the_dense_block() -> None:
    """At full rank, and with what normalises taken away."""
    model, prompt = pith.compress(llama(), "flexi_gpt(drop=1, steps=0, rank=1.0)", texts()), tokens(2, 21)
    for module in model.modules():
        if isinstance(module, SharedLinear):
            module.gain = None
    with torch.no_grad():
        assert torch.allclose(model(prompt).logits, llama()(prompt).logits, atol=1e-3)


def shared_of(model: Any) -> list[SharedLinear]:
    return [module for module in model.modules() if isinstance(module, SharedLinear)]


def test_bases_stand_once_in_memory_and_on_disk(tmp_path: Path) -> None:
    recipe = "flexi_gpt(drop=2, steps=0, rank=4)"
    model, dense = pith.compress(llama(), recipe, texts()), llama()
    block = weight_bytes(dense.model.layers[0])
    norms = 2 * 64 * 4
    differences = sum(p.numel() * 4 for layer in shared_of(model) for p in layer.parameters())
    assert len(shared_of(model)) == 14
    expected = weight_bytes(dense) - 2 * (block - norms) + differences
    assert weight_bytes(model) == expected
    assert next(iter(pith.Recipe.parse(recipe))).predicted_bytes(dense) == expected  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path)
    assert (tmp_path / "pith.safetensors").stat().st_size == pytest.approx(expected, abs=16384)
    again = load_folder(tmp_path)
    assert weight_bytes(again) == expected
    first = shared_of(again)[0]
    assert first._owner[0] is again.get_submodule(first.base.rpartition(".")[0])


def test_each_replaced_block_has_its_own_layer_of_the_cache() -> None:
    model = pith.compress(llama(), "flexi_gpt(drop=2, steps=0)", texts())
    cache = model(tokens(1, 9), use_cache=True).past_key_values
    assert len(cache.layers) == 4
    assert all(layer.keys.shape[2] == 9 for layer in cache.layers)


def test_a_copy_reads_its_own_bases() -> None:
    model = pith.compress(llama(), "flexi_gpt(drop=1, steps=0)", texts())
    copy = duplicate(model)
    layer = shared_of(copy)[0]
    assert layer._owner[0] is copy.get_submodule(layer.base.rpartition(".")[0])


@pytest.mark.filterwarnings("ignore::pith.PithWarning")
def test_bases_that_are_packed_later_are_read_packed(tmp_path: Path) -> None:
    model = pith.compress(llama(), "flexi_gpt(drop=1, steps=0, gain=0.5) + rtn(bits=8)", texts())
    prompt, layer = tokens(1, 9), shared_of(model)[0]
    base = model.get_submodule(layer.base)
    assert isinstance(base, PackedLinear)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), x @ base.dense().T + x @ layer.right.T @ layer.left.T, atol=1e-4)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_folder(tmp_path)(prompt).logits, model(prompt).logits)


def test_training_helps_and_touches_no_base() -> None:
    dense, calibration = llama(), texts(rows=8, length=64)
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    untrained, trained = (
        pith.compress(dense, f"flexi_gpt(drop=2, steps={steps}, gain=0.1)", calibration) for steps in (0, 20)
    )
    with torch.no_grad():
        losses = [m(calibration.tokens, labels=calibration.tokens).loss.item() for m in (untrained, trained)]
    assert losses[1] < losses[0] - 0.2
    now = trained.state_dict()
    for name, tensor in now.items():
        if name in before:
            assert tensor.data_ptr() == dense.state_dict()[name].data_ptr()
            assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in (*dense.parameters(), *trained.parameters()))


def test_another_seed_reads_in_another_order() -> None:
    many = texts(rows=80, length=64)
    one, other = (pith.compress(llama(), f"flexi_gpt(drop=1, steps=2, seed={seed})", many) for seed in (0, 1))
    assert not torch.equal(shared_of(one)[0].left, shared_of(other)[0].left)


def test_nothing_else_may_remove_blocks_that_others_read() -> None:
    with pytest.raises(RecipeError, match="write flexi_gpt last"):
        pith.Recipe.parse("flexi_gpt() + sleb()")
    pith.Recipe.parse("sleb(drop=1) + flexi_gpt()")


@pytest.mark.parametrize(
    ("name", "message"), [("gemma3", "normalises what attention and MLP give"), ("phi3", "q_proj")]
)
def test_other_blocks_are_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pith.compress(tiny(name), "flexi_gpt(drop=1, steps=0)", texts())


def test_some_block_has_to_stay() -> None:
    with pytest.raises(ModelError, match="4 blocks of 4 cannot be replaced; allowed are at most 3"):
        pith.compress(llama(), "flexi_gpt(drop=4)", texts())


def test_biases_are_those_of_the_replaced_block() -> None:
    torch.manual_seed(0)
    config = hf.Qwen2Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    plain = hf.Qwen2ForCausalLM(config).eval()
    for block in plain.model.layers:
        torch.nn.init.normal_(block.self_attn.q_proj.bias)
    model, x = pith.compress(plain, "flexi_gpt(drop=1, steps=0, rank=1.0)", texts()), torch.randn(3, 64)
    name = next(n for n, m in model.named_modules() if isinstance(m, SharedLinear) and n.endswith("q_proj"))
    assert torch.allclose(model.get_submodule(name)(x), plain.get_submodule(name)(x), atol=1e-4)
