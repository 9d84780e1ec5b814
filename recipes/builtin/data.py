"""Training sequences as token ids: short dense tasks, and text with facts hidden in it and asked again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from pith.tasks import generate
from pith.tasks.words import KEY_WORDS

POOLS = (("prose", 0.5), ("source", 0.3), ("tests", 0.2))
SILENT, TEXT = -2, -1


@dataclass
class Row:
    """Token ids with a role for each: ``SILENT`` (no loss), ``TEXT`` or the number of its answer."""

    ids: list[int] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)
    answers: int = 0

    def add(self, ids: Sequence[int], role: int) -> None:
        """Append ids that share one role."""
        self.ids.extend(ids)
        self.roles.extend([role] * len(ids))

    def answer(self, ids: Sequence[int]) -> None:
        """Append the ids of one answer."""
        self.add(ids, self.answers)
        self.answers += 1


class Sequences:
    """Draws training sequences of given length; all chance comes from the generator handed over."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pools: dict[str, np.ndarray]) -> None:
        self.pools = pools
        self.bos = tokenizer.bos_token_id
        words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.opens_word = np.array([word[0] in "ĠĊ" for word in words])
        self.encode = lru_cache(200_000)(lambda text: tokenizer(text, add_special_tokens=False).input_ids)

    def dense(self, rng: Random, length: int) -> Row:
        """Fill ``length`` tokens with tasks that have no filler: look-ups, chains or copies."""
        row = Row()
        row.add([self.bos], SILENT)
        kind = rng.random()
        while len(row.ids) < length:
            room = length - len(row.ids)
            if kind < 0.35:
                self._lookups(rng, row, rng.randint(3, max(4, min(room // 16, 60))), in_words=False)
            elif kind < 0.6:
                self._lookups(rng, row, rng.randint(3, max(6, min(room // 10, 100))), in_words=True)
            elif kind < 0.75:
                hops = rng.randint(2, 4)
                chains = rng.randint(1, max(2, min((room - 40) // (10 * hops), 12)))
                self._example(row, generate.variable_tracking(rng, chains, hops))
            else:
                self._example(row, generate.copying(rng, rng.randint(6, max(8, min(room // 2 - 8, 64)))))
        return row

    def _example(self, row: Row, example: generate.Example) -> None:
        row.add(self.encode(example.context + example.question), SILENT)
        row.answer(self.encode(example.answer + "."))

    def _ask(self, row: Row, key: str, value: str) -> None:
        row.add(self.encode(generate.recall(key)), SILENT)
        row.answer(self.encode(f" {value}."))

    def _fact(self, row: Row, key: str, value: str) -> None:
        row.add(self.encode(f" {key} is"), SILENT)
        row.add(self.encode(f" {value}."), SILENT)

    def _lookups(self, rng: Random, row: Row, pairs: int, in_words: bool) -> None:
        """Facts and as many questions; keys are asked with repetition, so that no answer follows by elimination."""
        keys = rng.sample(KEY_WORDS, pairs)
        values = {key: rng.choice(KEY_WORDS) if in_words else generate.value(rng) for key in keys}
        for key in keys:
            self._fact(row, key, values[key])
        for key in rng.choices(keys, k=pairs):
            self._ask(row, key, values[key])

    def _text(self, rng: Random, length: int) -> np.ndarray:
        (name,) = rng.choices([name for name, _ in POOLS], [share for _, share in POOLS])
        pool = self.pools[name]
        start = rng.randrange(len(pool) - length)
        return pool[start : start + length]

    def hidden(self, rng: Random, length: int) -> Row:
        """Text with facts strewn in; blocks of questions follow on the way and at the end."""
        keys = rng.sample(KEY_WORDS, rng.randint(3, max(4, min(length // 48, 24))))
        asked = max(3, min(length // 48, 20))
        values = {key: generate.value(rng) for key in keys}
        text = self._text(rng, length - 8 * len(keys) - 12 * asked - 1)
        borders = np.flatnonzero(self.opens_word[text])

        def somewhere() -> int:
            return int(rng.choice(borders)) if len(borders) else 0

        events = [(somewhere(), key) for key in keys]
        on_the_way = rng.choice([0, asked // 2])
        events += [(somewhere(), "") for _ in range(on_the_way)]
        row = Row()
        row.add([self.bos], SILENT)
        known: list[str] = []
        done = 0
        for place, key in sorted(events):
            row.add(text[done:place].tolist(), TEXT)
            done = place
            if key:
                self._fact(row, key, values[key])
                known.append(key)
            elif known:
                name = rng.choice(known)
                self._ask(row, name, values[name])
        row.add(text[done:].tolist(), TEXT)
        for name in rng.choices(keys, k=asked - on_the_way):
            self._ask(row, name, values[name])
        return row

    def batch(self, rng: Random, kind: str, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``rows`` sequences of ``kind`` ("dense" or "hidden").

        Returns:
            Ids (rows, length) and roles of the same shape; answers are numbered through the batch.
        """
        ids = torch.zeros(rows, length, dtype=torch.long)
        roles = torch.full((rows, length), SILENT, dtype=torch.long)
        answers = 0
        for index in range(rows):
            row = (self.dense if kind == "dense" else self.hidden)(rng, length)
            # An answer cut by the end stays: its first tokens are as good a lesson.
            size = min(length, len(row.ids))
            ids[index, :size] = torch.tensor(row.ids[:size])
            role = torch.tensor(row.roles[:size])
            roles[index, :size] = torch.where(role >= 0, role + answers, role)
            answers += row.answers
        return ids, roles


def stretched(rng: Random, rows: int, length: int, most: int = 4096) -> torch.Tensor:
    """Positions (rows, length) for a batch: in half of the rows with gaps, in the others without.

    Short sequences then show distances up to ``most``, so that look-ups learn to ignore distance at
    little cost; between the gaps neighbours stay neighbours.
    """
    positions = torch.arange(length).repeat(rows, 1)
    for row in positions:
        if length == most or rng.random() < 0.5:
            continue
        gaps = rng.randint(1, max(1, length // 32))
        total = int((most - length) * rng.random() ** 2)
        shares = [rng.random() for _ in range(gaps)]
        for share in shares:
            row[rng.randrange(1, length) :] += int(total * share / sum(shares))
    return positions
