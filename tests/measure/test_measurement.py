"""A measurement goes through JSON unchanged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pith.measure import CacheBytes, Measurement, Speed, from_json, to_json
from pith.tasks import Quality

MEASUREMENT = Measurement(
    model="builtin",
    recipe="snapkv(budget=0.1)",
    quality={"needle()": Quality(0.1 + 0.2, 0.0, 1.0, 2, (1.0, 1 / 3))},
    bytes=CacheBytes(10, 100, 12, 110, 7, 0.1),
    speed=Speed(0.1, 0.2, 0.5, 1e-9, 2e-3, 1 / 7, 0.01, 5),
    notes=("a note", "another"),
    environment={"torch": "2.13.0", "commit": None, "threads": 2},
)


def test_the_round_trip_is_exact() -> None:
    assert from_json(to_json(MEASUREMENT)) == MEASUREMENT
    assert MEASUREMENT.bytes.measured == 0.1


def test_numbers_that_json_cannot_say() -> None:
    broken = Quality(math.inf, -math.inf, math.nan, 1, (math.nan, math.inf))
    text = to_json(dataclasses.replace(MEASUREMENT, quality={"perplexity()": broken}))
    json.loads(text, parse_constant=pytest.fail)
    assert repr(from_json(text).quality["perplexity()"]) == repr(broken)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"model": 1}', to_json(MEASUREMENT)[:-9]])
def test_what_is_no_measurement(text: str) -> None:
    with pytest.raises(ValueError, match="this is no measurement"):
        from_json(text)


def test_a_field_that_is_missing_or_not_known() -> None:
    data = json.loads(to_json(MEASUREMENT))
    for change in ({"bytes": {}}, {"speed": {**data["speed"], "more": 1}}, {"quality": {"needle()": {"value": 1}}}):
        with pytest.raises(ValueError, match="this is no measurement"):
            from_json(json.dumps(data | change))
