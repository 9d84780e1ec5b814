"""The laws that every registered eviction keeps, on every architecture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import pith
from contracts.tiny import COMMON, FULL, MAKERS, tiny, tokens
from contracts.variants import COMBINATORS, EVICTIONS, METHODS, at_budget
from pith.attention import PithCache
from pith.core import InputError, PithWarning, Recipe

every_method = pytest.mark.parametrize("method", [*EVICTIONS, *COMBINATORS])
every_model = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def read_and_decode(model, recipe: Recipe | None, prompt, mask, decoded) -> tuple[torch.Tensor, PithCache]:
    """Logits after the prompt and after each decoded token, [batch, 1 + decoded, vocabulary], and the cache."""
    cache = recipe.cache(model) if recipe is not None else None
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    try:
        out = model(prompt, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        logits = [out.logits[:, -1]]
        for i in range(decoded.shape[1]):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = mask.sum(-1, keepdim=True) - 1
            out = model(
                decoded[:, i : i + 1],
                attention_mask=mask,
                position_ids=positions,
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            logits.append(out.logits[:, -1])
    finally:
        restore(model)
    return torch.stack(logits, dim=1), out.past_key_values


def restore(model) -> None:
    model.set_attn_implementation("eager" if "GptOss" in type(model).__name__ else "sdpa")


def cache_bytes(cache: PithCache) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in cache.tensors()}
    return sum(storage.nbytes() for storage in storages.values())


def extras(cache: PithCache) -> int:
    """Bytes beside keys and values: a position of 4 bytes a pair and head, and 4 more where a number is carried."""
    return sum(t.nbytes for layer in cache.layers for t in layer.store.extras())


def kept_tokens(cache: PithCache) -> float:
    """Pairs of a head, the mean over heads, rows and layers."""
    counts = [(layer.store.positions >= 0).sum(dim=-1).float().mean() for layer in cache.layers]
    return float(torch.stack(counts).mean())


def assert_in_order(cache: PithCache) -> None:
    for layer in cache.layers:
        for head in layer.store.positions.flatten(0, 1):
            assert (head[head >= 0].diff() > 0).all()


def all_real(prompt: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(prompt)


@every_model
@every_method
def test_a_budget_of_everything_is_the_dense_model(name: str, method: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 41), tokens(2, 7, seed=1)
    dense, _ = read_and_decode(model, None, prompt, all_real(prompt), decoded)
    kept, _ = read_and_decode(model, Recipe.parse(at_budget(method, 1.0)), prompt, all_real(prompt), decoded)
    assert (kept - dense).abs().max() < 1e-5


@every_model
def test_the_runtime_without_a_method_is_the_dense_model(name: str) -> None:
    model, prompt = tiny(name), tokens(2, 41)
    greedy = {"max_new_tokens": 24, "do_sample": False}
    expected = model.generate(prompt, **greedy)
    with pith.applied(model, Recipe()):
        assert torch.equal(model.generate(prompt, **greedy), expected)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("budget", ["0.3", "16", "1.0"])
@every_method
def test_a_padded_row_gives_what_it_gives_alone(name: str, method: str, budget: str) -> None:
    model, recipe = tiny(name), Recipe.parse(at_budget(method, budget))
    decoded = tokens(3, 5, seed=1)
    rows = [tokens(1, n, seed=n) for n in (45, 29, 9)]
    longest = max(r.shape[1] for r in rows)
    prompt = torch.cat([torch.nn.functional.pad(r, (longest - r.shape[1], 0)) for r in rows])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (longest - r.shape[1], 0)) for r in rows])
    together, cache = read_and_decode(model, recipe, prompt, mask, decoded)
    for i, row in enumerate(rows):
        alone, alone_cache = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-4
        for index, layer in enumerate(cache.layers):
            if index not in cache.left_alone:
                mine = layer.store.positions[i]
                for head, kept in enumerate(alone_cache.layers[index].store.positions[0]):
                    assert mine[head][mine[head] >= 0].tolist() == kept[kept >= 0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama_gqa", "phi3", "gpt_neox"])
@every_method
def test_bytes_are_what_the_budget_says(name: str, method: str, dtype: torch.dtype) -> None:
    model, prompt, decoded = tiny(name, dtype), tokens(1, 1200), tokens(1, 64, seed=1)
    _, dense = read_and_decode(model, Recipe(), prompt, all_real(prompt), decoded[:, :0])
    dense_bytes = cache_bytes(dense)
    for budget in (0.5, 0.1):
        recipe = Recipe.parse(at_budget(method, budget))
        _, cache = read_and_decode(model, recipe, prompt, all_real(prompt), decoded[:, :0])
        held = cache_bytes(cache)
        assert held - extras(cache) == pytest.approx(budget * (dense_bytes - extras(dense)), rel=0.02)
        _, cache = read_and_decode(model, recipe, prompt, all_real(prompt), decoded)
        kept = round(1200 * budget)
        tokens_held = kept if METHODS[method].every_step else kept + 64
        headroom = max(64, tokens_held // 16)
        per_token = held / kept
        assert cache_bytes(cache) <= (tokens_held + headroom) * per_token * 1.02
        assert kept_tokens(cache) == pytest.approx(tokens_held, rel=0.02 if method in COMBINATORS else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_method
def test_bytes_with_all_that_is_held_at_a_usual_head_size(method: str, dtype: torch.dtype) -> None:
    """Positions and moved keys counted in, against the keys and values of the dense model alone.

    A number that a method carries for each pair (h2o) comes on top: 4 bytes of the 256 or 512 of a pair.
    """
    config = LlamaConfig(**{**COMMON, "num_hidden_layers": 1}, num_key_value_heads=2, head_dim=64)
    model, prompt = LlamaForCausalLM(config).to(dtype).eval(), tokens(1, 2400)
    dense = 2 * 2 * 2400 * 64 * dtype.itemsize
    for budget in (0.5, 0.25, 0.1):
        _, cache = read_and_decode(
            model, Recipe.parse(at_budget(method, budget)), prompt, all_real(prompt), prompt[:, :0]
        )
        carried = 0 if cache.layers[0].store.carried is None else cache.layers[0].store.carried.nbytes
        assert cache_bytes(cache) - carried == pytest.approx(budget * dense, rel=0.02)


@every_method
def test_nothing_else_holds_what_was_dropped(method: str) -> None:
    import gc
    import weakref

    model, prompt = tiny("llama_gqa"), tokens(1, 200)
    alive: list[weakref.ref[torch.UntypedStorage]] = []
    cache = Recipe.parse(at_budget(method, 0.25)).cache(model)
    layer = cache.layers[0]
    append = layer.store.append

    def watched(keys, values, positions, decoding) -> None:
        alive.extend([weakref.ref(keys), weakref.ref(values)])
        append(keys, values, positions, decoding)

    layer.store.append = watched
    model(prompt, past_key_values=cache)
    restore(model)
    gc.collect()
    assert len(alive) == 2
    assert all(ref() is None for ref in alive)


@every_method
def test_a_prompt_in_chunks_and_a_second_turn(method: str) -> None:
    model, prompt, turn = tiny("llama_gqa"), tokens(1, 120), tokens(1, 30, seed=2)
    recipe = Recipe.parse(at_budget(method, 0.5))
    cache = recipe.cache(model)
    for chunk in (*prompt.split(50, dim=1), turn):
        logits = model(chunk, past_key_values=cache).logits
        assert torch.isfinite(logits).all()
    restore(model)
    assert cache.get_seq_length() == 150
    # a share counts everything seen, so the further turn is halved with the rest
    assert kept_tokens(cache) == pytest.approx(75, rel=0.02 if method in COMBINATORS else 0)
    assert_in_order(cache)


@every_method
def test_a_prompt_in_chunks_with_room_for_everything_is_dense(method: str) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 60)
    dense = model(prompt).logits[:, -1]
    cache = Recipe.parse(at_budget(method, 4096)).cache(model)
    for chunk in prompt.split(25, dim=1):
        logits = model(chunk, past_key_values=cache).logits[:, -1]
    restore(model)
    assert (logits - dense).abs().max() < 1e-5


@every_method
def test_generate_in_chunks_beams_and_samples(method: str) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 64)
    mask = all_real(prompt)
    mask[1, :20] = 0
    with pith.applied(model, at_budget(method, 0.5)):
        for options in (
            {"num_beams": 3},
            {"do_sample": True},
            {"prefill_chunk_size": 24},
            {"num_return_sequences": 2, "do_sample": True},
        ):
            torch.manual_seed(0)
            first = model.generate(prompt, attention_mask=mask, max_new_tokens=8, **options)
            torch.manual_seed(0)
            second = model.generate(prompt, attention_mask=mask, max_new_tokens=8, **options)
            assert torch.equal(first, second)
            assert first.shape[1] == 72


@every_method
def test_beams_go_on_from_the_right_rows(method: str) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 40)
    expected = model.generate(prompt, max_new_tokens=10, num_beams=3, do_sample=False)
    with pith.applied(model, at_budget(method, 1.0)):
        assert torch.equal(model.generate(prompt, max_new_tokens=10, num_beams=3, do_sample=False), expected)


@every_method
def test_crop_takes_back_what_came_after_the_last_eviction(method: str) -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 60), tokens(1, 6, seed=1)
    recipe = Recipe.parse(at_budget(method, 0.5))
    logits, cache = read_and_decode(model, recipe, prompt, all_real(prompt), decoded)
    if METHODS[method].every_step:
        with pytest.raises(InputError, match="evicted for good; at most 0"):
            cache.crop(-3)
        return
    cache.crop(-3)
    again = recipe.cache(model)  # sets the model's attention
    assert again.get_seq_length() == 0
    assert cache.get_seq_length() == 63
    repeated = model(decoded[:, 3:4], past_key_values=cache, position_ids=torch.tensor([[63]])).logits[:, -1]
    restore(model)
    assert (repeated - logits[:, 4]).abs().max() < 1e-5
    with pytest.raises(InputError, match="evicted for good"):
        cache.crop(-5)


@every_method
def test_pairs_stay_in_position_order(method: str) -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 80), tokens(1, 70, seed=1)
    _, cache = read_and_decode(model, Recipe.parse(at_budget(method, 0.3)), prompt, all_real(prompt), decoded)
    assert_in_order(cache)


def test_assisted_generation_works_or_says_why_not() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 40)
    expected = model.generate(prompt, max_new_tokens=10, do_sample=False)
    with pith.applied(model, Recipe()):
        drafted = model.generate(prompt, max_new_tokens=10, do_sample=False, prompt_lookup_num_tokens=3)
    assert torch.equal(drafted, expected)


def test_full_models_are_wholly_served() -> None:
    for name in FULL:
        assert Recipe().cache(tiny(name)).left_alone == {}
        restore(tiny(name))
