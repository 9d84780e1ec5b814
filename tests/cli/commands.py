"""Calling the command line inside the test's own process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from pith.cli import app


def pith_(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def refused(*words: str) -> str:
    """What a mistake gives: one line, after what was said before the work began."""
    found = pith_(*words)
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    assert any(line.startswith("pith: ") for line in found.stderr.splitlines())
    assert "Traceback" not in found.stderr
    return found.stderr
