from __future__ import annotations

from dataclasses import replace

import pytest

from pith.core import Recipe
from pith.report import rows, table
from pith.report.words import bytes_, digits, listed, percent, seconds
from pith.study import Study, tasks_with
from study.fakes import measurement, question, study


def test_the_dense_model_comes_first_and_each_recipe_has_a_row() -> None:
    found = table(study("snapkv", "random_eviction"))
    assert [row[0].text for row in found.rows] == [
        "dense",
        "snapkv(budget=0.5)",
        "snapkv(budget=0.25)",
        "random_eviction(budget=0.5)",
        "random_eviction(budget=0.25)",
    ]
    assert {len(row) for row in found.rows} == {len(found.columns)}


def test_a_row_says_score_interval_bytes_and_ratios() -> None:
    dense, half, quarter = table(study("random_eviction")).rows
    assert (dense[1].text, dense[1].detail, dense[1].warns) == ("0.960", "0.902\u20130.984", False)
    assert (half[1].text, half[1].warns) == ("0.300 ▼", True)
    assert (half[3].text, half[3].detail) == ("512 KiB", "50.0% (50.0%)")
    assert (quarter[5].text, quarter[5].detail) == ("0.25x", "1.00 ms")


def test_a_claim_that_the_bytes_do_not_bear_out_stands_beside_them() -> None:
    found = study("snapkv", budgets=(0.5,))
    recipe = found.question.recipes[1]
    found.measurements[str(recipe)] = measurement(recipe, claimed=0.1)
    assert table(found).rows[1][3].detail == "50.0% (10.0%)"


def test_noisy_times_are_marked() -> None:
    found = study("snapkv", budgets=(0.5,))
    text = str(found.question.recipes[1])
    taken = found.measurements[text]
    found.measurements[text] = replace(taken, speed=replace(taken.speed, spread=0.4))
    assert table(found).rows[1][5].text == "~0.50x"
    assert table(found).rows[0][5].text == "1.00x"


def test_a_study_in_the_making_has_the_rows_that_there_are() -> None:
    assert table(Study(question("snapkv"))).rows == ()
    one = Study(question("snapkv"), {"dense": measurement(Recipe())})
    assert [row[0].text for row in table(one).rows] == ["dense"]


def test_two_tasks_of_one_name_keep_their_parameters_in_the_headings() -> None:
    asked = replace(question("snapkv"), tasks=tasks_with("needle(keys=1),needle(keys=8),perplexity", {}))
    assert [c.title for c in table(Study(asked)).columns[1:4]] == ["needle(keys=1)", "needle(keys=8)", "perplexity"]


def test_label_and_series() -> None:
    taken = measurement(Recipe())
    row = replace(rows(study("snapkv"))[1], recipe=Recipe.parse("snapkv(window=16)"), measurement=taken)
    assert (row.label, row.series) == ("snapkv(budget=0.5, window=16)", "snapkv(window=16)")
    assert (rows(study("snapkv"))[0].label, rows(study("snapkv"))[0].series) == ("dense", "dense")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (digits(0.95), "0.950"),
        (digits(0.04), "0.040"),
        (digits(0.00123), "0.0012"),
        (digits(0), "0.000"),
        (digits(1), "1.00"),
        (digits(12.345), "12.3"),
        (digits(1234.5), "1,234"),
        (digits(float("inf")), "inf"),
        (bytes_(999), "999 B"),
        (bytes_(1 << 20), "1.00 MiB"),
        (bytes_(5 << 40), "5.00 TiB"),
        (seconds(1.5), "1.50 s"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(2e-6), "2.00 µs"),
        (percent(0.2512), "25.1%"),
        (percent(1), "100%"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_people_read_them(said: str, text: str) -> None:
    assert said == text
