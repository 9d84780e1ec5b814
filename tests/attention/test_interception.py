"""Blocks that are nested, left in any order, in several threads, or left without effect."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.attention import PithCache
from pith.core import InputError, PithWarning, Recipe
from pith.core.runtime import runtime


def held(model: hf.PreTrainedModel) -> int:
    cache = model(tokens(1, 40)).past_key_values
    assert isinstance(cache, PithCache)
    return cache.layers[0].store.length


def in_thread(work: Callable[[], object]) -> object:
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_each_thread_has_its_own_recipe_and_the_last_one_restores_the_model() -> None:
    model = MAKERS["llama_gqa"]().eval()
    before, step = model.config._attn_implementation, [threading.Event() for _ in range(4)]
    counts: dict[str, int] = {}

    def one() -> None:
        with pith.applied(model, "snapkv(budget=4, window=2)"):
            step[0].set()
            step[1].wait(10)
            counts["one"] = held(model)
        step[2].set()

    def two() -> None:
        step[0].wait(10)
        with pith.applied(model, "snapkv(budget=6, window=2)"):
            step[1].set()
            step[2].wait(10)
            counts["two"] = held(model)  # the first one has left
            counts["kept"] = model.config._attn_implementation == "pith"

    threads = [threading.Thread(target=work) for work in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"one": 4, "two": 6, "kept": True}
    assert model.config._attn_implementation == before
    assert "forward" not in vars(model)
    assert not isinstance(model(tokens(1, 8)).past_key_values, PithCache)


def test_a_helper_thread_runs_under_the_block_of_the_thread_that_started_it() -> None:
    """As with TextIteratorStreamer, where generate runs in a thread of its own."""
    model = tiny("llama_gqa")
    with pith.applied(model, "snapkv(budget=4, window=2)"):
        assert in_thread(lambda: held(model)) == 4


def test_a_thread_without_a_block_beside_two_with_one_is_refused() -> None:
    model, entered, done = tiny("llama_gqa"), [threading.Event(), threading.Event()], threading.Event()

    def work(index: int) -> None:
        with pith.applied(model, "dense"):
            entered[index].set()
            done.wait(10)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for event in entered:
        event.wait(10)
    try:
        with pytest.raises(InputError, match="recipes applied in 2 other threads"):
            model(tokens(1, 8))
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_blocks_may_be_left_out_of_order() -> None:
    model = tiny("llama_gqa")
    before = model.config._attn_implementation
    outer = runtime().applied(model, Recipe.parse("snapkv(budget=4, window=2)"))
    inner = runtime().applied(model, Recipe.parse("snapkv(budget=6, window=2)"))
    outer.__enter__()
    assert held(model) == 4
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert held(model) == 6
    inner.__exit__(None, None, None)
    assert model.config._attn_implementation == before
    assert "forward" not in vars(model)


def test_a_forward_set_before_is_restored_and_one_set_inside_is_kept() -> None:
    model = MAKERS["llama_gqa"]().eval()
    calls: list[str] = []
    own = model.forward

    def outside(*args: object, **kwargs: object) -> object:
        calls.append("outside")
        return own(*args, **kwargs)

    model.forward = outside
    with pith.applied(model, "dense"):
        assert isinstance(model(input_ids=tokens(1, 8), use_cache=True).past_key_values, PithCache) or calls
    assert vars(model)["forward"] is outside
    del model.forward
    with pith.applied(model, "dense"):
        intercepted = model.forward

        def inside(*args: object, **kwargs: object) -> object:
            calls.append("inside")
            return intercepted(*args, **kwargs)

        model.forward = inside
        assert isinstance(model(tokens(1, 8)).past_key_values, PithCache)
    assert vars(model)["forward"] is inside
    assert not isinstance(model(tokens(1, 8)).past_key_values, PithCache)
    assert calls[-1] == "inside"


def test_a_copy_of_the_model_made_inside_is_its_own() -> None:
    model = MAKERS["llama_gqa"]().eval()
    with pith.applied(model, "dense"):
        copied = copy.deepcopy(model)
        model(tokens(1, 8))
    with torch.no_grad():
        copied.lm_head.weight.zero_()
    assert copied(tokens(1, 8)).logits.abs().max() == 0
    assert model(tokens(1, 8)).logits.abs().max() > 0


def warned(work: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [one for one in caught if issubclass(one.category, PithWarning)]


def test_leaving_without_effect_warns_at_the_users_line() -> None:
    model = tiny("llama_gqa")

    def nothing() -> None:
        with pith.applied(model, "snapkv(budget=4)"):
            model.model(tokens(1, 8), use_cache=False)  # the model without its head

    (said,) = warned(nothing)
    assert "snapkv(budget=4) did not act on LlamaForCausalLM: none of its forwards ran" in str(said.message)
    assert said.filename == __file__


def test_leaving_after_effect_or_by_an_exception_or_under_dense_does_not_warn() -> None:
    model = tiny("llama_gqa")

    def acted() -> None:
        with pith.applied(model, "snapkv(budget=4)"):
            model.generate(tokens(1, 8), max_new_tokens=2)

    def own_cache() -> None:
        with pith.applied(model, "snapkv(budget=4)"):
            model(tokens(1, 8), past_key_values=Recipe.parse("snapkv(budget=4)").cache(model))

    def fails() -> None:
        with pytest.raises(RuntimeError, match="mine"), pith.applied(model, "snapkv(budget=4)"):
            raise RuntimeError("mine")

    def dense() -> None:
        with pith.applied(model, "dense"):
            pass

    for work in (acted, own_cache, fails, dense):
        assert not warned(work), work.__name__


def test_warnings_of_layers_name_the_users_line() -> None:
    model = MAKERS["gemma3"]().eval()

    def applies() -> None:
        with pith.applied(model, "snapkv"):
            model(tokens(1, 8))

    for work in (applies, lambda: Recipe.parse("snapkv").cache(model)):
        (said,) = warned(work)
        assert "leaves 1 of 2 layers" in str(said.message)
        assert said.filename == __file__
