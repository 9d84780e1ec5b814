"""Recipes that change weights, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from cli.commands import pith_, refused

TASKS = "needle(keys=1),perplexity(scored=4)"
OPTIONS = ["--tasks", TASKS, "--length", "96", "--count", "2", "--budgets", "0.5"]


def test_recipes_that_change_weights_stand_beside_others(model: str, tmp_path: Path) -> None:
    """Also where workers take the answers, and again by the record."""
    text = tmp_path / "text.txt"
    text.write_text("import os and then some more of it\n" * 60)
    recipes = ["--recipe", "rtn(bits=4)", "--recipe", "gptq(bits=4) + snapkv", "--recipe", "snapkv"]
    texts = ["--calibration", str(text), "--calibration-sequences", "4", "--calibration-length", "32"]
    out = tmp_path / "out"
    found = pith_("compare", model, *recipes, *texts, *OPTIONS, "--workers", "2", "--out", str(out), "--json")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert [row["label"] for row in data["rows"]] == [
        "dense", "rtn(bits=4)", "gptq(bits=4) + snapkv(budget=0.5)", "snapkv(budget=0.5)",
    ]  # fmt: skip
    dense, four, both, half = data["rows"]
    assert dense["weights_share"] == half["weights_share"] == 1.0
    assert four["weights_share"] == both["weights_share"] < 1.0
    assert four["cache_share"] == 1.0
    assert both["cache_share"] == half["cache_share"]
    kept = [path for path in (out / "weights").iterdir() if path.is_dir()]
    assert sorted(path.name.split("-")[0] for path in kept) == ["gptq", "rtn"]
    page = (out / "report.html").read_text()
    assert "weights held" in page
    assert "It reads calibration texts before it changes weights." in page
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["calibration"] == str(text)
    assert run["settings"]["calibration_sequences"] == 4
    assert "as its model" in refused("compare", "--from", str(out / "run.json"))
    again = pith_("compare", "--from", str(out / "run.json"), "--trust-files")
    assert again.exit_code == 0, again.output
    assert again.stderr.count("stored earlier") == 4
    text.write_text("another")
    assert "the calibration text" in refused("compare", "--from", str(out / "run.json"), "--trust-files")
