"""The page in a real browser: Chromium, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pith.core import Recipe
from pith.report import write
from pith.study import tasks_with
from study.fakes import measurement, sought, study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TASKS = tasks_with("needle(length=512),needle(length=2048),perplexity", {})
RECIPES = ("snapkv", "streaming_llm", "random_eviction", "ada_kv(tova)", "kivi", "snapkv + kivi")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = study(*RECIPES, tasks=TASKS, chance=0.97)
    noted = Recipe.parse("kivi")
    found.measurements["kivi"] = measurement(noted, notes=("layer 0 is left alone",), tasks=TASKS)
    return write(found, tmp_path_factory.mktemp("page"), "pith compare fake", sought())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that is open, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, file: Path, width: int = 1280, scheme: str = "light", script: bool = True) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())

    def column(self, index: int) -> list[str]:
        """The visible text of a column's cells, without small print."""
        script = """index => [...document.querySelectorAll('table.results tbody tr')].filter(row => !row.hidden)
            .map(row => [...row.cells[index].childNodes].filter(n => n.nodeName !== 'SMALL')
            .map(n => n.textContent).join('').trim())"""
        return list(self.page.evaluate(script, index))


@pytest.fixture
def visit(browser: Any, page_file: Path) -> Iterator[Visit]:
    opened = Visit(browser, page_file)
    yield opened
    # whatever was done with it, it asked for itself only, and complained of nothing
    assert [url for url in opened.asked if url != "data:,"] == [page_file.as_uri()]
    assert opened.complaints == []
    opened.context.close()


def test_every_chart_is_drawn(visit: Visit) -> None:
    visit.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    sizes = visit.page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => [s.getBoundingClientRect().width,"
        " s.getBoundingClientRect().height, s.querySelectorAll('path, rect').length])"
    )
    # three tasks twice, two of costs, one along the text, one of the search, and a map for each row
    assert len(sizes) == 6 + 2 + 1 + 1 + 12
    assert all(width > 50 and height > 50 and marks > 3 for width, height, marks in sizes)
    colours = visit.page.evaluate(
        "[...document.querySelectorAll('figure svg [data-row]')].map(mark => getComputedStyle(mark).fill)"
    )
    assert len(set(colours)) > 5
    assert all(colour.startswith("rgb") for colour in colours)


def test_clicking_a_heading_sorts_by_numbers_and_clicking_again_turns_round(visit: Visit) -> None:
    before = visit.column(0)
    place = [heading.strip() for heading in visit.page.locator("table.results thead button").all_inner_texts()]
    held = next(i for i, text in enumerate(place) if text.startswith("cache held"))
    button = visit.page.locator("table.results thead button").nth(held)
    button.click()
    heading = visit.page.locator("table.results thead th").nth(held)
    assert heading.get_attribute("aria-sort") == "ascending"
    values = [float(v) for v in visit.page.eval_on_selector_all(
        "table.results tbody tr", f"rows => rows.map(row => row.cells[{held}].dataset.value)")]  # fmt: skip
    assert values[1:] == sorted(values[1:])
    assert len(set(values)) > 2
    # as text 1.00 MiB comes before 256 KiB
    assert visit.column(held)[1:] != sorted(visit.column(held)[1:])
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert visit.column(0)[0] == "dense", "it stays on top"
    assert sorted(visit.column(0)) == sorted(before)
    assert visit.page.locator("th[aria-sort]").count() == 1
    assert "largest first" in visit.page.locator("#status").inner_text()


