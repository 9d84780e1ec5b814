"""One self-contained HTML page for a comparison, which opens without a network, and files for papers beside it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pith.core import StoreError, write_whole, written
from pith.core.errors import PithWarning
from pith.report.calibration import scales
from pith.report.cards import cards
from pith.report.charts import styles
from pith.report.export import exports
from pith.report.figures import Figures, figures
from pith.report.row import Row, rows
from pith.report.search import Search
from pith.report.table import reading, table
from pith.report.verdict import taken, verdict
from pith.report.words import digits
from pith.search.sought import Sought
from pith.study import Study

FILE = "report.html"
FOLDER = "charts"

OPEN = 4
"""So many tasks' charts are shown at once; those of further ones unfold."""


def render(study: Study, command: str, sought: Sought | None = None, drawn: Figures | None = None) -> str:
    """The page as text.

    Args:
        study: a question and at least the dense model's measurement.
        command: the command line that asked it.
        sought: what a search looked for and found, where the comparison ends one.
        drawn: its charts, where they are drawn already.
    """
    found = rows(study)
    environment = Environment(
        loader=PackageLoader("pith", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"code": _code, "breakable": _breakable, "digits": digits, "written": written}
    results = table(study)
    return environment.get_template("page.html").render(
        question=study.question,
        verb="fit" if sought else "compare",
        verdict=verdict(study),
        search=Search(sought) if sought else None,
        table=results,
        families=_families(results.families),
        series=[row.series for row in found],
        best=_best(study, found, sought),
        reading=reading(study),
        scales=scales(study, found) if study.calibrations else [],
        figures=drawn or figures(study, found, sought),
        open=OPEN,
        folder=FOLDER,
        styles=styles(found),
        cards=cards([row.recipe for row in found]),
        notes=_notes(found, study.refused),
        settings=_settings(
            {**found[0].measurement.environment, **study.question.settings, **study.question.costs}
            | ({"calibration": study.question.calibration} if study.question.calibration else {})
        ),
        command=command,
    )


def write(study: Study, directory: str | Path, command: str, sought: Sought | None = None) -> Path:
    """Write the page into the folder, then its table and its charts for papers into `charts` beside it.

    Each file is written whole or not at all, the page first: a chart or a table that cannot be made or written is left
    out, with a warning that says why.

    Args:
        study, command, sought: as of `render`.
        directory: a folder that is there.

    Returns:
        The page's path.

    Raises:
        StoreError: the page cannot be written.
    """
    folder = Path(directory)
    drawn = figures(study, rows(study), sought)
    page = write_whole(folder / FILE, render(study, command, sought, drawn).encode(errors="replace"))
    for name, content in exports(drawn.files(), table(study)):
        try:
            write_whole(folder / FOLDER / name, content)
        except StoreError as error:
            warnings.warn(str(error), PithWarning, stacklevel=2)
    return page


def _best(study: Study, found: list[Row], sought: Sought | None) -> int | None:
    """Which row is the recipe to take: the one that a search found, or else the verdict's."""
    if sought:
        return next((i for i, row in enumerate(found) if str(row.recipe) == sought.found), None)
    best = taken(found, scales(study, found))
    return found.index(best) if best else None


def _families(rows: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    """Each contract and in how many rows it stands; none where there is nothing to choose from."""
    counts: dict[str, int] = {}
    for row in rows:
        for family in row:
            counts[family] = counts.get(family, 0) + 1
    return counts if len(counts) > 1 else {}


def _code(sentence: str) -> Markup:
    """A sentence with what stands between backticks as code."""
    parts = str(escape(sentence)).split("`")
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def _breakable(label: str) -> Markup:
    """A recipe that a narrow column may break before its parameters."""
    return Markup("<wbr>(").join(label.split("("))


def _notes(found: list[Row], refused: Mapping[str, str]) -> list[str]:
    """Each note once, with the recipes that it is about; what was left out; whether the rows' environments differ."""
    about: dict[str, list[str]] = {}
    for row in found:
        for note in row.measurement.notes:
            about.setdefault(note, []).append(row.label)
    notes = [f"{', '.join(f'`{label}`' for label in labels)}: {note}" for note, labels in about.items()]
    notes += [f"`{recipe}` was left out: {why}" for recipe, why in refused.items()]
    first = found[0].measurement.environment
    differing = {k for row in found for k, v in row.measurement.environment.items() if first.get(k) != v}
    differing -= {"dtype_reason"}  # its figures are those of each load; the dtype itself is of every key
    if differing:
        notes.append(
            f"Not all rows were measured in the environment below; they differ in {', '.join(sorted(differing))}."
        )
    return notes


def _settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was set and where it ran, as words; nested values in one line."""
    return [(key.replace("_", " "), _plain(value)) for key, value in values.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
