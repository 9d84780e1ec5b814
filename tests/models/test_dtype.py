"""Which dtype a model is read in: measured where that decides, and said in one line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.largest import largest
from contracts.tiny import tiny
from pith.core import PithWarning
from pith.core.words import bytes_
from pith.models import dtype
from pith.models.dtype import Times, measured, read_fastest

CPU = torch.device("cpu")
SLOW = Times(prompt=0.8, prompt_float32=0.1, token=0.05, token_float32=0.1)
"""A processor without instructions for bfloat16: prompts take eight times as long, tokens half as long."""

SAME = Times(prompt=0.11, prompt_float32=0.1, token=0.05, token_float32=0.1)


def llama(kind: torch.dtype = torch.bfloat16, **more: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**shape, vocab_size=64, **more)).to(kind)


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the products take given times."""

    def take(times: Times, count: float = 1.0) -> None:
        monkeypatch.setattr(dtype, "measured", lambda model: (times, count))
        monkeypatch.setattr(dtype, "processor", lambda: "a processor")
        monkeypatch.setattr(dtype, "free_memory", lambda: None)

    return take


def read(kind: str = "auto", own: Any = llama) -> tuple[torch.dtype, str, list[str]]:
    """The dtype in which a model is read, the reason, and what is said."""
    asked: list[str] = []

    def reader(which: str) -> Any:
        asked.append(which)
        model = own()
        return model if which == "auto" else model.to(getattr(torch, which))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, reason = read_fastest(reader, kind, CPU)
    assert len(asked) <= 2
    return model.dtype, reason, [str(one.message) for one in caught if issubclass(one.category, PithWarning)]


@pytest.mark.parametrize("own", [torch.bfloat16, torch.float16])
def test_float32_is_used_where_it_is_faster(own: torch.dtype, taking: Any) -> None:
    taking(SLOW)
    kind, reason, (line,) = read(own=lambda: llama(own))
    name = str(own).removeprefix("torch.")
    assert kind == torch.float32
    assert line == (
        f"float32 is used: on this processor (a processor) {name} takes 8.0 times as long as float32 for a prompt and "
        f"0.5 times for one token, in products of the model's shapes; dtype='{name}' keeps the checkpoint's own"
    )
    assert reason in line
    assert len(line) < 300


@pytest.mark.parametrize(("times", "count"), [(SAME, 1.0), (SLOW, 1e-3)])
def test_the_checkpoints_own_is_kept_where_the_gain_is_small(times: Times, count: float, taking: Any) -> None:
    taking(times, count)
    kind, reason, said = read()
    assert (kind, said) == (torch.bfloat16, [])
    assert reason.startswith("the checkpoint's own: on this processor (a processor) bfloat16 takes")


def test_what_is_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtype, "measured", lambda model: pytest.fail("measured"))
    assert read("bfloat16") == (torch.bfloat16, "asked for", [])
    assert read(own=lambda: llama(torch.float32)) == (torch.float32, "the checkpoint's own", [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        packed = pith.compress(llama(), "rtn(bits=4, group_size=8)")
    kind, reason, said = read(own=lambda: packed)
    assert (kind, said) == (torch.bfloat16, [])
    assert reason == "the checkpoint's own: its weights are quantized"


def test_float32_that_does_not_fit_is_not_taken(taking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(SLOW)
    monkeypatch.setattr(dtype, "free_memory", lambda: 1000)
    kind, _, (line,) = read()
    assert kind == torch.bfloat16
    assert line.startswith("bfloat16 is kept: ")
    needed = bytes_(4 * sum(parameter.numel() for parameter in llama().parameters()))
    assert line.endswith(f", but float32 needs {needed}, and 0.977 KiB are free")


def test_a_model_that_is_to_be_written_keeps_its_dtype(taking: Any) -> None:
    taking(SLOW)
    kind, reason, (line,) = read("checkpoint")
    assert (kind, reason) == (torch.bfloat16, "the checkpoint's own")
    assert line.startswith("bfloat16 is kept: ")
    assert line.endswith("dtype='float32' is faster and takes twice the bytes")


def test_times_are_of_the_models_own_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(dtype, "_times", lambda *what: asked.append(what) or SLOW)
    model = llama(tie_word_embeddings=True)
    assert measured(model) is None, "it is too small to matter"
    monkeypatch.setattr(dtype, "_SMALL", 0)
    assert measured(model) == (SLOW, pytest.approx((4 * 16 * 16 + 3 * 16 * 24) / (16 * 16)))
    assert asked == [(16, 16, 4, torch.bfloat16, torch.get_num_threads())], "the most weights, without the vocabulary"
    measured(tiny("olmoe").to(torch.float32))
    assert asked[-1][:2] != (97, 64)


def test_products_are_timed_in_little_memory() -> None:
    dtype._times.cache_clear()
    with largest() as made:
        times = dtype._times(4096, 4096, 64, torch.bfloat16, torch.get_num_threads())
    assert min(times.prompt, times.prompt_float32, times.token, times.token_float32) > 0
    assert made.numbers <= 2**20


def test_both_kinds_of_product_count() -> None:
    assert SLOW.ratio == pytest.approx((0.8 + 2 * 0.05) / (0.1 + 2 * 0.1))
    assert SLOW.gain == pytest.approx(0.6)
