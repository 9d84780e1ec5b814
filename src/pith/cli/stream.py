"""Generation that streams, and what it cost."""

from __future__ import annotations

import time

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
    prompt = encode(tokenizer, options.prompt, markup=True)
    read = len(prompt)
    if not read:
        raise InputError("the prompt is empty; give the model something to go on with")
    # a method that places keys inside the cache writes past the model's positions; the others cannot
    endless = any(getattr(method, "renumbers", False) for method in recipe)
    require_positions(model, read, "the prompt")
    require_positions(model, read + (0 if endless else options.max_new_tokens), "the prompt with --max-new-tokens")
    sampling = {"do_sample": True, "temperature": options.temperature} if options.temperature else {"do_sample": False}
    settings = GenerationConfig(
        max_new_tokens=options.max_new_tokens, pad_token_id=tokenizer.pad_token_id, return_dict_in_generate=True,
        **sampling,
    )  # fmt: skip
    logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    watch, ids = Stopwatch(tokenizer), torch.tensor([prompt], device=model.device)
    with examined.applied():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, streamer=watch,
            logits_processor=LogitsProcessorList([FiniteLogits(model)]),
        )  # fmt: skip
    line = summary(recipe, read, watch.times, cache_bytes(out.past_key_values))
    if not len(recipe.weights):
        return line
    return f"{line}, the weights {bytes_(weight_bytes(model))} ({bytes_(weight_bytes(loaded.model))} dense)"


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
