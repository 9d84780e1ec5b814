from __future__ import annotations

from dataclasses import replace

import pytest

from pith.report import verdict
from pith.report.verdict import better
from pith.tasks import Quality
from study import fakes
from study.fakes import study


def test_it_names_the_recipe_that_keeps_quality_at_the_fewest_bytes() -> None:
    first = verdict(study("snapkv", "random_eviction"))[0]
    assert first.startswith("`snapkv(budget=0.25)` keeps needle and perplexity within the dense model's 95% interval")
    assert "25.0% of its cache bytes, the fewest of the 2 recipes that do" in first
    assert "0.25x the dense model's time" in first


def test_it_says_when_one_recipe_keeps_the_quality_and_when_times_are_noise() -> None:
    found = study("snapkv", "random_eviction", budgets=(0.5,))
    text = str(found.question.recipes[1])
    taken = found.measurements[text]
    found.measurements[text] = replace(taken, speed=replace(taken.speed, spread=0.4))
    first = verdict(found)[0]
    assert "the only recipe that does" in first
    assert first.endswith("0.50x the dense model's time, in runs too noisy to trust.")


def test_it_says_when_no_recipe_keeps_the_quality() -> None:
    assert verdict(study("random_eviction"))[0].startswith(
        "No recipe that holds fewer bytes keeps needle and perplexity"
    )


def test_it_says_when_no_recipe_holds_fewer_bytes() -> None:
    assert verdict(study("snapkv", budgets=(1.0,)))[0] == "No recipe held fewer bytes than the dense model."


def test_it_names_methods_that_are_no_better_than_chance() -> None:
    second = verdict(study("snapkv", "streaming_llm", "random_eviction"))[1]
    assert second.startswith(
        "Not better than `random_eviction` at the same budget: `streaming_llm` on needle (at 0.5 and 0.25)"
    )
    assert "snapkv" not in second


def test_it_says_when_all_beat_chance() -> None:
    assert verdict(study("snapkv", "random_eviction"))[1].startswith("Every other method beats `random_eviction`")


def test_it_warns_when_chance_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.RIGHT, "random_eviction", 0.95)
    assert "cannot tell methods apart" in verdict(study("snapkv", "random_eviction"))[1]


def test_without_the_floor_there_is_no_second_sentence() -> None:
    assert len(verdict(study("snapkv", "streaming_llm"))) == 1
    assert len(verdict(study("random_eviction"))) == 1


def test_better_pairs_examples() -> None:
    needle, perplexity = fakes.TASKS
    noise = [float(i % 7) for i in range(40)]
    one = Quality(0.0, 0.0, 0.0, 40, tuple(noise))
    other = replace(one, scores=tuple(x + 0.1 + 0.01 * (i % 2) for i, x in enumerate(noise)))
    assert better(other, one, needle)
    assert not better(one, other, needle)
    assert better(one, other, perplexity)
    assert not better(one, one, needle)
    single = replace(one, scores=(1.0,))
    assert not better(single, replace(one, scores=(0.0,)), needle)
