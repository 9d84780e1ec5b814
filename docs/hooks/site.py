"""MkDocs hook: pages that are made from what Pith is, so that none of them is ever stale.

The catalogue comes from the registry and the tests, the commands from the command line, the results from
`benchmarks/results/`. A page that somebody wrote may ask for a generated part by a line: `<!-- options: compare -->` is
a command's options, `<!-- measured: dense; kivi -->` are rows of the table of all cache methods.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs takes a hook from its file, without its neighbours

import catalogue
import commands
import figures

GENERATED = "GENERATED "
OPTIONS = re.compile(r"^<!-- options: (\w+) -->$", flags=re.MULTILINE)
MEASURED = re.compile(r"^<!-- measured: (.+) -->$", flags=re.MULTILINE)


def on_config(config: Any) -> Any:
    """Puts the generated pages into the navigation."""
    parts = {"methods": catalogue.methods_nav, "tasks": catalogue.tasks_nav, "commands": commands.nav}
    for entry in config["nav"]:
        [(title, what)] = entry.items()
        if isinstance(what, str) and what.startswith(GENERATED):
            entry[title] = parts[what.removeprefix(GENERATED)]()
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages; one that somebody wrote goes before."""
    for path, text in pages().items():
        if files.get_file_from_path(path) is None:
            files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts in the generated parts that a page asks for."""
    markdown = OPTIONS.sub(lambda found: commands.options(found[1]), markdown)
    return MEASURED.sub(lambda found: figures.rows_of(found[1].split("; ")), markdown)


def pages() -> dict[str, str]:
    """Every generated page's Markdown, by its path in the site."""
    return {**catalogue.pages(), **commands.pages(), "results.md": figures.page()}
