"""The Pareto front: what nothing else beats in everything at once."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the points on the front, in their order; smaller is better in each coordinate.

    A point is on it where no other is at least as good in every coordinate and better in one. Coordinates that are no
    numbers are never on it.
    """
    real = [i for i, point in enumerate(points) if all(x == x for x in point)]
    return [i for i in real if not any(_beats(points[j], points[i]) for j in real)]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
