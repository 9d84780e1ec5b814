from __future__ import annotations

from random import Random

from pith.report.front import front


def test_a_point_is_on_the_front_where_nothing_is_better_in_everything() -> None:
    assert front([(1, 3), (2, 2), (3, 1), (3, 3), (2, 2.5)]) == [0, 1, 2]
    assert front([(1, 1), (1, 1)]) == [0, 1], "equal points do not beat each other"
    assert front([(1, 1), (1, 2)]) == [0]
    assert front([(float("nan"), 0.0), (1, 1)]) == [1]
    assert front([]) == []


def test_it_is_what_sorting_finds_in_two_dimensions() -> None:
    draw = Random(0)
    points = [(draw.random(), draw.random()) for _ in range(200)]
    lowest, expected = float("inf"), []
    for index in sorted(range(200), key=lambda i: points[i]):
        if points[index][1] < lowest:
            lowest = points[index][1]
            expected.append(index)
    assert front(points) == sorted(expected)
