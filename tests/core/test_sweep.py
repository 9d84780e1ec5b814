"""Laws of sweeps: every registered method has a knob, its values are allowed, and bytes grow along it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import pytest

import pith
from contracts.tiny import tiny, tokens
from contracts.variants import GATES
from pith.core import Method, Parametrised, Recipe, param
from pith.measure.seconds import run_once
from pith.models import Subject
from pith.search.space import Place, knob, places

METHODS = pith.methods()

WITHOUT: dict[str, str] = {"kv_cache_int8": "it has no parameter"}
"""Methods without a knob, and why."""

KINDS = {"which pairs are kept?", "how are kept pairs stored?"}
"""The questions whose methods save bytes; the others save time."""

SMALL: dict[str, dict[str, object]] = {
    "duo_attention": {"sink_size": 2, "recent_size": 6, "gates": str(GATES)},
    "kivi": {"group_size": 8, "residual_length": 8},
    "lag_kv": {"sink_size": 2, "lag_size": 8},
    "pyramid_infer": {"min_context_length": 4, "prefill_decay_strategy": "constant"},
    "think": {"recent_size": 4},
}
"""What lets a method act on a prompt of 48 tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stand(Parametrised):
    name: ClassVar[str] = "stand"

    share: float = param(0.5, "a share", ge=0, le=1, sweep=(0.1, 1.0))
    falling: float = param(0.5, "what saves more when it is larger", sweep=(0.9, 0.0))
    count: int = param(8, "a count", ge=1, sweep=(4, 4096))
    bits: Literal[2, 4] = param(2, "bits", sweep=(2, 4))
    width: int = param(3, "a width", sweep=(3, 5, 7))
    plain: int = param(1, "not searched")


def place(name: str) -> Place:
    return Place((name,), next(p for p in Stand.parameters() if p.name == name))


def test_two_numbers_are_a_range_and_more_or_a_literal_are_choices() -> None:
    found = {p.name: (p.sweep, p.is_range) for p in Stand.parameters()}
    assert found["share"] == ((0.1, 1.0), True)
    assert found["count"] == ((4, 4096), True)
    assert found["bits"] == ((2, 4), False)
    assert found["width"] == ((3, 5, 7), False)
    assert found["plain"] == ((), False)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("share", 0.12349, 0.123),
        ("share", 0.29, 0.29),
        ("share", 0.99999, 0.999),
        ("share", 0.04, 0.1),
        ("share", 1.0, 1.0),
        ("falling", 0.1231, 0.124),
        ("falling", 0.0, 0.0),
        ("falling", 0.95, 0.9),
        ("count", 1234.9, 1230),
        ("count", 7.9, 7),
        ("count", 5000, 4096),
    ],
)
def test_values_are_rounded_to_three_digits_towards_what_saves(name: str, value: float, wanted: float) -> None:
    found = place(name).round(value)
    assert found == wanted
    assert type(found) is type(wanted)


def test_a_share_of_a_sweep_is_a_value_between_its_ends() -> None:
    assert [place("share").at(share) for share in (0.0, 0.5, 1.0)] == [0.1, 0.55, 1.0]
    assert [place("falling").at(share) for share in (0.0, 0.5, 1.0)] == [0.9, 0.45, 0.0]
    assert [place("width").at(share) for share in (0.0, 0.34, 1.0)] == [3, 5, 7]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_knob_or_a_reason(name: str) -> None:
    assert (knob(METHODS[name]()) is None) == (name in WITHOUT)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_swept_is_allowed(name: str) -> None:
    method = METHODS[name]()
    for found in places(method):
        for value in found.parameter.sweep:
            assert found.value(found.put(method, value)) == value


def bytes_along(method: Method) -> list[int]:
    found = knob(method)
    assert found is not None
    values = [found.at(share) for share in (0.0, 0.3, 0.6, 1.0)]
    model, prompt = tiny("llama_gqa"), tokens(1, 48)
    recipes = [Recipe([found.put(method, value)]) for value in dict.fromkeys(values)]
    return [run_once(Subject(model, None, recipe), prompt, tokens=1).prefill_bytes for recipe in recipes]


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.question in KINDS and n not in WITHOUT])
def test_bytes_grow_along_the_knob(name: str) -> None:
    held = bytes_along(METHODS[name](**SMALL.get(name, {})))
    assert held == sorted(held)
    assert held[0] < held[-1]


def test_the_cache_of_the_laws_is_weighed_as_the_dense_one_where_nothing_is_saved() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 48)
    dense = run_once(Subject(model, None), prompt, tokens=1).prefill_bytes
    assert bytes_along(METHODS["key_norm"]())[-1] == pytest.approx(dense, rel=0.05)
