"""DuoAttention against its equations, written naively: gates, their gradients, and what each head sees."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AttentionInterface

import pith
from contracts.test_eviction_laws import all_real, cache_bytes, read_and_decode, restore
from contracts.tiny import FULL, MAKERS, tiny, tokens
from pith.cache.ada_kv import AdaKV
from pith.cache.duo_attention import DuoAttention, _gated, _heads, distance, read_gates, retrieval_heads, streaming_mask
from pith.core import DenseCache, InputError, ModelError, ParameterError, PithWarning, Recipe
from pith.models import builtin


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def gates_for(name: str, folder: Path) -> str:
    """Gates that leave one full layer head and one streaming one at least in each layer."""
    _, heads = _heads(tiny(name))
    gates = torch.arange(2 * heads).view(2, heads).float().flip(0).roll(1, 1) * 0.1
    gates[:, 0], gates[:, 1] = 0.9, 0.05
    path = folder / f"{name}.safetensors"
    save_file({"gates": gates.contiguous()}, path)
    return str(path)


def small(name: str, folder: Path, **more: float) -> DuoAttention:
    return DuoAttention(**{"sink_size": 3, "recent_size": 8, "gates": gates_for(name, folder)} | more)


def reads_like(method: DuoAttention, model, text: torch.Tensor, prompt: int, cut_every: int = 64) -> torch.Tensor:
    """Logits of every token after the prompt, read one by one, from forwards of the whole text without a cache."""
    full = retrieval_heads(read_gates(method.gates), method.sparsity)
    length = text.shape[1]
    at = torch.arange(length)
    # the prompt, and after every 64 decoded tokens: there the streaming heads are cut
    cut = torch.where(at < prompt, 0, prompt + (at - prompt) // cut_every * cut_every)[:, None]
    causal = at <= at[:, None]
    streaming = causal & ((at < method.sink_size) | (at >= cut - method.recent_size))

    def attention(module, query, key, value, mask, scaling=None, dropout=0.0, **more):
        group = query.shape[1] // key.shape[1]
        seen = torch.where(full[module.layer_idx][:, None, None], causal, streaming).repeat_interleave(group, 0)
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        weights = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, -torch.inf).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    AttentionInterface.register("duo_naive", attention)
    model.set_attn_implementation("duo_naive")
    logits = model(text).logits[:, prompt - 1 :]
    restore(model)
    return logits


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "phi3"])
@pytest.mark.parametrize("prompt", [41, 9])
def test_heads_see_what_the_equation_says(name: str, prompt: int, tmp_path: Path) -> None:
    model, method, text = tiny(name), small(name, tmp_path), tokens(1, prompt + 140)
    logits, cache = read_and_decode(
        model, Recipe([method]), text[:, :prompt], all_real(text[:, :prompt]), text[:, prompt:]
    )
    assert (logits - reads_like(method, model, text, prompt)).abs().max() < 1e-4
    full = retrieval_heads(read_gates(method.gates), method.sparsity)
    held = torch.stack([(layer.store.positions[0] >= 0).sum(dim=-1) for layer in cache.layers])
    assert torch.equal(held, torch.where(full, prompt + 140, 11 + 140 - 128))


@pytest.mark.parametrize("name", MAKERS)
def test_no_streaming_heads_or_short_prompts_are_the_dense_model(name: str, tmp_path: Path) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 41), tokens(2, 7, seed=1)
    dense, _ = read_and_decode(model, None, prompt, all_real(prompt), decoded)
    for method in (DuoAttention(sparsity=0.0), DuoAttention(gates=gates_for(name, tmp_path))):
        kept, _ = read_and_decode(model, Recipe([method]), prompt, all_real(prompt), decoded)
        assert (kept - dense).abs().max() < 1e-5


@pytest.mark.parametrize("name", MAKERS)
def test_a_padded_row_gives_what_it_gives_alone(name: str, tmp_path: Path) -> None:
    model, recipe = tiny(name), Recipe([small(name, tmp_path)])
    decoded, rows = tokens(3, 70, seed=1), [tokens(1, n, seed=n) for n in (45, 29, 9)]
    longest = max(r.shape[1] for r in rows)
    prompt = torch.cat([torch.nn.functional.pad(r, (longest - r.shape[1], 0)) for r in rows])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (longest - r.shape[1], 0)) for r in rows])
    together, cache = read_and_decode(model, recipe, prompt, mask, decoded)
    for i, row in enumerate(rows):
        alone, own = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-3
        for mine, theirs in zip(cache.served(), own.served(), strict=True):
            alike = theirs.store.positions[0].expand(mine.store.positions.shape[1], -1)
            for heads, kept in zip(mine.store.positions[i], alike, strict=True):
                assert heads[heads >= 0].tolist() == kept[kept >= 0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FULL)
def test_bytes_are_what_it_claims_also_in_later_turns(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model, method = tiny(name, dtype), small(name, tmp_path)
    _, dense = read_and_decode(model, Recipe(), tokens(1, 400), all_real(tokens(1, 400)), tokens(1, 0))
    pair = (cache_bytes(dense) - sum(layer.store.positions.nbytes for layer in dense.layers)) / 400
    cache = Recipe([method]).cache(model)
    for seen, turn in ((300, tokens(1, 300)), (400, tokens(1, 100, seed=1))):
        model(turn, past_key_values=cache)
        heads = sum(int((layer.store.positions >= 0).sum()) for layer in cache.layers)
        assert (cache_bytes(cache) - 4 * heads) == pytest.approx(
            method.claimed(DenseCache(tokens=seen)) * seen * pair, rel=1e-6
        )
    restore(model)


def test_turns_storages_beams_and_chunks(tmp_path: Path) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 64)
    method = small("llama_gqa", tmp_path)
    mask = all_real(prompt)
    mask[1, :20] = 0
    for text in (str(method), f"{method} + kv_cache_int8"):
        with pith.applied(model, text):
            for options in ({}, {"num_beams": 3}, {"prefill_chunk_size": 24}, {"do_sample": True}):
                torch.manual_seed(0)
                first = model.generate(prompt, attention_mask=mask, max_new_tokens=80, **options)
                torch.manual_seed(0)
                assert torch.equal(model.generate(prompt, attention_mask=mask, max_new_tokens=80, **options), first)


def test_a_chunk_sees_all_of_itself(tmp_path: Path) -> None:
    model, method, text = tiny("llama_gqa"), small("llama_gqa", tmp_path), tokens(1, 100)
    cache = Recipe([method]).cache(model)
    for chunk in text.split(40, dim=1):
        logits = model(chunk, past_key_values=cache).logits[:, -1]
    restore(model)
    # what is read together sees what was kept before, and itself
    naive = reads_like(method, model, text, 40, cut_every=40)[:, -1]
    assert (logits - naive).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3"])
def test_gradients_of_the_gates(name: str) -> None:
    """Against differences of the loss; the two attentions that gates mix are checked by the tests around this one."""
    model = copy.deepcopy(tiny(name)).double()
    before, text = model.config._attn_implementation, tokens(1, 31)
    labelled = torch.zeros_like(text, dtype=torch.bool)
    labelled[:, 20:] = True
    shape = (2, model.config.num_key_value_heads)
    alpha = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    method = DuoAttention(sink_size=2, recent_size=5)
    with torch.enable_grad(), _gated(model, method) as hidden:
        distance(hidden, alpha, text, labelled).backward()
        assert torch.equal(hidden(None, text), hidden(torch.ones(shape, dtype=torch.float64), text))
        assert not any(p.requires_grad for p in model.parameters())
        for index in range(alpha.numel()):
            step = torch.zeros(alpha.numel(), dtype=torch.float64).index_fill_(0, torch.tensor(index), 1e-3).view(shape)
            up, down = (distance(hidden, alpha.detach() + sign * step, text, labelled) for sign in (1, -1))
            expected = float(up - down) / 2e-3
            assert float(alpha.grad.flatten()[index]) == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert all(p.requires_grad for p in model.parameters())
    assert model.config._attn_implementation == before


def test_streaming_attention_is_the_one_that_gates_mix_in() -> None:
    """With all gates at 0 the model reads as one whose every head streams."""
    model, text = tiny("llama_gqa"), tokens(1, 31)
    seen = streaming_mask(31, 2, 5)[0, 0]
    assert [[j for j in range(31) if seen[i, j]] for i in range(31)] == [
        [j for j in range(i + 1) if j < 2 or i - j < 5] for i in range(31)
    ]

    def attention(module, query, key, value, mask, scaling=None, dropout=0.0, **more):
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
        weights = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, -torch.inf).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    AttentionInterface.register("duo_naive", attention)
    model.set_attn_implementation("duo_naive")
    expected = model.model(text, use_cache=False).last_hidden_state
    restore(model)
    with _gated(model, DuoAttention(sink_size=2, recent_size=5)) as hidden:
        assert (hidden(torch.zeros(2, 2), text) - expected).abs().max() < 1e-4


def test_fitting_writes_gates_and_the_weight_pulls_them_down(tmp_path: Path) -> None:
    model, method = tiny("llama_gqa"), DuoAttention(sink_size=2, recent_size=5)
    text = tokens(1, 60)
    labelled = torch.zeros_like(text, dtype=torch.bool)
    labelled[:, 50:] = True
    fitted = method.fit(model, [(text, labelled)] * 60, tmp_path / "gates.safetensors", reg_weight=0.5)
    gates = read_gates(fitted.gates)
    assert gates.shape == (2, 2)
    assert 0 <= float(gates.min()) < float(gates.max()) <= 1
    assert fitted.on(model) == fitted
    # a heavy weight makes all heads stream
    streaming = method.fit(model, [(text, labelled)] * 100, tmp_path / "none.safetensors", reg_weight=1e4)
    assert read_gates(streaming.gates).max() < 0.1
    with pytest.raises(InputError, match="data has 0 texts"):
        method.fit(model, [], tmp_path / "none.safetensors")


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.3, 0.5, 0.75, 1.0])
def test_the_share_of_streaming_heads(sparsity: float) -> None:
    gates = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    full = retrieval_heads(gates, sparsity)
    threshold = 2.0 if sparsity == 1 else float(gates.double().quantile(sparsity))
    assert torch.equal(full, gates.double() >= threshold - 1e-12)
    assert int(retrieval_heads(torch.ones(4, 4), 0.5).sum()) == 8


def test_the_built_in_model_brings_its_gates() -> None:
    model, _ = builtin()
    method = DuoAttention().on(model)
    assert Path(method.gates).name == "duo_attention.safetensors"
    assert int(retrieval_heads(read_gates(method.gates), 0.5).sum()) == 8


def test_a_file_of_gates_that_changes_is_read_again(tmp_path: Path) -> None:
    model = tiny("llama_gqa")
    method = small("llama_gqa", tmp_path)
    first = method.on(model)
    save_file({"gates": torch.full(_heads(model), 0.25)}, method.gates)
    assert torch.equal(read_gates(method.on(model).gates), torch.full(_heads(model), 0.25))
    assert first == method.on(model)


@pytest.mark.parametrize(
    "gates",
    [torch.rand(2), torch.full((2, 2), float("nan")), torch.ones(2, 2, dtype=torch.int64)],
    ids=["row", "nan", "integers"],
)
def test_what_is_no_gate_is_one_line(gates: torch.Tensor, tmp_path: Path) -> None:
    save_file({"gates": gates}, tmp_path / "gates.safetensors")
    with pytest.raises(ModelError, match="holds no gates of duo_attention: they must be finite"):
        DuoAttention(gates=str(tmp_path / "gates.safetensors")).on(tiny("llama_gqa"))
    with pytest.raises(ModelError, match="it is a folder; allowed is a file"):
        DuoAttention(gates=str(tmp_path)).on(tiny("llama_gqa"))


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    model = tiny("llama_gqa")
    with pytest.raises(ModelError, match=r"there are no gates for duo_attention at .*; DuoAttention\(\).fit"):
        Recipe.parse("duo_attention").cache(model)
    with pytest.raises(ModelError, match="are for 2 layers of 4 key-value heads; LlamaForCausalLM has 2 of 2"):
        Recipe([small("llama_mha", tmp_path)]).cache(model)
    (tmp_path / "broken").write_text("no gates")
    with pytest.raises(ModelError, match="holds no gates of duo_attention"):
        Recipe([DuoAttention(gates=str(tmp_path / "broken"))]).cache(model)
    with pytest.raises(ParameterError, match=r"of=duo_attention\(\) is not allowed"):
        AdaKV(of=DuoAttention())
    restore(model)
