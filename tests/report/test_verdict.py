from __future__ import annotations

from dataclasses import replace

import pytest

from pith.core import Recipe
from pith.report import rows, verdict
from pith.report.calibration import scales
from pith.report.verdict import taken
from pith.study import Study, tasks_with
from pith.tasks import Calibration
from study import fakes
from study.fakes import study


def test_it_names_the_recipe_to_take_and_what_it_costs() -> None:
    first = verdict(study("snapkv", "random_eviction"))[0]
    assert first.startswith("Take `snapkv(budget=0.25)`: it shows no loss on needle and perplexity")
    assert "25.0% of the dense cache's bytes, the fewest of the 2 recipes that do" in first
    assert "a decoded token takes 0.25x the time" in first
    assert first.count(". ") == 0, "one sentence"


def test_it_says_what_loss_so_few_examples_would_not_show() -> None:
    found = study("snapkv", "random_eviction")
    first = verdict(found)[0]
    needle = found.question.tasks[0]
    difference = rows(found)[2].difference(needle)
    assert difference.needed is not None
    assert f"with 100 examples of needle a loss under {difference.detectable:.3f} would not show" in first
    assert f"about {difference.needed} would show 0.100" in first


def test_enough_examples_need_no_such_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.RIGHT, "snapkv", 0.96)
    assert "would not show" not in verdict(study("snapkv", budgets=(0.5,)))[0]


def test_it_says_when_one_recipe_keeps_the_quality_and_when_times_are_noise() -> None:
    found = study("snapkv", "random_eviction", budgets=(0.5,))
    text = str(found.question.recipes[1])
    taken = found.measurements[text]
    noisy = replace(taken.speed, spread=1.5)
    found.measurements[text] = replace(taken, costs=replace(taken.costs, speed=noisy))
    first = verdict(found)[0]
    assert "the only recipe that does" in first
    assert "0.50x the time, in runs too noisy to trust" in first


def test_a_recipe_that_is_better_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.RIGHT, "dense", 0.5)
    first = verdict(study("snapkv", budgets=(0.5,)))[0]
    assert first.startswith("Take `snapkv(budget=0.5)`: it is better than the dense model on needle and perplexity")


def test_where_every_recipe_loses_it_names_the_one_that_loses_least() -> None:
    first = verdict(study("streaming_llm", "random_eviction"))[0]
    assert first.startswith("Take none if nothing may be lost: every recipe that holds fewer bytes is worse")
    assert "on needle or perplexity; the least is lost by `" in first
    assert "needle 0.300 against 0.960" in first


def test_a_large_loss_that_few_examples_cannot_tell_is_no_reason_to_take_a_recipe() -> None:
    found = study("snapkv", budgets=(0.5,))
    text, needle = str(found.question.recipes[1]), found.question.tasks[0]
    for recipe, right in (("dense", 20), (text, 14)):
        taken = found.measurements[recipe]
        answer = taken.answers[str(needle)]
        scores = tuple(float(i < right) for i in range(20))
        quality = replace(answer.quality, value=right / 20, low=0.45, high=1.0, n=20, scores=scores)
        answers = {**taken.answers, str(needle): replace(answer, quality=quality)}
        found.measurements[recipe] = replace(taken, answers=answers)
    wide = replace(found, question=replace(found.question, recipes=(*found.question.recipes, *more())))
    row = rows(wide)[1]
    assert row.difference(needle).verdict == "not distinguishable"
    first = verdict(wide)[0]
    assert first.startswith("Take none if nothing may be lost")
    assert "(needle 0.700 against 1.00)" in first
    assert "but with 20 examples of needle" in first


def more() -> tuple[Recipe, ...]:
    """Recipes that are asked for too, so that there are more comparisons."""
    return tuple(Recipe.parse(f"snapkv(budget=0.5, window={window})") for window in range(1, 12))


