"""The losses of a text's windows are those of plain Transformers, to 1e-6 nats a token."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from pith.core import Recipe
from pith.models import Subject, builtin
from pith.tasks import Perplexity
from pith.tasks.bits_per_byte import BitsPerByte
from pith.tasks.stream import Stream
from pith.tasks.windows import loss
from pretrained import smollm2

loaded = cache(builtin)


@torch.no_grad()
def plain_losses(model: Any, windows: torch.Tensor, length: int) -> list[float]:
    """Each window's mean loss behind its context, as `model(input_ids, labels=...)` gives it."""
    labels = windows.clone()
    labels[:, :length] = -100
    return [
        float(model(input_ids=ids[None], labels=wanted[None]).loss) for ids, wanted in zip(windows, labels, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_over_a_real_vocabulary_is_that_of_transformers(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(2, 5, 49152, generator=generator)).to(dtype)
    targets = torch.randint(0, 49152, (2, 5), generator=generator)
    exact = -logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    model, _ = loaded()
    found = loss(logits, targets)
    for row in range(2):
        # its loss shifts the labels by one, so that the first one is never asked for
        whole = torch.cat((torch.zeros(1, dtype=torch.long), targets[row]))[None]
        moved = torch.cat((logits[row], logits[row, -1:]))[None]
        expected = model.loss_function(logits=moved, labels=whole, vocab_size=49152)
        assert float(found[row].mean()) == pytest.approx(float(expected), abs=1e-6)
    assert torch.allclose(found.double(), exact, atol=3e-5, rtol=0)


@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_windows_have_the_loss_of_transformers(chunk: int) -> None:
    model, tokenizer = loaded()
    task = Perplexity(length=24, scored=12, count=3, chunk=chunk)
    expected = plain_losses(model, task.windows(tokenizer), task.length)
    assert task.run(Subject(model, tokenizer)).scores == pytest.approx(expected, abs=1e-6)


def test_a_plain_model_reads_many_scored_tokens_at_once_and_loses_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    task, read = Perplexity(length=24, scored=70, count=3), []
    real = Stream.read_each
    monkeypatch.setattr(Stream, "read_each", lambda self, new: read.append(new.shape[1]) or real(self, new))
    alone = task.run(Subject(*loaded(), Recipe.parse("random_eviction(budget=1.0)")))
    assert read == [1] * 69
    read.clear()
    assert task.run(Subject(*loaded())).scores == pytest.approx(alone.scores, abs=1e-6)
    assert read == [32, 32, 5]


def test_bits_per_byte_are_made_of_the_same_losses() -> None:
    model, tokenizer = loaded()
    task = BitsPerByte(length=24, scored=12, count=3)
    nats = sum(plain_losses(model, task.windows(tokenizer), task.length)) * task.scored
    held = int(task.bytes(tokenizer).sum())
    expected = nats / torch.tensor(2.0).log().item() / held
    assert task.run(Subject(model, tokenizer)).value == pytest.approx(expected, abs=1e-6)


def test_a_pretrained_model_has_the_loss_of_transformers() -> None:
    found = smollm2()
    task = Perplexity(length=32, scored=8, count=2)
    expected = plain_losses(found.model, task.windows(found.tokenizer), task.length)
    scores = task.run(Subject(found.model, found.tokenizer)).scores
    # each token is read through the cache, so that its logits differ in their last digits
    assert scores == pytest.approx(expected, abs=3e-6)
