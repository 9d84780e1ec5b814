"""Answering prompts by greedy decoding, many at once; the question may come only after the cache was made smaller."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from pith.core import InputError, ModelError
from pith.tasks.base import Progress, Query
from pith.tasks.chat import render_chat, require_plain
from pith.tasks.stream import last_only, not_finite
from pith.tasks.text import encode


@dataclass(frozen=True)
class Prompt:
    """What a model reads before it answers.

    Attributes:
        context, question: its tokens; one after the other they are the tokens of the whole text.
        most: the most tokens that its answer may have.
        stop: texts before which its answer ends, where it comes to one.
    """

    context: tuple[int, ...]
    question: tuple[int, ...]
    most: int
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, context: str, question: str, most: int, chat: bool = False, start: str = "") -> Prompt:
        """The prompt of two texts.

        Args:
            tokenizer: the model's.
            context, question: what is read; the tokens are those of both texts as one, and a token that reaches over
                the border between them is the question's.
            most: the most tokens that the answer may have.
            chat: whether both stand as the user's words in the tokenizer's chat template.
            start: the beginning of the answer, which the model reads too; in a chat its own message begins with it.

        Raises:
            InputError: a text cannot be encoded, or the tokenizer has no chat template that can write these texts.
        """
        head, whole = (_in_template if chat else _plain)(tokenizer, context, question, start)
        common = takewhile(lambda pair: pair[0] == pair[1], zip(head, whole, strict=False))
        border = sum(1 for _ in common)
        return cls(tuple(whole[:border]), tuple(whole[border:]), most)


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    query: Query = "aware",
    batch_size: int = 8,
    progress: Progress | None = None,
    heard: Callable[[Mapping[int, str]], None] | None = None,
) -> list[str]:
    """What the model answers to each prompt, as text.

    It does not depend on the batch size under any method to which a padded row is as good as one alone, which is all
    but `kivi`, whose groups begin at slots.

    Args:
        model: a Transformers causal language model, with a recipe applied or not.
        tokenizer: its tokenizer.
        prompts: what is read.
        query: "aware" reads context and question as one prompt. "agnostic" reads the context as a prompt of its own, so
            that a recipe makes the cache smaller before the question is known, then the question through that cache.
        batch_size: prompts that are read at once. Questions of one length are read together, because padding between
            context and question would be seen.
        progress: told how it goes on.
        heard: given the answers of each batch, by the indices of their prompts.

    Raises:
        InputError: a prompt has no tokens, or an "agnostic" one has no context or no question.
        ModelError: the model keeps no cache of what it has read, which "agnostic" needs, or its logits are not finite.
    """
    texts: dict[int, str] = {}
    for answers in greedy_batches(lambda: nullcontext(model), tokenizer, prompts, query, batch_size):
        texts |= answers
        if heard:
            heard(answers)
        if progress:
            progress(len(texts), len(prompts))
    return [texts[index] for index in range(len(prompts))]


def greedy_batches(
    applied: Callable[[], AbstractContextManager[Any]],
    tokenizer: Any,
    prompts: Sequence[Prompt],
    query: Query = "aware",
    batch_size: int = 8,
) -> Iterator[dict[int, str]]:
    """Yield what the model answers, batch by batch, by the indices of the prompts.

    Args:
        applied: gives the model, with a recipe applied or not, for the time of one batch.
        tokenizer, prompts, query, batch_size: as for `greedy`.

    Raises:
        InputError, ModelError: as `greedy`.
    """
    _require_tokens(tokenizer, prompts, query)
    for batch in _batches(prompts, query, batch_size):
        rows = [prompts[index] for index in batch]
        texts: dict[int, str] = {}
        with applied() as model:
            answers = _answered(model, tokenizer, rows, query)
        for index, answer in zip(batch, answers, strict=True):
            text = _decode(tokenizer, answer[: prompts[index].most])
            for stop in prompts[index].stop:
                text = text.partition(stop)[0]
            texts[index] = text
        yield texts


def _batches(prompts: Sequence[Prompt], query: Query, batch_size: int) -> Iterator[list[int]]:
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt.question) if query == "agnostic" else 0, []).append(index)
    for group in groups.values():
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


@torch.no_grad()
def _answered(model: Any, tokenizer: Any, prompts: Sequence[Prompt], query: Query) -> list[list[int]]:
    pad = next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)
    ids, mask = _padded([p.context + p.question for p in prompts], pad, model.device)
    # what a checkpoint's own settings would change is said here: sampling, beams, penalties
    settings = GenerationConfig(
        max_new_tokens=max(p.most for p in prompts),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        use_cache=True,
    )
    held: dict[str, Any] = {"logits_processor": LogitsProcessorList([FiniteLogits(model)])}
    if query == "agnostic":
        known = ids.shape[1] - len(prompts[0].question)
        held["past_key_values"] = _read(model, ids[:, :known], mask[:, :known])
    if all(p.stop for p in prompts):
        held["stopping_criteria"] = StoppingCriteriaList([_Stopped(tokenizer, prompts, ids.shape[1])])
    out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **held)
    answers: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return answers


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Stop a generation whose logits are not finite, since their largest one is not the likeliest token.

    Args:
        model: the model that generates, for the message.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits as they are; minus infinity is allowed for a token that cannot come.

        Raises:
            ModelError: a row has a NaN or an infinite logit, or no token that can come.
        """
        if not bool(scores.amax(dim=-1).isfinite().all()):  # NaN is larger than any number
            raise not_finite(self._model)
        return scores


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends the answers that have come to where they stop.

    Args:
        tokenizer: the model's.
        prompts: the batch's.
        begin: the place at which the answers begin.
    """

    def __init__(self, tokenizer: Any, prompts: Sequence[Prompt], begin: int) -> None:
        self._tokenizer, self._prompts, self._begin = tokenizer, prompts, begin

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Of each row, whether it is done."""
        texts = [_decode(self._tokenizer, row) for row in input_ids[:, self._begin :].tolist()]
        done = [any(stop in text for stop in p.stop) for p, text in zip(self._prompts, texts, strict=True)]
        return torch.tensor(done, device=input_ids.device)


