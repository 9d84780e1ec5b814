"""Generation that streams, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, TextStreamer
from transformers.utils import logging

from pith.cli.generate import Options
from pith.cli.screen import Screen
from pith.core import InputError, Recipe
from pith.measure import cache_bytes, weight_bytes
from pith.models import Loaded, require_positions
from pith.models.smaller import subject
from pith.report.words import bytes_, seconds
from pith.tasks.greedy import FiniteLogits
from pith.tasks.text import encode


class Stopwatch(TextStreamer):  # type: ignore[misc]
    """Prints the text as it comes, and looks at the clock at each token."""

    def __init__(self, tokenizer: object) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.times = [time.perf_counter()]

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, then each token."""
        if not self.next_tokens_are_prompt:
            self.times.append(time.perf_counter())
        super().put(value)


def stream(loaded: Loaded, recipe: Recipe, options: Options) -> str:
    """Streams what the model writes to stdout; returns the line that tells bytes and tokens per second.

    Raises:
        InputError: the prompt is empty or holds bytes that are not UTF-8, it and what is to be written are longer than
            the model's positions, or calibration texts cannot be read.
        ModelError: a method cannot take the model, or its logits are not finite.
    """
    with Screen("changing weights", None) as screen:
        examined = subject(loaded, recipe, screen.part)
    model, tokenizer = examined.model, examined.tokenizer
    prompt = encode(tokenizer, options.prompt or "", markup=True)
    read = len(prompt)
    if not read:
        raise InputError("the prompt is empty; give the model something to go on with")
    require_room(model, recipe, read, options, "the prompt")
    settings = sampling(options, tokenizer.pad_token_id)
    logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    watch = Stopwatch(tokenizer)
    with examined.applied():
        out = written(model, prompt, settings, watch)
    line = summary(recipe, read, watch.times, cache_bytes(out.past_key_values))
    if not len(recipe.weights):
        return line
    return f"{line}, the weights {bytes_(weight_bytes(model))} ({bytes_(weight_bytes(loaded.model))} dense)"


def require_room(model: Any, recipe: Recipe, read: int, options: Options, what: str) -> None:
    """Raise an error if a text and what is to be written after it are longer than the model's positions.

    Args:
        model: the model.
        recipe: what is applied: a method that places keys inside the cache writes past the model's positions.
        read: the text's tokens.
        options: the command's.
        what: the text, for the message.

    Raises:
        InputError: they are.
    """
    endless = any(getattr(method, "renumbers", False) for method in recipe)
    require_positions(model, read, what)
    require_positions(model, read + (0 if endless else options.max_new_tokens), f"{what} with --max-new-tokens")


def sampling(options: Options, pad: int | None, ends: Sequence[int] = ()) -> GenerationConfig:
    """Return how tokens are chosen.

    Args:
        options: the command's.
        pad: the tokenizer's padding token.
        ends: tokens at which an answer ends; none leaves it to the model.
    """
    how = {"do_sample": True, "temperature": options.temperature} if options.temperature else {"do_sample": False}
    ended = {"eos_token_id": list(ends)} if ends else {}
    return GenerationConfig(
        max_new_tokens=options.max_new_tokens, pad_token_id=pad, return_dict_in_generate=True, **how, **ended
    )


def written(model: Any, tokens: Sequence[int], settings: GenerationConfig, watch: Stopwatch, cache: Any = None) -> Any:
    """Return what `generate` gives after tokens, which are read behind those that the cache has read already."""
    ids = torch.tensor([tokens], device=model.device)
    held = {} if cache is None else {"past_key_values": cache}
    return model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, streamer=watch,
        logits_processor=LogitsProcessorList([FiniteLogits(model)]), **held,
    )  # fmt: skip


def summary(recipe: Recipe, read: int, times: list[float], held: int) -> str:
    """One line: tokens read and written, their speeds, and what the cache holds at the end.

    Args:
        recipe: what was applied.
        read: the prompt's tokens.
        times: when it began, and when each token came; seconds.
        held: the cache's bytes.
    """
    written = len(times) - 1
    decoding = f" at {(written - 1) / (times[-1] - times[1]):.1f} tokens/s" if written > 1 else ""
    prefill = seconds(times[1] - times[0])
    return f"{recipe}: read {read} tokens in {prefill}, wrote {written}{decoding}; the cache holds {bytes_(held)}"