def test_tasks_that_differ_in_their_length_have_one_name() -> None:
    tasks = tasks_with("needle(length=512),needle(length=1024),perplexity", {})
    assert "on needle at every length and perplexity and holds" in verdict(study("snapkv", tasks=tasks))[0]


def test_it_says_when_no_recipe_holds_fewer_bytes() -> None:
    assert verdict(study("snapkv", budgets=(1.0,)))[0] == "Take none: no recipe held fewer bytes than the dense model."


def test_a_task_that_the_dense_model_cannot_do_tells_nothing() -> None:
    found = study("snapkv", "streaming_llm", chance=0.95)
    sentences = verdict(found)
    assert "needle tells nothing here: the dense model's 0.960 is not above chance (0.950)." in sentences
    assert "shows no loss on perplexity and" in sentences[0], "it takes no part in the choice"
    needle, perplexity = found.question.tasks
    both = {str(needle): Calibration(1.0, 0.95), str(perplexity): Calibration(1.0, 8.0)}
    sentences = verdict(replace(found, calibrations=both))
    assert sentences[0].startswith("Take none yet")
    assert any("is not below chance (8.00)" in sentence for sentence in sentences)


def test_without_a_calibration_every_task_counts() -> None:
    found = replace(study("snapkv"), calibrations={})
    assert "needle and perplexity" in verdict(found)[0]
    assert all(scale.tells for scale in scales(found))


def test_of_equal_bytes_the_faster_one_is_taken() -> None:
    found = study("snapkv", "snapkv(window=16)", budgets=(0.5,))
    slow, fast = (str(recipe) for recipe in found.question.recipes[1:])
    measured = found.measurements[fast]
    speed = replace(measured.speed, decode_ratio=0.1)
    found.measurements[fast] = replace(measured, costs=replace(measured.costs, speed=speed))
    best = taken(rows(found), scales(found))
    assert best is not None
    assert best.recipe == Recipe.parse(fast) != Recipe.parse(slow)


def test_it_names_methods_that_are_no_better_than_chance() -> None:
    second = verdict(study("snapkv", "streaming_llm", "random_eviction"))[1]
    assert second == (
        "Not better than `random_eviction` at the same budget: `streaming_llm` on needle and perplexity "
        "(at every budget)."
    )


def test_it_says_when_all_beat_chance() -> None:
    assert verdict(study("snapkv", "random_eviction"))[1].startswith("Every other method beats `random_eviction`")


def test_it_warns_when_chance_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.RIGHT, "random_eviction", 0.95)
    assert "cannot tell methods apart" in verdict(study("snapkv", "random_eviction"))[1]


def test_without_the_floor_there_is_no_second_sentence() -> None:
    assert len(verdict(study("snapkv", "streaming_llm"))) == 1
    assert len(verdict(study("random_eviction"))) == 1


def test_a_study_that_has_measured_nothing_says_so_or_nothing() -> None:
    assert scales(Study(fakes.question("snapkv"))) == []
    assert verdict(Study(fakes.question("snapkv"))) == ["Take none: no recipe held fewer bytes than the dense model."]


def test_where_weights_are_changed_they_count() -> None:
    found = study("rtn(bits=4)", "snapkv", budgets=(0.5,))
    best = taken(rows(found), scales(found))
    assert best is not None
    assert best.label == "rtn(bits=4)", "the cache's half is less than what is saved of the weights"
    first = verdict(found)[0]
    share = (fakes.WEIGHTS // 8 + fakes.DENSE_BYTES) / (fakes.WEIGHTS + fakes.DENSE_BYTES)
    assert first.startswith("Take `rtn(bits=4)`: it shows no loss on needle and perplexity")
    assert f"holds {share:.1%} of the bytes of the dense model's weights and cache, the fewest of the 2" in first


def test_weights_that_take_as_much_as_before_are_no_fewer_bytes() -> None:
    found = study("wanda(sparsity=0.5)", budgets=())
    assert rows(found)[1].share == 1.0
    assert verdict(found)[0] == "Take none: no recipe held fewer bytes than the dense model."
