"""How long the rest of a comparison takes, told from the steps that were done so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pith.core import Recipe
from pith.measure.cost import BYTES, SPEED
from pith.measure.seconds import DECODED
from pith.study.question import Question
from pith.tasks import Task

STEP = 16
"""Tokens of a prompt that take about as long to read as one decoding step; what was timed corrects it."""

TELLING = 1.0
"""Seconds of work that must have been seen before anything is told from them."""


@dataclass(frozen=True)
class Piece:
    """One piece that is to be measured.

    Attributes:
        recipe: the recipe's text.
        what: `SPEED`, `BYTES`, or the task's text, as progress names it.
        tokens: its work, as a number of prompt tokens that take about as long.
    """

    recipe: str
    what: str
    tokens: float


@dataclass
class _Seen:
    """What was seen of a piece: the seconds that it took so far, and the share of it that is done."""

    seconds: float = 0.0
    done: float = 0.0

    @property
    def whole(self) -> float:
        """The seconds that all of it takes."""
        return self.seconds / self.done


@dataclass
class Remaining:
    """Estimate how long the pieces that are left take.

    Of a piece that began, the steps that are left take as long as those that are done. One that did not begin takes as
    long as it did for other recipes, times how much slower this recipe, or else recipes on average, were on other
    pieces; one of which no recipe has been seen takes as long as its tokens did elsewhere.

    Attributes:
        pieces: what is to be measured, in the order in which it is.
        clock: gives the time in seconds.
    """

    pieces: Sequence[Piece]
    clock: Callable[[], float] = time.monotonic
    _seen: dict[tuple[str, str], _Seen] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _last: float | None = None

    def step(self, recipes: Sequence[str], what: str, done: int, total: int) -> None:
        """Count a step of the pieces of recipes that take turns; the time since the last one belongs to all alike."""
        moment = self.clock()
        for recipe in recipes:
            if any((piece.recipe, piece.what) == (recipe, what) for piece in self.pieces) and total:
                seen = self._seen.setdefault((recipe, what), _Seen())
                if self._last is not None and done:
                    seen.seconds += (moment - self._last) / len(recipes)
                seen.done = done / total
        self._last = moment

    def begins(self) -> None:
        """Begin to look at the clock: what comes before the next step belongs to that step."""
        self._last = self.clock()

    def ends(self, recipe: str) -> None:
        """Count all pieces of a recipe as done, or as left out."""
        self._over.add(recipe)

    def drop(self, gone: Callable[[Piece], bool]) -> None:
        """Leave out pieces that others have taken."""
        self.pieces = [piece for piece in self.pieces if not gone(piece)]

    def seconds(self, what: Iterable[str] | None = None) -> float | None:
        """Return the seconds that are left, or None while too little was seen.

        Args:
            what: only those kinds of pieces count; None counts all.
        """
        if sum(seen.seconds for seen in self._seen.values() if seen.done) < TELLING:
            return None
        kinds = set(what) if what is not None else {piece.what for piece in self.pieces}
        left = [self._left(piece) for piece in self.pieces if piece.what in kinds and piece.recipe not in self._over]
        current = self.clock() - self._last if self._last is not None else 0.0
        return sum(left) - min(current, next(filter(None, left), 0.0))

    def _left(self, piece: Piece) -> float:
        seen = self._seen.get((piece.recipe, piece.what))
        return (1 - seen.done if seen else 1.0) * self._whole(piece)

    def _whole(self, piece: Piece) -> float:
        """Return the seconds of all of a piece."""
        seen = self._seen.get((piece.recipe, piece.what))
        if seen and seen.done:
            return seen.whole
        return self._plain(piece) * self._slowness(piece.recipe)

    def _plain(self, piece: Piece) -> float:
        """Return the seconds of a piece under the first recipe of which it was seen, or by its tokens."""
        same = [one for (_, what), one in self._seen.items() if what == piece.what and one.done]
        return same[0].whole if same else piece.tokens * self._per_token()

    def _per_token(self) -> float:
        seen = [(self._seen.get((piece.recipe, piece.what)), piece.tokens) for piece in self.pieces]
        known = [(one.seconds, one.done * tokens) for one, tokens in seen if one and one.done]
        return sum(seconds for seconds, _ in known) / sum(tokens for _, tokens in known)

    def _slowness(self, recipe: str) -> float:
        """Return how many times as long as the first one a recipe takes, as far as was seen; or recipes on average."""
        firsts = {what: one for (_, what), one in reversed(self._seen.items()) if one.done}
        ratios: dict[str, list[float]] = {}
        for (name, what), one in self._seen.items():
            if one.done and one is not firsts[what] and firsts[what].whole > 0:
                ratios.setdefault(name, []).append(one.whole / firsts[what].whole)
        if recipe in ratios:
            return fmean(ratios[recipe])
        return fmean(map(fmean, ratios.values())) if ratios else 1.0


def pieces(question: Question, left: Iterable[tuple[Recipe, Task | None]], batch_size: int) -> tuple[Piece, ...]:
    """Return the pieces that are to be measured, with their work.

    Args:
        question: what is asked.
        left: each recipe with a task, or with None for its costs.
        batch_size: sequences that a task reads at once.
    """
    return tuple(
        Piece(
            str(recipe), str(task) if task else SPEED if _runs(question) else BYTES, _work(question, task, batch_size)
        )
        for recipe, task in left
    )


def _runs(question: Question) -> int:
    return int(question.costs.get("runs", 0))


def _work(question: Question, task: Task | None, batch_size: int) -> float:
    """Return a piece's work: tokens that are read, and decoding steps as so many of them."""
    if task is None:
        return max(2 * _runs(question), 1) * (int(question.costs["length"]) + STEP * DECODED)
    # a task without a number of examples, or with none for all of them, is taken for one of usual size
    count, length = getattr(task, "count", None) or 50, getattr(task, "length", None) or 512
    steps = getattr(task, "scored", 48 if getattr(task, "chat", False) else 8) / (getattr(task, "chunk", None) or 1)
    return count * length + -(-count // batch_size) * steps * STEP
