from __future__ import annotations

from dataclasses import replace

import pytest

from pith.core import InputError, Recipe
from pith.measure import Memory
from pith.report import reading, rows, table
from pith.report.words import bytes_, digits, listed, percent, seconds
from pith.study import Study, tasks_with
from pith.tasks import Needle
from pith.tasks.paired import paired
from study import fakes
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
    noisy = replace(taken.speed, spread=1.5, prefill_spread=0.4)
    found.measurements[text] = replace(taken, costs=replace(taken.costs, speed=noisy))
    assert [cell.text for cell in table(found).rows[1][4:6]] == ["~1.00x", "~0.50x"]
    assert table(found).rows[0][5].text == "1.00x"


def test_a_study_in_the_making_has_the_rows_that_there_are() -> None:
    assert table(Study(question("snapkv"))).rows == ()
    one = Study(question("snapkv"), {"dense": measurement(Recipe())})
    assert [row[0].text for row in table(one).rows] == ["dense"]


def test_two_tasks_of_one_name_keep_their_parameters_in_the_headings() -> None:
    asked = replace(question("snapkv"), tasks=tasks_with("needle(keys=1),needle(keys=8),perplexity", {}))
    assert [c.title for c in table(Study(asked)).columns[1:4]] == ["needle(keys=1)", "needle(keys=8)", "perplexity"]


def test_a_mark_follows_the_paired_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fakes.RIGHT, "dense", 0.5)
    found = study("snapkv", "streaming_llm", "tova", budgets=(0.5,))
    needle = found.question.tasks[0]
    for row, cells in zip(rows(found)[1:], table(found).rows[1:], strict=True):
        verdict = row.difference(needle).verdict
        assert cells[1].text[5:] == {"worse": " ▼", "better": " ▲", "not distinguishable": ""}[verdict]
        assert cells[1].warns == (verdict == "worse") == (not row.keeps(needle))
    assert {row.difference(needle).verdict for row in rows(found)[1:]} >= {"better", "worse"}


def test_differences_are_corrected_for_every_recipe_and_task() -> None:
    found = study("snapkv", "streaming_llm")
    needle = found.question.tasks[0]
    row = rows(found)[1]
    assert row.comparisons == 4 * 2
    assert row.difference(needle) == paired(row.quality(needle), row.dense.quality[str(needle)], needle, 8)
    assert "corrected for 8 comparisons (4 recipes on 2 tasks; Bonferroni)" in reading(found)
    left_out = replace(found, refused={str(row.recipe): "no"})
    assert rows(left_out)[1].comparisons == 3 * 2


def test_the_difference_stands_below_with_its_interval() -> None:
    half = table(study("random_eviction")).rows[1]
    assert half[1].more.startswith("\u22120.660 (\u22120.7")
    assert half[2].more.startswith("\u00d71.9")


def test_bandwidth_stands_there_as_a_share_of_what_a_copy_reaches() -> None:
    found = table(study("snapkv"))
    assert found.columns[-1].title == "bandwidth"
    # the fake reads 3 MiB of weights and 1 MiB of cache in 4 ms, and copies 8 GB/s
    assert (found.rows[0][-1].text, found.rows[0][-1].detail) == ("13.1%", "1.05 GB/s")


def test_peak_memory_stands_there_where_it_was_measured() -> None:
    found = study("snapkv", budgets=(0.5,))
    assert "peak memory" not in [column.title for column in table(found).columns]
    text = str(found.question.recipes[1])
    taken = found.measurements[text]
    memory = Memory(3 << 20, 6 << 20, 8 << 20)
    found.measurements[text] = replace(taken, costs=replace(taken.costs, memory=memory, bandwidth=None))
    shown = table(found)
    place = [column.title for column in shown.columns].index("peak memory")
    assert (shown.rows[1][place].text, shown.rows[1][place].detail) == ("6.00 MiB", "0.75x")
    assert shown.rows[0][place].text == shown.rows[1][-1].text == "\u2013"


def test_each_row_knows_the_contracts_of_its_methods() -> None:
    found = table(study("ada_kv(snapkv)", "snapkv + kivi", budgets=(0.5,)))
    assert found.families == ((), ("allocation", "eviction"), ("eviction", "storage"))


def test_aware_and_agnostic_tasks_do_not_stand_in_one_table() -> None:
    found = study("snapkv")
    both = (Needle(length=2048), Needle(length=2048, query="agnostic"))
    with pytest.raises(InputError, match="do not stand in one table"):
        table(replace(found, question=replace(found.question, tasks=both)))


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


def test_weights_have_a_column_where_a_recipe_changes_them() -> None:
    titles = [column.title for column in table(study("snapkv")).columns]
    assert "weights held" not in titles
    found = study("rtn(bits=4)", "snapkv", "rtn(bits=8) + snapkv(budget=0.5)", budgets=(0.5,))
    shown = table(found)
    at = [column.title for column in shown.columns].index("weights held")
    assert shown.columns[at + 1].title == "cache held"
    assert [(row[at].text, row[at].detail) for row in shown.rows] == [
        ("3.00 MiB", "100%"), ("384 KiB", "12.5%"), ("3.00 MiB", "100%"), ("768 KiB", "25.0%"),
    ]  # fmt: skip
    assert [row[at].value for row in shown.rows][1] == fakes.WEIGHTS // 8
    assert shown.rows[1][at + 1].detail == "100% (100%)"
    assert "Weights held after a forward" in reading(found)
    assert "Weights" not in reading(study("snapkv"))


def test_bytes_are_those_of_the_weights_too_where_a_recipe_changes_them() -> None:
    both = fakes.WEIGHTS + fakes.DENSE_BYTES
    dense, four, half = rows(study("rtn(bits=4)", "snapkv", budgets=(0.5,)))
    assert (dense.share, dense.held) == (1.0, both)
    assert four.share == (fakes.WEIGHTS // 8 + fakes.DENSE_BYTES) / both
    assert half.share == (fakes.WEIGHTS + fakes.DENSE_BYTES // 2) / both
    assert (half.cache_share, half.weights_share, four.weights_share) == (0.5, 1.0, 0.125)
    assert rows(study("snapkv", budgets=(0.5,)))[1].share == 0.5


def test_a_recipe_says_what_its_weights_are_turned_by_and_a_line_joins_them() -> None:
    found = rows(study("rtn", "rtn(bits=2)", "rtn(bits=3, group_size=64)", budgets=()))[1:]
    assert [row.label for row in found] == ["rtn(bits=4)", "rtn(bits=2)", "rtn(bits=3, group_size=64)"]
    assert [row.series for row in found] == ["rtn", "rtn", "rtn(group_size=64)"]


def test_a_task_that_tells_nothing_is_marked_on_the_dense_score() -> None:
    told, silent = study("snapkv"), study("snapkv", chance=0.97)
    assert not any("?" in cell.text for row in table(told).rows for cell in row)
    assert "? is not better than chance" not in reading(told)
    [dense, *others] = table(silent).rows
    marked = [cell for cell in dense if cell.text.endswith(" ?")]
    assert len(marked) == 1
    assert marked[0].warns
    assert not any("?" in cell.text for row in others for cell in row)
    assert "? is not better than chance" in reading(silent)
