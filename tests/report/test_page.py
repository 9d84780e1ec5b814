from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pith.core import PithWarning, Recipe, StoreError
from pith.report import write
from pith.report.page import render
from pith.study import Study, tasks_with
from study.fakes import measurement, sought, study

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
    assert not re.findall(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", PAGE)
    page = Elements(PAGE)
    loads = [a[name] for _, a in page.found for name in ("src", "srcset", "xlink:href", "data") if name in a]
    assert loads == []
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    links = [a["href"] or "" for a in page.all("a")]
    assert all(link.startswith(("#", "https://arxiv.org/abs/", "https://github.com/")) for link in links)
    assert len(page.all("script")) == 1


def test_it_can_be_read_without_seeing_it() -> None:
    page = Elements(PAGE)
    assert page.all("html") == [{"lang": "en"}]
    assert {a["scope"] for a in page.all("th")} == {"col", "row"}
    assert len([a for a in page.all("tr") if "data-row" in a]) == 7
    pictures = [a for a in page.all("div") if a.get("role") == "img"]
    # for each of two tasks two charts, two of costs, one along the text, and seven maps
    assert len(pictures) == len(page.all("figure")) == len(page.all("figcaption")) == 2 * 2 + 2 + 1 + 7
    assert all("random_eviction(budget=0.25)" in (a["aria-label"] or "") for a in pictures[:7])
    scrolled = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert {a["tabindex"] for a in scrolled} == {"0"}
    assert all(a["role"] == "region" and (a.get("aria-label") or a.get("aria-labelledby")) for a in scrolled)
    identities = [a["id"] for _, a in page.found if "id" in a]
    assert len(set(identities)) == len(identities)
    targets = [(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")]
    assert set(targets) <= set(identities)


def test_headings_go_down_one_step_at_a_time() -> None:
    levels = [int(tag[1]) for tag, _ in Elements(PAGE).found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1


def test_it_says_what_was_asked_found_and_how() -> None:
    for text in (
        "needle(length=2048)",
        "Take <code>snapkv(budget=0.25)</code>: it shows no loss",
        "pith compare --out results",
        "2.13.0",
        "corrected for 12 comparisons",
    ):
        assert text in PAGE


def test_the_recipe_to_take_is_marked_in_the_table() -> None:
    marked = [a["data-row"] for a in Elements(PAGE).all("tr") if a.get("class") == "best"]
    assert marked == ["snapkv(budget=0.25)"]
    assert PAGE.count("<small>the one to take</small>") == 1
    searched = render(study("snapkv", budgets=(0.4,)), "pith fit", sought())
    assert [a["data-row"] for a in Elements(searched).all("tr") if a.get("class") == "best"] == ["snapkv(budget=0.4)"]


def test_charts_take_their_colours_from_the_page() -> None:
    svgs = re.findall(r"<svg.*?</svg>", PAGE, flags=re.DOTALL)
    assert len(svgs) == 1 + 4 + 14
    assert not re.findall(r'(?:fill|stroke)="(?:#|rgb)', "".join(svgs))
    assert all(f"--heat-{i}" in PAGE and f"--ink-{i}" in PAGE for i in range(6))


def test_each_marks_words_are_its_title_and_name_its_row() -> None:
    rows = {a["data-row"] for a in Elements(PAGE).all("tr") if "data-row" in a}
    marks = {a["data-row"] for a in Elements(PAGE).all("path") if "data-row" in a}
    assert marks == rows
    assert "<title>snapkv(budget=0.5) · 0.940 at 50.0%</title>" in PAGE


def test_each_method_has_a_card() -> None:
    cards = [a["id"] for a in Elements(PAGE).all("details") if a.get("class") == "card"]
    assert cards == ["method-random_eviction", "method-snapkv", "method-streaming_llm"]
    for text in (
        "https://arxiv.org/abs/2404.14469",
        "pool(mean_{query heads",
        "FasterDecoding/SnapKV",
        "pooling=&#39;",
    ):
        assert text in PAGE
    assert "<code>tests/cache/test_snapkv.py</code>" in PAGE
    assert "<code>tests/faithful/test_snapkv_parity.py</code>" in PAGE


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
    costs = replace(found.measurements[last].costs, environment={"torch": "2.13.0", "threads": 64})
    moved = replace(found.measurements[last], costs=costs)
    page = render(replace(found, measurements={**found.measurements, last: moved}), "pith compare")
    assert "<code>snapkv(budget=0.5)</code>, <code>snapkv(budget=0.25)</code>: layer 0 is left alone" in page
    assert "they differ in threads" in page


def test_a_score_without_bounds_is_in_the_table_and_not_on_the_scale() -> None:
    found = study("snapkv")
    last = str(found.question.recipes[-1])
    taken = found.measurements[last]
    text = str(found.question.tasks[1])
    answer = taken.answers[text]
    scores = (float("inf"), *answer.quality.scores[1:])
    broken = replace(answer.quality, value=float("inf"), high=float("inf"), scores=scores)
    answers = {**taken.answers, text: replace(answer, quality=broken)}
    found.measurements[last] = replace(taken, answers=answers)
    page = render(found, "pith compare")
    assert "inf ▼" in page
    assert "NaN" not in page.partition("<script>")[0]


def test_the_dense_model_alone_makes_a_page() -> None:
    found = study("snapkv")
    alone = Study(found.question, {"dense": measurement(Recipe())})
    page = render(alone, "pith compare")
    assert page.count("<figure>") == 2, "the curve and the map"
    assert 'href="#methods"' not in page


def test_a_task_that_tells_nothing_is_called_out_beside_its_calibration() -> None:
    page = render(study("snapkv", chance=0.95), "pith compare")
    assert '<tr class="silent"><th scope="row">needle</th>' in page
    assert page.count("tells nothing here</td>") == 1
    assert "needle tells nothing here: the dense model&#39;s 0.960 is not above chance" in page


def test_a_search_says_its_limits_its_outcome_and_everything_tried() -> None:
    page = render(study("snapkv"), "pith fit", sought())
    for text in (
        "<code>snapkv(budget=0.4)</code> meets every limit",
        "at most 3.50 MiB",
        "at least 80.0% of the dense model",
        "pith generate fake",
        "5 recipes tried, 2 of them given up early",
        "holds more than the limit",
    ):
        assert text in page, text
    assert "Take <code>" not in page, "a search has one answer"
    missed = render(study("snapkv"), "pith fit", sought(found=False))
    assert "No recipe tried meets every limit; <code>snapkv(budget=0.4)</code> comes nearest and misses" in missed


def test_many_recipes_fold_away_what_is_not_needed_at_once() -> None:
    tasks = tasks_with("needle(keys=1),needle(keys=2),needle(keys=4),needle(keys=8),needle(keys=16)", {"length": 512})
    found = study(*(f"snapkv(window={w})" for w in range(1, 9)), tasks=tasks)
    page = render(found, "pith compare")
    assert "1 more task<" in page
    assert "2 more recipes" in page


def test_it_is_written_whole_or_not_at_all_with_its_files(tmp_path: Path) -> None:
    found = study("snapkv")
    page = write(found, tmp_path, "pith compare")
    assert page.read_text(encoding="utf-8").endswith("</html>")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "charts"}
    names = {path.name for path in (tmp_path / "charts").iterdir()}
    charts = {"needle-bytes", "needle-time", "needle-depth", "perplexity-bytes", "perplexity-time", "perplexity-curve",
              "decode-time", "claimed-measured"}  # fmt: skip
    assert names == {f"{chart}.{kind}" for chart in charts for kind in ("svg", "png")} | {"table.md", "table.tex"}
    assert write(found, tmp_path, "pith compare") == page, "again, over what is there"
    with pytest.raises(StoreError, match="cannot be written: File exists"):
        write(found, page, "pith compare")
    assert page.read_text(encoding="utf-8").endswith("</html>")


def test_a_chart_that_fails_does_not_lose_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such scale\nand more")

    monkeypatch.setattr("pith.report.figures.time_chart", fails)
    with pytest.warns(PithWarning, match="the charts of the costs were not drawn: ValueError: no such scale$"):
        page = write(study("snapkv"), tmp_path, "pith compare")
    text = page.read_text(encoding="utf-8")
    assert text.endswith("</html>")
    assert '<h2 id="charts">' in text, "the charts of quality are there"
    assert "decode-time.svg" not in {path.name for path in (tmp_path / "charts").iterdir()}


def test_a_file_that_cannot_be_written_does_not_lose_the_page(tmp_path: Path) -> None:
    (tmp_path / "charts" / "needle-bytes.svg").mkdir(parents=True)
    with pytest.warns(PithWarning, match=r"needle-bytes\.svg cannot be written: Is a directory"):
        page = write(study("snapkv"), tmp_path, "pith compare")
    assert page.read_text(encoding="utf-8").endswith("</html>")
    assert (tmp_path / "charts" / "table.md").is_file()
    assert (tmp_path / "charts" / "needle-bytes.png").is_file()


def test_what_tasks_and_recipes_are_called_is_text_on_the_page() -> None:
    evil = "<script>alert(1)</script>`<img src=x onerror=alert(1)>"
    tasks = tasks_with(f"perplexity(text={evil!r}),perplexity", {})
    found = study(f"rtn(bits=4, skip={evil!r})", budgets=(), tasks=tasks)
    text = render(found, f"pith compare {evil}\udcff")
    assert len(Elements(text).all("script")) == 1
    assert Elements(text).all("img") == []
