"""A chat in the terminal: turns that are read one after another, and answers that stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from pith.cli.command import say
from pith.cli.generate import Options
from pith.cli.screen import Screen
from pith.cli.stream import Stopwatch, require_room, sampling, summary, written
from pith.core import InputError, Recipe, read_text, shown
from pith.measure import cache_bytes
from pith.models import Loaded, Subject
from pith.models.smaller import subject
from pith.tasks.chat import encode_chat, ends_of_turn

Message = dict[str, str]
"""A turn: `role` is system, user or assistant, `content` is its text."""

ROLES = ("system", "user", "assistant")


def talk(loaded: Loaded, recipe: Recipe, options: Options) -> None:
    """Answer every turn of the user on stdout, and tell on stderr what each answer cost.

    A turn that is typed and cannot be answered is refused in one line, and the next one is read.

    Raises:
        InputError: the tokenizer has no chat template, the file of turns cannot be read, or one of its turns, or the
            prompt, cannot be answered.
        ModelError: a method cannot take the model, or its logits are not finite.
    """
    if not getattr(loaded.tokenizer, "chat_template", None):
        raise InputError(
            f"--chat needs a chat template, and the tokenizer of {shown(loaded.name, 80)} has none; leave --chat out, "
            "or name a model that was trained for chats"
        )
    given = _given(options)
    if given and given[0]["role"] == "system" and options.system is not None:
        raise InputError("--system is not allowed where --turns begins with a system turn; leave one of them out")
    with Screen("changing weights", None) as screen:
        chat = Chat(subject(loaded, recipe, screen.part), recipe, options)
    logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    with chat.examined.applied():
        if given is None:
            for text in _typed():
                try:
                    say(chat.ask(text))
                except InputError as error:
                    say(f"pith: {error}")
            return
        for message, next_one in zip(given, [*given[1:], None], strict=True):
            if message["role"] != "user" or (next_one and next_one["role"] == "assistant"):
                chat.messages.append(message)
                continue
            if options.turns is not None:
                say(f"> {message['content']}")
            say(chat.ask(message["content"]))


class Chat:
    """A chat under a recipe, whose cache stays from turn to turn.

    The cache is kept where the chat, written anew with the next turn in it, begins with exactly the tokens that the
    cache has read. Where a template writes earlier turns in another way, such as without their reasoning, or an answer
    is encoded to other tokens than the model wrote, the whole chat is read again.

    Args:
        examined: the model with the recipe's weights; `ask` is called while its recipe is applied.
        recipe: the recipe.
        options: the command's.

    Attributes:
        examined: as given.
        messages: all turns so far.
    """

    def __init__(self, examined: Subject, recipe: Recipe, options: Options) -> None:
        self.examined = examined
        self.messages: list[Message] = []
        if options.system is not None:
            self.messages.append({"role": "system", "content": options.system})
        self._recipe, self._options = recipe, options
        tokenizer, settings = examined.tokenizer, getattr(examined.model, "generation_config", None)
        own = getattr(settings, "eos_token_id", None)
        known = [own] if isinstance(own, int) else list(own or ())
        ends = {*known, tokenizer.eos_token_id, *ends_of_turn(tokenizer)} - {None}
        self._settings = sampling(options, tokenizer.pad_token_id, sorted(ends))
        self._ends = ends
        self._read: list[int] = []
        self._cache: Any = None

    def ask(self, text: str) -> str:
        """Stream the answer to the user's next turn to stdout; return the line that tells its costs.

        Raises:
            InputError: the turn spells a special token, the template cannot write it, or the chat is longer than the
                model's positions; the chat is then as before.
        """
        model, tokenizer = self.examined.model, self.examined.tokenizer
        messages = [*self.messages, {"role": "user", "content": text}]
        tokens = encode_chat(tokenizer, messages)
        require_room(model, self._recipe, len(tokens), self._options, "the chat")
        kept = len(self._read)
        if self._cache is None or len(tokens) <= kept or tokens[:kept] != self._read:
            kept, self._cache = 0, None
        watch = Stopwatch(tokenizer)
        out = written(model, tokens, self._settings, watch, self._cache)
        sequence: list[int] = out.sequences[0].tolist()
        answer = sequence[len(tokens) :]
        reply: str = tokenizer.decode(answer, skip_special_tokens=True)
        self.messages = [*messages, {"role": "assistant", "content": reply}]
        self._cache, self._read = out.past_key_values, sequence[:-1]  # the last token was chosen, and not read
        line = summary(self._recipe, len(tokens) - kept, watch.times, cache_bytes(self._cache))
        return line if answer[-1] in self._ends else f"{line}; cut off at --max-new-tokens {len(answer)}"


def _given(options: Options) -> list[Message] | None:
    """Return the turns of the command line or of the file that it names; None where they are to be typed."""
    if options.turns is not None:
        return read_turns(options.turns)
    return None if options.prompt is None else [{"role": "user", "content": options.prompt}]


def read_turns(path: Path) -> list[Message]:
    """Return the turns of a file: of a `.jsonl` file one JSON object a line, of any other one turn of the user a line.

    Raises:
        InputError: the file cannot be read, has a line that is no turn, or no turn of the user.
    """
    lines = read_text(path, label="--turns ").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix != ".jsonl":
        found = [{"role": "user", "content": line} for _, line in numbered]
    else:
        found = [_message(path, number, line, first=not index) for index, (number, line) in enumerate(numbered)]
    if not any(message["role"] == "user" for message in found):
        raise InputError(f"--turns {shown(str(path))} has no turn of the user; write at least one line")
    return found


def _message(path: Path, number: int, line: str, first: bool) -> Message:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    role, content = (row.get("role"), row.get("content")) if isinstance(row, dict) else (None, None)
    if role not in ROLES or not isinstance(content, str) or (role == "system" and not first):
        raise InputError(
            f"--turns: line {number} of {shown(str(path))} is not a turn; allowed is an object with `role` (user, "
            "assistant, or system in the first line) and the text `content`"
        )
    return {"role": role, "content": content}


def _typed() -> Iterator[str]:
    """Give the lines of stdin that are not empty, until it ends."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")