def test_the_keyboard_sorts_too(visit: Visit) -> None:
    button = visit.page.locator("table.results thead button").first
    button.focus()
    visit.page.keyboard.press("Enter")
    names = visit.column(0)[1:]
    kinds = [name.partition("(")[0] for name in names]
    assert kinds == sorted(kinds)
    visit.page.keyboard.press("Space")
    assert visit.column(0)[1:] == names[::-1]
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("table.results thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_every_control_can_be_reached_and_shows_where_it_is(visit: Visit) -> None:
    reached = set()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        name, outline = visit.page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached.add(name)
        assert name == "BODY" or outline != "none", name
    assert {"A", "BUTTON", "SUMMARY", "PRE", "DIV"} <= reached


def test_choosing_a_family_hides_the_others_and_fades_their_marks(visit: Visit) -> None:
    assert visit.page.locator("#filter").is_visible()
    visit.page.locator("#filter button[data-family=storage]").click()
    assert visit.column(0) == ["dense", "kivi", "snapkv(budget=0.5) + kivi", "snapkv(budget=0.25) + kivi"]
    assert visit.page.locator("#filter button[data-family=storage]").get_attribute("aria-pressed") == "true"
    assert "3 of 11 recipes shown" in visit.page.locator("#status").inner_text()
    faded = set(visit.page.eval_on_selector_all("svg .away", "marks => marks.map(mark => mark.dataset.row)"))
    assert "streaming_llm(budget=0.5)" in faded
    assert not {"dense", "kivi", "snapkv(budget=0.5) + kivi"} & faded
    visit.page.locator("#filter button").first.click()
    assert len(visit.column(0)) == 12
    assert visit.page.locator("svg .away").count() == 0


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_at_any_width(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    opened = Visit(browser, page_file, width, scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(15, 19, 25)") == (scheme == "dark")
    assert opened.complaints == []
    opened.context.close()


CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; }
    return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *:not(svg):not(svg *)')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser: Any, page_file: Path, scheme: str) -> None:
    opened = Visit(browser, page_file, scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert opened.page.evaluate(CONTRAST) == []
    cells = opened.page.evaluate(
        "[...Array(6).keys()].map(i => ['heat', 'ink'].map(n => getComputedStyle(document.documentElement)"
        ".getPropertyValue(`--${n}-${i}`).trim()))"
    )
    assert all(_contrast(ground, ink) >= 4.5 for ground, ink in cells), cells
    opened.context.close()


def _contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(a * b for a, b in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_without_scripts_it_is_a_plain_page(browser: Any, page_file: Path) -> None:
    opened = Visit(browser, page_file, script=False)
    assert opened.page.locator("table.results thead th").count() > 5
    assert opened.page.locator("button:visible").count() == 0
    assert opened.page.locator("figure svg").first.is_visible()
    opened.context.close()


def test_a_screen_reader_finds_landmarks_and_names(visit: Visit) -> None:
    tree = visit.page.locator("body").aria_snapshot()
    for part in ("banner", "navigation", "main", 'heading "fake" [level=1]', 'region "Verdict"', 'region "Results"'):
        assert part in tree, part
    nameless = visit.page.evaluate(
        "[...document.querySelectorAll('button, a, [role=img], [role=region], summary')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()))"
        ".length"
    )
    assert nameless == 0


def test_printed_it_shows_what_is_folded_and_keeps_the_light_colours(browser: Any, page_file: Path) -> None:
    opened = Visit(browser, page_file, scheme="dark")
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert opened.page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 36, 48)"
    opened.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("details:not([open])").count() == 0
    assert not opened.page.locator("#filter").is_visible()
    assert opened.page.pdf().startswith(b"%PDF")
    opened.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("details[open]").count() == 0
    opened.context.close()


def test_sixty_recipes_stay_readable(browser: Any, tmp_path: Path) -> None:
    texts = [f"snapkv(window={window})" for window in range(1, 31)]
    page = write(study(*texts, tasks=TASKS), tmp_path, "pith compare fake")
    opened = Visit(browser, page, 390)
    assert opened.page.locator("table.results tbody tr").count() == 61
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    smallest = opened.page.evaluate(
        "Math.min(...[...document.querySelectorAll('figure svg text')].filter(t => t.getClientRects().length)"
        ".map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 8, "words in charts, in pixels"
    assert opened.complaints == []
    opened.context.close()
