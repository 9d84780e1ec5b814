"""Write messages in a tokenizer's chat template; equal messages give equal text on every day."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pith.core import InputError
from pith.tasks.text import encode, special_in

DATE = {
    "%Y": "2024", "%m": "07", "%d": "26", "%B": "July", "%b": "Jul", "%h": "Jul", "%A": "Friday", "%a": "Fri",
    "%y": "24", "%-m": "7", "%-d": "26", "%e": "26", "%j": "208", "%H": "12", "%I": "12", "%p": "PM", "%M": "00",
    "%S": "00", "%f": "000000", "%w": "5", "%u": "5", "%C": "20", "%U": "29", "%W": "30", "%V": "30", "%G": "2024",
    "%F": "2024-07-26", "%D": "07/26/24", "%T": "12:00:00", "%R": "12:00", "%x": "07/26/24", "%X": "12:00:00",
    "%c": "Fri Jul 26 12:00:00 2024", "%-H": "12", "%-I": "12", "%-M": "0", "%-S": "0", "%-j": "208", "%z": "",
    "%Z": "",
}  # fmt: skip
"""What `strftime_now` gives in a template: noon of 26 July 2024, the date that Llama's templates have as default."""

_PROBE = "pithprobe"
"""A message without markup, whose surroundings in a template show what the template writes."""

_CLOCK = "strftime_now"
_PERCENT = "\ue000"  # stands for "%%" while the others are replaced


def require_template(tokenizer: Any) -> None:
    """Raise an error if a tokenizer has no chat template.

    Raises:
        InputError: it has none.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"chat=True is not allowed: the tokenizer {type(tokenizer).__name__} has no chat template; allowed is False"
        )


def render_chat(tokenizer: Any, messages: list[dict[str, str]], *, answer: bool = True) -> str:
    """Return messages as the tokenizer's chat template writes them.

    A template that writes the current date (`strftime_now`) gets a fixed one, `DATE`, and one that draws random numbers
    gets the same ones each time, so that a comparison that is continued on another day reads the same prompts.

    Args:
        tokenizer: a Transformers tokenizer.
        messages: each with `role` and `content`.
        answer: whether the text ends where the model's next message begins; if not, the last message is left open.

    Raises:
        InputError: the tokenizer has no chat template, or the template cannot write these messages.
    """
    require_template(tokenizer)
    try:
        template = tokenizer.get_chat_template()
        with _fixed_random():
            text: str = tokenizer.apply_chat_template(
                messages,
                chat_template=_fixed_clock(template),
                tokenize=False,
                add_generation_prompt=answer,
                continue_final_message=not answer,
            )
    except Exception as error:  # a template is a foreign program and may fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the chat template of {type(tokenizer).__name__} cannot write this chat: {lines[0][:160]}; allowed is "
            "chat=False, or a tokenizer with another template"
        ) from None
    return text


def encode_chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Return the tokens of messages in the chat template, up to where the model's next message begins.

    Args:
        tokenizer: a Transformers tokenizer.
        messages: each with `role` and `content`.

    Raises:
        InputError: as of `render_chat`, or a message spells a special token.
    """
    for message in messages:
        require_plain(tokenizer, message["content"])
    # the template writes the special tokens, also those that begin a sequence
    return encode(tokenizer, render_chat(tokenizer, messages), begin=False, markup=True)


def require_plain(tokenizer: Any, text: str) -> None:
    """Raise an error if a text spells a special token, which would end its turn inside a template.

    Raises:
        InputError: it does.
    """
    if spelled := special_in(tokenizer, text):
        raise InputError(
            f"chat=True is not allowed for a text that holds {spelled[0]!r}, which {type(tokenizer).__name__} reads as "
            "a special token; remove it from the text, or choose chat=False"
        )


def ends_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """Return the special tokens with which the chat template ends an assistant's message; empty where it has none."""
    try:
        messages = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        text = render_chat(tokenizer, [*messages, messages[0]], answer=True)
    except InputError:
        return ()
    _, _, *after = text.split(_PROBE)
    tokens = encode(tokenizer, after[0].lstrip(), begin=False, markup=True) if after else []
    return tuple(tokens[:1]) if tokens and tokens[0] in _special_ids(tokenizer) else ()


def _special_ids(tokenizer: Any) -> set[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return {index for index, one in added if one.special} | set(tokenizer.all_special_ids)


def _fixed_clock(template: str) -> str:
    """Return the template with a `strftime_now` of its own, which reads no clock."""
    if _CLOCK not in template:
        return template
    written = "".join(f'|replace("{code}","{text}")' for code, text in DATE.items())
    # the newline goes, as any directly behind a block, and the template begins at a line's beginning as before
    return (
        f'{{% macro {_CLOCK}(format) %}}{{{{ format|replace("%%","{_PERCENT}"){written}|replace("{_PERCENT}","%") }}}}'
        f"{{% endmacro %}}\n{template}"
    )


@contextmanager
def _fixed_random() -> Iterator[None]:
    """Begin Python's random numbers anew, and continue with the old ones afterwards."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
