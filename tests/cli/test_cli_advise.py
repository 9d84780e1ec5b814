"""`pith advise`: predictions in words and as JSON, and mistakes in one line."""

from __future__ import annotations

import json

import pytest

from cli.commands import pith_, refused
from pith.cli.advice import sentences
from pith.cli.advise import _readable
from pith.models import load
from pith.predict.advice import Advice, Forecast, Machine, Predicted

QUICK = ("--seconds", "20", "--recipe", "snapkv(window=8)", "--verify")


def test_a_table_the_machine_and_what_to_make_of_it(model: str) -> None:
    found = pith_("advise", model, *QUICK, "--lengths", "64,128")
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("This machine copies ")
    for word in ("FLOP/s", "a step takes", "Predictions for", "snapkv(budget=0.5", "decode", "prefill", "64"):
        assert word in found.stdout
    assert "Predicted at 128 tokens:" in found.stdout
    assert "These are predictions" in found.stdout
    assert "Median error of 4 predictions: bytes" in found.stdout


def test_json_and_nothing_else(model: str) -> None:
    found = pith_("advise", model, *QUICK, "--lengths", "100", "--json")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    predictions = data["predictions"]
    assert predictions["lengths"] == [100]
    assert set(predictions["machine"]) == {"copy", "matrix", "overhead"}
    assert [one["recipe"] for one in predictions["predicted"]] == ["snapkv(window=8)"]
    rows = data["verified"]["rows"]
    assert rows[0]["recipe"] == "dense"
    assert set(data["verified"]["median_error"]) == {"bytes", "prefill", "decode", "prefill_ratio", "decode_ratio"}
    assert abs(data["verified"]["median_error"]["bytes"]) < 0.01
    for row in rows:
        assert row["error"]["decode"] == pytest.approx(row["predicted"]["decode"] / row["measured"]["decode"] - 1)


def test_without_verify_nothing_is_measured(model: str) -> None:
    found = pith_("advise", model, "--seconds", "20", "--family", "storage", "--json")
    data = json.loads(found.stdout)
    assert list(data) == ["predictions"]
    assert data["predictions"]["lengths"] == [256 - 32], "the longest that the model reads"


def test_the_lengths_that_are_asked_for_by_default() -> None:
    loaded = load("builtin")
    assert _readable(loaded) == [1024, 4096 - 32]


def forecast(share: float, prefill: float, decode: float) -> Forecast:
    return Forecast(4096, int(1000 * share), prefill, decode, share, prefill, decode)


def test_sentences_say_who_would_help() -> None:
    kinds = {
        "snapkv()": forecast(0.5, 1.0, 0.7),
        "think()": forecast(0.8, 1.04, 1.0),
        "kivi()": forecast(0.2, 1.1, 1.9),
        "quest()": forecast(1.0, 1.0, 1.5),
        "tova()": forecast(0.99, 1.0, 1.01),
    }
    predicted = tuple(Predicted(recipe, (one,), 3) for recipe, one in kinds.items())
    found = Advice(
        "m", 1, (4096,), Machine(1e10, 1e11, None), Predicted("dense", (forecast(1, 1, 1),), 3), predicted,
        {"kvzip()": "no"}, ("h2o()",), 4, 32, 42.0, (), {},
    )  # fmt: skip
    first, *others = sentences(found)
    assert first == (
        "Predicted at 4096 tokens: would help: snapkv(budget=0.5) and think; would hold less but make it slower: kivi; "
        "would only make it slower: quest; would change little: tova(budget=0.5)."
    )
    assert others[0] == "Cannot be applied: kvzip(): no"
    assert others[1] == "The time was too short for h2o(); give more with --seconds."
    assert others[2].startswith("These are predictions, made in 42 s from 4 of 32 layers, not measurements")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--lengths", "64,x"), "'x' is no length; lengths are numbers of tokens, below 2**63, such as 512,1024"),
        (("--lengths", "0"), "'0' is no length"),
        (("--lengths", "4096"), "a prompt of 4096 tokens and 32 decoded ones takes 4128 tokens"),
        (("--recipe", "snapvk"), "no method is called 'snapvk'; did you mean 'snapkv'?"),
        (("--family", "evictions"), "no family is called 'evictions'"),
        (("--batch", "2", "--verify"), "--batch 2 cannot be verified"),
        (("--recipe", "dense"), "name a recipe with a method"),
    ],
)
def test_mistakes(words: tuple[str, ...], why: str) -> None:
    assert why in refused("advise", "builtin", *words)


def test_help_shows_an_example() -> None:
    found = pith_("advise", "--help")
    assert found.exit_code == 0
    assert "Example: pith advise" in found.stdout
