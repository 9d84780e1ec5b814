from __future__ import annotations

import re
from dataclasses import replace
from statistics import fmean

import pytest

from pith.core import Recipe
from pith.report import rows
from pith.report.charts import SHAPES, curve_charts, depth_maps, quality_chart, search_chart, styles
from pith.report.charts.base import chosen, ratios
from pith.report.charts.costs import bytes_chart, memory_chart, time_chart
from pith.report.charts.curve import LINES
from pith.report.figures import figures
from pith.report.words import bytes_
from pith.search.sought import Reached
from pith.study import tasks_with
from study.fakes import sought, study


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def titles(svg: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", svg)


def test_many_series_stay_apart() -> None:
    row = rows(study("snapkv"))[1]
    many = [replace(row, recipe=Recipe.parse(f"snapkv(window={window})")) for window in range(1, 57)]
    assert len(set(styles(many).values())) == 56
    assert len(SHAPES) == 7


@pytest.mark.parametrize("against", ["bytes", "time"])
def test_the_front_is_named_and_every_recipe_drawn(against) -> None:
    found = study("snapkv", "streaming_llm")
    task = found.question.tasks[0]
    chart = quality_chart(rows(found), task, "needle", against)
    # at a quarter of the bytes and of the time snapkv finds what it finds at half, and dense finds a little more
    assert chart.caption.endswith("`snapkv(budget=0.25)`, `dense`.")
    assert len(titles(chart.svg)) == 5
    assert all(row.label in chart.alt for row in rows(found))


def test_ratios_over_a_wide_range_are_drawn_on_a_logarithmic_scale() -> None:
    near, far = ratios([0.5, 1.0], "x")["scale"].to_dict(), ratios([0.05, 1.0, 9.0], "x")["scale"].to_dict()
    assert near.get("type") is None
    assert far["type"] == "log"
    assert far["domain"][0] < 0.05 < 9.0 < far["domain"][1]


def test_maps_bin_the_depths_of_each_length() -> None:
    tasks = tasks_with("needle(length=512),needle(length=2048),perplexity", {})
    found = study("snapkv", tasks=tasks)
    [maps] = depth_maps(rows(found), tasks)
    assert [chart.title for chart in maps.charts] == [row.label for row in rows(found)]
    quality = rows(found)[0].quality(tasks[0])
    first = [s for d, s in zip(quality.depths, quality.scores, strict=True) if d < 0.2]
    said = f"0\u201320% of 512 tokens: {fmean(first):.2f} over {len(first)} examples"
    assert said in titles(maps.charts[0].svg)
    assert said in maps.charts[0].alt
    assert f"{fmean(first):.2f}" in words(maps.charts[0].svg)
    cells = [title for title in titles(maps.charts[0].svg) if "tokens:" in title]
    assert len(cells) == 2 * 5
    assert len(titles(maps.together.svg)) == 10 * len(rows(found))


def test_tasks_that_differ_in_more_than_length_have_maps_of_their_own() -> None:
    tasks = tasks_with("needle(keys=1),needle(keys=8)", {"length": 512})
    assert [maps.title for maps in depth_maps(rows(study("snapkv", tasks=tasks)), tasks)] == [
        "needle(keys=1)",
        "needle(keys=8)",
    ]


def test_without_depths_there_is_no_map() -> None:
    found = study("snapkv")
    dense = found.measurements["dense"]
    text = str(found.question.tasks[0])
    answer = replace(dense.answers[text], quality=replace(dense.answers[text].quality, depths=()))
    found.measurements["dense"] = replace(dense, answers={**dense.answers, text: answer})
    assert depth_maps(rows(found), found.question.tasks) == []


def test_a_curve_draws_a_line_for_each_of_a_few_recipes() -> None:
    found = study(*(f"snapkv(window={w})" for w in range(1, 9)))
    [chart] = curve_charts(rows(found), found.question.tasks, rows(found)[-1])
    drawn = [word for word in words(chart.svg) if word.startswith(("dense", "snapkv"))]
    assert len(drawn) == LINES
    assert drawn[:2] == ["dense", "snapkv(budget=0.25, window=8)"]
    assert f"{LINES} of 17 recipes are drawn" in chart.caption


def test_the_rows_chosen_are_the_dense_one_the_first_and_then_the_others_in_order() -> None:
    found = rows(study("snapkv", "tova"))
    assert chosen(found, 3, found[3]) == [found[0], found[3], found[1]]
    assert chosen(found, 9) == found


def test_a_search_draws_what_it_measured_and_counts_the_rest() -> None:
    chart = search_chart(sought())
    assert chart is not None
    recipes = [title for title in titles(chart.svg) if "of the quality" in title]
    assert len(recipes) == 4
    assert "snapkv(budget=0.4) · 81.2% of the quality in 3.40 MiB, 0.400x the time" in recipes
    assert "1 more were given up" in chart.caption
    afresh = search_chart(replace(sought(), reached=Reached(3 << 20, 0.95, 0.5)))
    assert afresh is not None
    assert "snapkv(budget=0.4) · 95.0% of the quality in 3.00 MiB, 0.500x the time" in titles(afresh.svg)
    nothing = replace(sought(), tried=(sought().tried[-1],))
    assert search_chart(nothing) is None


def test_a_long_recipe_is_read_whole_in_the_charts_of_costs() -> None:
    found = rows(study("snapkv(window=16, kernel=7) + kivi(bits=4, residual_length=32)", "snapkv", budgets=(0.5,)))
    for chart in (time_chart(found), bytes_chart(found)):
        text = re.sub(r"<title>.*?</title>|aria-label=\"[^\"]*\"", "", chart.svg)
        assert "…" not in text
        assert all(word in text for row in found[1:] for word in row.label.split())


def test_weights_and_caches_are_drawn_beside_the_dense_models() -> None:
    found = rows(study("rtn(bits=4)", "snapkv", budgets=(0.5,)))
    chart = memory_chart(found)
    assert sorted(titles(chart.svg)) == sorted(
        f"{row.label} · {part}"
        for row in found
        for part in (
            f"weights hold {bytes_(row.measurement.costs.memory.weights)}",
            f"cache holds {bytes_(row.measurement.bytes.prefill)}",
        )
    )
    bars = [path for path in re.findall(r"<path[^>]*>", chart.svg) if "data-row" in path]
    assert len(bars) == 6


@pytest.mark.parametrize(("recipes", "says"), [(("rtn",), "weights and cache held"), (("snapkv",), "cache held")])
def test_bytes_are_named_for_what_they_are(recipes: tuple[str, ...], says: str) -> None:
    found = study(*recipes, budgets=())
    chart = quality_chart(rows(found), found.question.tasks[0], "needle", "bytes")
    assert f"{says}, share of dense" in words(chart.svg)
    drawn = [chart.name for chart in figures(found, rows(found)).costs]
    assert drawn == ["decode-time", "claimed-measured", *(["weights-cache"] if "weights" in says else [])]
