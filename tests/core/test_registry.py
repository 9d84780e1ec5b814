"""The registry: Pith's own families and other packages come in by one door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from pith.attention import Eviction, Step
from pith.cache.snapkv import SnapKV
from pith.core import Paper, PithError, Recipe, registry


@dataclass(frozen=True, kw_only=True)
class KeepOldest(Eviction):
    """A method from outside."""

    paper: ClassVar[Paper] = Paper("", "From outside", "Somebody", 2026)

    def score(self, step: Step):  # type: ignore[no-untyped-def]
        return -step.positions.float()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry.methods.cache_clear()
    yield
    registry.methods.cache_clear()


def point(name: str, loaded: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, load=lambda: loaded)


def test_pith_registers_its_own_by_entry_point() -> None:
    assert registry.methods()["snapkv"] is SnapKV
    assert {"random_eviction", "streaming_llm"} <= set(registry.methods())


def test_a_method_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [point("theirs", KeepOldest)])
    assert str(Recipe.parse("keep_oldest(budget=0.25)")) == "keep_oldest(budget=0.25)"


def test_a_package_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no module named theirs")

    monkeypatch.setattr(registry, "entry_points", lambda group: [SimpleNamespace(name="theirs", load=fail)])
    with pytest.raises(PithError, match="'theirs' does not load: no module named theirs"):
        registry.methods()


def test_two_methods_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = type("SnapKV", (SnapKV,), {"__module__": "theirs.snapkv"})
    monkeypatch.setattr(registry, "entry_points", lambda group: [point("a", SnapKV), point("b", other)])
    with pytest.raises(PithError, match="two methods are called 'snapkv'"):
        registry.methods()