def _require_tokens(tokenizer: Any, prompts: Sequence[Prompt], query: Query) -> None:
    """Raise an error if a prompt has nothing to read."""
    name = type(tokenizer).__name__
    if any(not p.context and not p.question for p in prompts):
        raise InputError(f"a prompt is empty: it has no text, and {name} adds no token before it; give it some text")
    if query == "agnostic" and not all(p.context and p.question for p in prompts):
        raise InputError(
            f"query='agnostic' needs a context and a question of one token or more, and {name} makes one token of both "
            "or none of one; allowed is query='aware'"
        )


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """Return an answer as text; ids that only the model knows, whose rows may be padded, are left out."""
    try:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
    except (ValueError, TypeError, LookupError):  # tokenizers in Python look them up
        text = tokenizer.decode([one for one in ids if one < len(tokenizer)], skip_special_tokens=True)
    return text


def _read(model: Any, ids: Int[Tensor, "batch tokens"], mask: Int[Tensor, "batch tokens"]) -> Any:
    """The cache of a model that has read some text."""
    extra: dict[str, Any] = dict(last_only(model))
    if "position_ids" in inspect.signature(model.forward).parameters:
        extra["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)  # as `generate` counts them
    cache = getattr(model(input_ids=ids, attention_mask=mask, use_cache=True, **extra), "past_key_values", None)
    if cache is None:
        raise ModelError(f"{type(model).__name__} gives no key-value cache back, so a question cannot come afterwards")
    return cache


def _padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as one tensor, padded on the left, and which of its places are no padding."""
    tokens = [torch.tensor(row) for row in rows]
    ids = pad_sequence(tokens, batch_first=True, padding_value=pad, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True, padding_side="left")
    return ids.to(device), mask.to(device)


def _plain(tokenizer: Any, context: str, question: str, start: str) -> tuple[list[int], list[int]]:
    return encode(tokenizer, context), encode(tokenizer, context + question + start)


def _in_template(tokenizer: Any, context: str, question: str, start: str) -> tuple[list[int], list[int]]:
    text = render_chat(tokenizer, [{"role": "user", "content": context + question}])
    name, asked = type(tokenizer).__name__, question.strip() if not context else question.rstrip()
    if text.count(asked) != (context + question).count(asked):
        raise InputError(f"the chat template of {name} does not write a message once as it is; allowed is chat=False")
    require_plain(tokenizer, context + question + start)
    head, text = text[: text.rindex(asked)], text + start
    # the template has written special tokens, also those that begin a sequence
    return encode(tokenizer, head, begin=False, markup=True), encode(tokenizer, text, begin=False, markup=True)
