from __future__ import annotations

import io

import pytest
from rich.console import Console

from pith.cli.show import rich_table
from pith.report import table
from pith.study import tasks_with
from study.fakes import study

TASKS = tasks_with("needle(length=512),needle(length=2048),perplexity", {})


def shown(width: int, last: int | None = None, recipes: tuple[str, ...] = ("snapkv", "random_eviction")) -> str:
    out = io.StringIO()
    results = table(study(*recipes, tasks=TASKS))
    Console(file=out, width=width).print(rich_table(results, width, last))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 130, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    text = shown(width)
    cells = [row[1:] for row in table(study("snapkv", "random_eviction", tasks=TASKS)).rows]
    for row in cells:
        for cell in row[:-1]:
            assert cell.text in text
            assert cell.detail in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_narrow_terminal_has_the_table_in_parts_without_what_can_be_spared() -> None:
    assert shown(200).count("recipe") == 1
    assert "bandwidth" in shown(200)
    assert shown(80).count("recipe") == 2
    assert "bandwidth" not in shown(80)
    assert shown(80).count("dense") == 2, "each part names its rows"


def test_two_tasks_fit_into_eighty_columns_with_nothing_to_spare() -> None:
    results = table(study("snapkv", "random_eviction"))
    out = io.StringIO()
    Console(file=out, width=80).print(rich_table(results, 80))
    assert out.getvalue().count("dense") == 1
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) in (78, 79)


def test_the_last_rows_are_shown_where_there_is_no_room_for_all() -> None:
    text = shown(200, last=1)
    assert "random_eviction(budget=0.25)" in text
    assert "dense" in text
    assert "snapkv" not in text
