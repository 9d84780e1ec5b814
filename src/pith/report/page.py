"""One self-contained HTML page for a comparison; it opens without any network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pith.core import StoreError
from pith.report.charts import bytes_chart, quality_chart, styles, time_chart
from pith.report.row import Row, rows
from pith.report.table import READING, headings, table
from pith.report.verdict import verdict
from pith.study import Study

FILE = "report.html"


def render(study: Study, command: str) -> str:
    """The page as text.

    Args:
        study: a question and at least the dense model's measurement.
        command: the command line that asked it.
    """
    found = rows(study)
    tasks = study.question.tasks
    charts = [quality_chart(found, task, name) for task, name in zip(tasks, headings(tasks), strict=True)]
    charts += [time_chart(found), bytes_chart(found)] if len(found) > 1 else []
    environment = Environment(
        loader=PackageLoader("pith", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"code": _code, "breakable": _breakable}
    return environment.get_template("page.html").render(
        question=study.question,
        verdict=verdict(study),
        table=table(study),
        reading=READING,
        charts=charts,
        styles=styles(found),
        notes=_notes(found, study.refused),
        settings=_settings({**found[0].measurement.environment, **study.question.settings, **study.question.costs}),
        command=command,
    )


def write(study: Study, directory: str | Path, command: str) -> Path:
    """Writes the page into the folder, whole or not at all, and returns its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = Path(directory) / FILE
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(render(study, command), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


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
    differing = sorted({k for row in found for k, v in row.measurement.environment.items() if first.get(k) != v})
    if differing:
        notes.append(f"Not all rows were measured in the environment below; they differ in {', '.join(differing)}.")
    return notes


def _settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was set and where it ran, as words; nested values in one line."""
    return [(key.replace("_", " "), _plain(value)) for key, value in values.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
