"""Continuations that are read through the cache have the likelihoods of one forward, where nothing is dropped."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import tiny, tokens
from pith.core import PithWarning, applied
from pith.tasks.continuation import Pair, log_likelihoods
from pith.tasks.stream import Stream

SIZES = [(9, 1), (5, 4), (9, 3), (1, 6), (9, 3), (12, 2), (5, 1)]
"""Tokens of contexts and of continuations."""


def pairs() -> list[Pair]:
    rows = [tokens(1, context + after, seed)[0].tolist() for seed, (context, after) in enumerate(SIZES)]
    return [(tuple(row[:size]), tuple(row[size:])) for row, (size, _) in zip(rows, SIZES, strict=True)]


@torch.no_grad()
def naive(model: hf.PreTrainedModel, pair: Pair) -> tuple[float, bool]:
    """From one forward over context and continuation."""
    context, after = pair
    logits = model(torch.tensor([context + after])).logits[0, len(context) - 1 : -1].float()
    likely = logits.log_softmax(dim=-1)[range(len(after)), list(after)].sum()
    return float(likely), logits.argmax(dim=-1).tolist() == list(after)


@pytest.mark.parametrize("recipe", ["dense", "snapkv(budget=1.0)", "streaming_llm(budget=1.0)"])
@pytest.mark.parametrize(("batch_size", "chunk"), [(8, 1), (2, 1), (8, 2), (1, 16)])
def test_they_are_those_of_one_forward(recipe: str, batch_size: int, chunk: int) -> None:
    model = tiny("llama_gqa")
    expected = [naive(model, pair) for pair in pairs()]
    told: list[tuple[int, int]] = []
    with applied(model, recipe):
        found = log_likelihoods(model, pairs(), 512, batch_size, chunk, lambda *done: told.append(done))
    assert [likely for likely, _ in found] == pytest.approx([likely for likely, _ in expected], abs=2e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert told[-1] == (7, 7)


def test_what_greedy_decoding_gives_is_known() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 6)
    after = model.generate(prompt, max_new_tokens=4, do_sample=False)[0, 6:].tolist()
    wrong = [*after[:2], 5 if after[2] != 5 else 6, after[3]]
    context = tuple(prompt[0].tolist())
    found = log_likelihoods(model, [(context, tuple(after)), (context, tuple(wrong)), (context, (after[0],))], 512)
    assert [greedy for _, greedy in found] == [True, False, True]


@torch.no_grad()
def test_a_recipe_acts_between_context_and_continuation() -> None:
    model, recipe = tiny("llama_gqa"), "snapkv(budget=4, window=2, kernel=1)"
    context, after = tokens(1, 24, 3), tokens(1, 5, 4)
    pair = tuple(context[0].tolist()), tuple(after[0].tolist())
    with applied(model, recipe):
        stream = Stream(model)
        steps = [stream.read(context)] + [stream.read(after[:, i : i + 1]) for i in range(4)]
        [(found, _)] = log_likelihoods(model, [pair], 512)
        [(first, _)] = log_likelihoods(model, [(pair[0], pair[1][:1])], 512)
    expected = torch.cat(steps).log_softmax(dim=-1)[range(5), after[0].tolist()].sum()
    assert found == pytest.approx(float(expected), abs=1e-4)
    assert abs(found - naive(model, pair)[0]) > 0.1
    # the context itself is attended to whole
    assert first == pytest.approx(naive(model, (pair[0], pair[1][:1]))[0], abs=1e-3)


def test_continuations_that_differ_in_the_last_token_are_read_once() -> None:
    model, reads = tiny("llama_gqa"), []
    context = tuple(tokens(1, 7)[0].tolist())
    choices = [(context, (3, last)) for last in (5, 6, 7, 8)]
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: reads.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    found = log_likelihoods(model, choices, 512)
    handle.remove()
    assert reads == [(1, 7), (1, 1)]
    assert [likely for likely, _ in found] == pytest.approx([naive(model, c)[0] for c in choices], abs=2e-3)


def test_a_context_that_is_too_long_loses_its_beginning() -> None:
    model = tiny("llama_gqa")
    row = tokens(1, 30)[0].tolist()
    with pytest.warns(PithWarning, match="1 of 2 contexts are longer than the model's 20 tokens"):
        found = log_likelihoods(model, [(tuple(row[:27]), tuple(row[27:])), (tuple(row[:9]), (4,))], 20)
    # of 20 tokens that can be read, two are the continuation's: its last one is only predicted
    assert found[0][0] == pytest.approx(naive(model, (tuple(row[9:27]), tuple(row[27:])))[0], abs=2e-3)
