"""A measurement's pieces go through JSON unchanged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pith.measure import Answer, Bandwidth, CacheBytes, Costs, Measurement, Memory, Speed, from_json, to_json
from pith.tasks import Quality

WHERE = {"torch": "2.13.0", "commit": None, "threads": 2}
COSTS = Costs(
    bytes=CacheBytes(10, 100, 12, 110, 7, 0.1),
    speed=Speed(0.1, 0.2, 0.5, 1e-9, 2e-3, 1 / 7, 0.01, 5),
    memory=Memory(1000, None, 3),
    bandwidth=Bandwidth(10, 0.1, 1e10),
    notes=("a note", "another"),
    environment=WHERE,
)
ANSWER = Answer(Quality(0.1 + 0.2, 0.0, 1.0, 2, (1.0, 1 / 3), (0.0, 0.7), ((0, 1.5), (64, 2.5))), ("a note",), WHERE)


def test_the_round_trip_is_exact() -> None:
    assert from_json(Costs, to_json(COSTS)) == COSTS
    assert from_json(Answer, to_json(ANSWER)) == ANSWER


def test_a_measurement_is_its_pieces() -> None:
    whole = Measurement("builtin", "snapkv(budget=0.1)", COSTS, {"needle()": ANSWER})
    assert whole.bytes.measured == 0.1
    assert whole.quality == {"needle()": ANSWER.quality}
    assert whole.notes == ("a note", "another")
    assert json.loads(to_json(whole))["costs"]["speed"]["runs"] == 5


def test_numbers_that_json_cannot_say() -> None:
    broken = Quality(math.inf, -math.inf, math.nan, 2, (math.nan, math.inf))
    text = to_json(dataclasses.replace(ANSWER, quality=broken))
    json.loads(text, parse_constant=pytest.fail)
    assert repr(from_json(Answer, text).quality) == repr(broken)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"bytes": 1}', to_json(ANSWER), to_json(COSTS)[:-9]])
def test_what_is_no_piece(text: str) -> None:
    with pytest.raises(ValueError, match="this is no costs"):
        from_json(Costs, text)
