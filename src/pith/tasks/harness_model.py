"""A model as lm-evaluation-harness asks it, with given answers read through the cache."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any

from pith.core import InputError, PithWarning
from pith.tasks.base import Progress
from pith.tasks.chat import render_chat
from pith.tasks.continuation import log_likelihoods
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.harness import harness
from pith.tasks.text import encode

POSITIONS = 2048
"""Tokens that a model is taken to read where it does not say, as in the harness."""

GENERATED = 256
"""The most tokens of an answer where a task does not say, as in the harness."""

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The words that tasks have for the most tokens of an answer."""


def harness_model(model: Any, tokenizer: Any, batch_size: int, chunk: int, progress: Progress | None) -> Any:
    """A model as the harness asks it: one of its `TemplateLM`, which cuts texts into context and answer.

    Args:
        model: a Transformers causal language model, with a recipe applied or not.
        tokenizer: its tokenizer.
        batch_size: the most sequences that are read at once.
        chunk: tokens of a given answer that are read at once.
        progress: told how many of the requests are done.

    Raises:
        InputError: the harness is not installed.
    """
    # made here and not at import, because the harness need not be installed
    kind: Any = type("HarnessModel", (_Answering, harness("api.model").TemplateLM), {})
    return kind(model, tokenizer, batch_size, chunk, progress)


class _Answering:
    """How a request is answered; see `harness_model`."""

    backend = "causal"

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, chunk: int, progress: Progress | None) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self._batch_size, self._chunk, self._progress = batch_size, chunk, progress
        self._screen = sys.stderr
        config = model.config.get_text_config(decoder=True)
        self.max_length: int = getattr(config, "max_position_embeddings", None) or POSITIONS

    @property
    def eot_token_id(self) -> Any:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> Any:
        """What stands before an answer without a context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """A text's tokens; the one that begins a sequence comes once, also where the text states it."""
        if add_special_tokens is None and string.startswith(self.tokenizer.bos_token or "\0"):
            add_special_tokens = False
        # special tokens may be spelled in it: the harness passes on what a chat template has written
        return encode(self.tokenizer, string, begin=add_special_tokens is not False, markup=True)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a chat as one text; without a prompt for the next turn, the last one is left open.

        As in the harness, a template that refuses a system message gets the chat without it, with a warning.
        """
        try:
            return render_chat(self.tokenizer, chat_history, answer=add_generation_prompt)
        except InputError:
            rest = [message for message in chat_history if message["role"] != "system"]
            if len(rest) == len(chat_history):
                raise
            text = render_chat(self.tokenizer, rest, answer=add_generation_prompt)
        _warn("the chat template takes no system message; tasks are asked without their descriptions")
        return text

    @property
    def tokenizer_name(self) -> str:
        """Under which the harness would keep what it is told to."""
        return str(self.tokenizer.name_or_path)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        pairs = [(tuple(context), tuple(answer)) for _, context, answer in requests]
        return log_likelihoods(self.model, pairs, self.max_length, self._batch_size, self._chunk, self._told)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """The log-likelihood of whole texts, cut into windows as the harness cuts them."""
        utils = harness("utils")
        windows = [
            (index, *utils.make_disjoint_window(window))
            for index, request in enumerate(requests)
            for window in utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]
        totals = [0.0] * len(requests)
        for (index, *_), (likely, _) in zip(windows, self._loglikelihood_tokens(windows), strict=True):
            totals[index] += likely
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Greedy answers, each up to where its task ends it."""
        prompts, cut, sampled = [], 0, 0
        for request in requests:
            text, settings = request.args[:2]
            most = next((int(settings[word]) for word in _LIMITS if settings.get(word) is not None), GENERATED)
            tokens, room = self.tok_encode(text), max(self.max_length - most, 1)
            until = settings.get("until") or []
            stop = (until,) if isinstance(until, str) else tuple(filter(None, until))
            prompts.append(Prompt((), tuple(tokens[-room:]), most, stop))
            cut += len(tokens) > room
            sampled += bool(settings.get("do_sample") or float(settings.get("temperature") or 0))
        if cut:
            _warn(f"{cut} of {len(prompts)} prompts leave no room for an answer and lose their beginnings")
        if sampled:
            _warn(f"{sampled} of {len(prompts)} answers are to be sampled; they are decoded greedily, to be comparable")
        return greedy(
            self.model, self.tokenizer, prompts, batch_size=self._batch_size, progress=self._told
        )  # fmt: skip

    def _told(self, done: int, total: int) -> None:
        if self._progress:
            with redirect_stderr(self._screen):  # which is kept quiet while the harness asks
                self._progress(done, total)


def _warn(text: str) -> None:
    warnings.warn(text, PithWarning, stacklevel=3)
