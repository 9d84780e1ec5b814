from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.report import write
from pith.report.charts import SHAPES, styles
from pith.report.page import render
from pith.report.row import rows
from pith.study import Study
from study.fakes import measurement, study

PAGE = render(study("snapkv", "streaming_llm", "random_eviction"), "pith compare --out results")


class Elements(HTMLParser):
    """Every element's name and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_it_asks_nothing_of_the_network() -> None:
    assert not re.findall(r"https?://|//\w+\.\w+|@import|<script|url\((?!#)", PAGE)
    elements = Elements(PAGE).found
    addresses = [a[name] for _, a in elements for name in ("src", "href", "srcset", "xlink:href") if name in a]
    assert addresses == ["data:,"]


def test_it_can_be_read_without_seeing_it() -> None:
    page = Elements(PAGE)
    assert page.all("html") == [{"lang": "en"}]
    assert {a["scope"] for a in page.all("th")} == {"col", "row"}
    assert len([a for a in page.all("th") if a["scope"] == "row"]) == 7
    pictures = [a for a in page.all("div") if a.get("role") == "img"]
    assert len(pictures) == len(page.all("figure")) == len(page.all("figcaption")) == 4
    assert all("random_eviction(budget=0.25)" in (a["aria-label"] or "") for a in pictures)
    scrolled = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert [a["tabindex"] for a in scrolled] == ["0"]


def test_it_says_what_was_asked_found_and_how() -> None:
    for text in (
        "needle(length=2048)",
        "<code>snapkv(budget=0.25)</code> keeps",
        "pith compare --out results",
        "2.13.0",
    ):
        assert text in PAGE


def test_charts_take_their_colours_from_the_page() -> None:
    svgs = re.findall(r"<svg.*?</svg>", PAGE, flags=re.DOTALL)
    assert len(svgs) == 1 + 3 + 4
    assert not re.findall(r'(?:fill|stroke)="#', "".join(svgs))
    assert "--series-0" in svgs[-1]


def test_everything_is_escaped() -> None:
    found = study("snapkv")
    recipe = found.question.recipes[1]
    evil = "<img src=x onerror=alert(1)>"
    found.measurements[str(recipe)] = measurement(recipe, notes=(evil,))
    asked = replace(found.question, model=evil, settings={"length": evil})
    page = render(Study(asked, found.measurements, {evil: evil}), f"pith compare {evil}")
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 6


def test_notes_name_their_recipes_and_rows_of_another_environment_are_said() -> None:
    found = study("snapkv")
    for recipe in found.question.recipes[1:]:
        found.measurements[str(recipe)] = measurement(recipe, notes=("layer 0 is left alone",))
    last = str(found.question.recipes[-1])
    moved = replace(found.measurements[last], environment={"torch": "2.13.0", "threads": 64})
    page = render(replace(found, measurements={**found.measurements, last: moved}), "pith compare")
    assert "<code>snapkv(budget=0.5)</code>, <code>snapkv(budget=0.25)</code>: layer 0 is left alone" in page
    assert "they differ in threads" in page


def test_a_score_without_bounds_is_in_the_table_and_not_on_the_scale() -> None:
    found = study("snapkv")
    last = str(found.question.recipes[-1])
    taken = found.measurements[last]
    text = str(found.question.tasks[1])
    broken = replace(taken.quality[text], value=float("inf"), high=float("inf"))
    found.measurements[last] = replace(taken, quality={**taken.quality, text: broken})
    page = render(found, "pith compare")
    assert "inf ▼" in page
    assert "NaN" not in page


def test_the_dense_model_alone_makes_a_page() -> None:
    found = study("snapkv")
    alone = Study(found.question, {"dense": measurement(Recipe())})
    assert render(alone, "pith compare").count("<figure>") == 2


def test_many_series_stay_apart() -> None:
    row = rows(study("snapkv"))[1]
    many = [replace(row, recipe=Recipe.parse(f"snapkv(window={window})")) for window in range(1, 57)]
    assert len(set(styles(many).values())) == 56
    assert len(SHAPES) == 7


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    found = study("snapkv")
    page = write(found, tmp_path, "pith compare")
    assert page.read_text(encoding="utf-8").endswith("</html>")
    assert list(tmp_path.iterdir()) == [page]
    with pytest.raises(StoreError, match=r"report\.html cannot be written"):
        write(found, tmp_path / "none", "pith compare")
