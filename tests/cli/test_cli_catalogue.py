from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cli.commands import pith_, refused
from core.families import registered
from pith.core import methods
from pith.tasks import tasks


def test_methods_are_listed() -> None:
    found = pith_("methods")
    assert found.exit_code == 0
    assert all(name in found.stdout for name in methods())
    assert "2404.14469" in found.stdout


def test_every_method_has_a_whole_card_as_json() -> None:
    cards = json.loads(pith_("methods", "--json").stdout)
    assert [card["name"] for card in cards] == list(methods())
    for card in cards:
        assert set(card) == {
            "name", "contract", "question", "calibrated", "paper", "summary", "formula", "deviations", "parameters",
        }  # fmt: skip
        assert card["summary"]
        assert card["paper"]["title"]
        assert {"arxiv", "title", "authors", "year", "code", "url"} == set(card["paper"])
        assert all(p["allowed"] and p["doc"] for p in card["parameters"])


def test_a_methods_card_names_paper_formula_parameters_and_deviations() -> None:
    shown = pith_("methods", "snapkv").stdout
    for text in ("https://arxiv.org/abs/2404.14469", "softmax(q_i K^T", "kernel", "an odd int", "grouped queries"):
        assert text in shown
    card = json.loads(pith_("methods", "snapkv", "--json").stdout)
    assert card["paper"]["arxiv"] == "2404.14469"
    assert next(p for p in card["parameters"] if p["name"] == "window")["default"] == 32
    assert next(p for p in card["parameters"] if p["name"] == "budget")["sweep"] == [0.02, 1.0]
    assert "0.02 to 1.0" in shown


def test_a_parameter_that_is_a_method_is_shown_as_its_text() -> None:
    with registered():
        shown = pith_("methods", "per_head").stdout
        card = json.loads(pith_("methods", "per_head", "--json").stdout)
    assert "snapkv()" in shown
    assert "an eviction or an" in shown
    assert card["parameters"][0] == {
        "name": "of",
        "kind": "eviction or allocation",
        "default": "snapkv()",
        "allowed": "an eviction or an allocation, such as snapkv",
        "sweep": [],
        "doc": "whose pairs are kept",
    }


def test_tasks_are_listed_and_have_cards() -> None:
    assert all(name in pith_("tasks").stdout for name in tasks())
    cards = json.loads(pith_("tasks", "--json").stdout)
    assert [card["name"] for card in cards] == list(tasks())
    needle = json.loads(pith_("tasks", "needle", "--json").stdout)
    assert needle["higher_is_better"] is True
    assert "length" in {p["name"] for p in needle["parameters"]}
    assert "exp(mean" in pith_("tasks", "perplexity").stdout


def test_an_unknown_name_is_one_line() -> None:
    assert "did you mean 'snapkv'?" in refused("methods", "snapkw")
    assert "no task is called" in refused("tasks", "needles", "--json")


@pytest.mark.parametrize("command", [[], ["compare"], ["generate"], ["methods"], ["tasks"]])
def test_every_help_has_an_example(command: list[str]) -> None:
    found = pith_(*command, "--help")
    assert found.exit_code == 0
    assert f"Example: pith {' '.join(command)}" in found.stdout


def test_the_version() -> None:
    assert pith_("--version").stdout == "pith 0.1.0\n"


def test_without_a_command_the_help_is_shown() -> None:
    assert "generate" in pith_().output


def test_an_unknown_option_is_a_mistake_too() -> None:
    found = pith_("compare", "--budget", "0.5")
    assert found.exit_code == 2
    assert "No such option" in found.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pith", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == "pith 0.1.0\n"


def test_the_help_imports_nothing_heavy() -> None:
    code = "import sys, pith.cli; print([m for m in ('torch', 'transformers', 'altair', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
