"""Parameters take finite numbers below 2**63 and Unicode, and every recipe is read back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pith.cache.lag_kv import LagKV
from pith.cache.quest import Quest
from pith.core import MOST, ParameterError, Patterns, PithError, Recipe, methods, parse_budget
from pith.quantization.rtn import RTN
from pith.study import parse_budgets, parse_lengths
from pith.tasks import parse_tasks

LARGE = ["9223372036854775808", "-99999999999999999999", "0x" + "f" * 4000]


def test_no_float_parameter_takes_what_is_not_finite() -> None:
    tried = 0
    for name, method in methods().items():
        for parameter in method.parameters():
            if "float" in parameter.kind:
                for text in ("1e999", "-1e999"):
                    with pytest.raises(ParameterError, match=f"^{name}: {parameter.name}=-?inf is not allowed"):
                        Recipe.parse(f"{name}({parameter.name}={text})")
                    tried += 1
    assert tried > 50


@pytest.mark.parametrize("number", LARGE, ids=["2**63", "negative", "hexadecimal"])
def test_integers_beyond_63_bits_are_refused(number: str) -> None:
    for text in (f"quest(page_size={number})", f"rtn(bits={{'*': {number}}})", f"lag_kv(score_v_ratio={number})"):
        with pytest.raises(ParameterError, match=r"is too large; allowed are integers below 2\*\*63") as caught:
            Recipe.parse(text)
        assert len(str(caught.value)) < 200
    with pytest.raises(ParameterError, match="too large"):
        parse_tasks(f"needle(seed={number})")
    assert str(Quest(page_size=MOST)) == f"quest(page_size={MOST})"


@pytest.mark.parametrize(
    "text", ["9" * 400 + "GiB", "9" * 5000, "9223372036854775808", "8589934592GiB", "1e999", "nan"]
)
def test_a_budget_that_is_too_large_is_one_line(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_budgets(text)
    assert len(str(caught.value)) < 300
    assert parse_budget("8589934591GiB").bytes == 8589934591 * 2**30


@pytest.mark.parametrize("text", ["64iB", "(" * 500, "[" * 200 + "]" * 200, "-" * 5000, "1+2j", "True", "b'x'", "\0"])
def test_what_is_no_budget_is_one_line(text: str) -> None:
    with pytest.raises(ParameterError):
        parse_budgets(text)


@pytest.mark.parametrize("text", ["9" * 5000, "9223372036854775808", "0", "-1", "1.5", "\u00b2", "x" * 5000])
def test_what_is_no_length_is_one_line(text: str) -> None:
    with pytest.raises(PithError, match="is no length") as caught:
        parse_lengths(f"512,{text}")
    assert len(str(caught.value)) < 300
    assert parse_lengths("512, 1024,") == [512, 1024]


@pytest.mark.parametrize("name", ["cls", "self", "values", "name", "x" * 4000])
def test_names_of_python_are_no_parameters(name: str) -> None:
    for parse in (Recipe.parse, parse_tasks):
        owner = "snapkv" if parse == Recipe.parse else "needle"
        with pytest.raises(ParameterError, match=f"^{owner} has no parameter '{name[:20]}") as caught:
            parse(f"{owner}({name}=1)")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("quest(token_budget=0)", "allowed is a count of 1 or more, or a share above 0.0 and at most 1.0"),
        ("quest(token_budget=0.0)", "allowed is a count of 1 or more"),
        ("quest(token_budget=1.5)", "allowed is a count of 1 or more"),
        ("flexi_gpt(seed=-1)", "allowed is int, 0 or more"),
        ("expected_attention(n_future_positions=2147483647)", "at most 1048576"),
        ("lag_kv(lag_size=2147483647)", "at most 1048576"),
        ("rtn(bits=4.0)", "bits=4.0 is not allowed"),
        ("kivi(bits=True)", "bits=True is not allowed"),
        ("rtn(bits={'*': {'*': 4}})", "is not allowed"),
        ("rtn(skip='\\ud800')", r"skip='\\ud800' is not allowed"),
        ("rtn(skip=('a', 1))", "is not allowed"),
    ],
)
def test_values_that_mean_nothing_are_refused(given: str, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        Recipe.parse(given)


@pytest.mark.parametrize(
    "text", ["it's", 'say "x"', "a\\b", "two\nlines", "\r\t\x7f\0", "\u00e9\U0001f600\u2028", "#", ""]
)
def test_odd_texts_are_read_back(text: str, tmp_path: Path) -> None:
    for method in (RTN(skip=text), RTN(skip=(text, "lm_head")), RTN(bits=Patterns({text: 4, "*": 8}))):
        recipe = Recipe([method, LagKV(ratio=1 / 3)])
        recipe.save(tmp_path / "r.toml")
        for again in (Recipe.parse(str(recipe)), Recipe.load(tmp_path / "r.toml")):
            assert again == recipe
            assert str(again) == str(recipe)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[method]]\nname = 'snapkv'\nbudget = " + "9" * 5000, "a number has too many digits"),
        ("x = " + "[" * 20_000, "it is nested too deeply"),
        ("[[methods]]\nname = 'snapkv'", r"it holds 'methods'; allowed is \[\[method\]\]"),
        ("[[method]]\nname = 'snapkv'\nbudget = inf", "budget=inf makes no sense"),
        ("[[method]]\nname = 'hqq'\nbeta = inf", "beta=inf is not allowed"),
        ("[[method]]\nname = 'snapkv'\nname = 'tova'", "is not TOML: Cannot overwrite"),
        ("#" * (2**20 + 1), "it has 1.00 MiB; allowed are at most 1.00 MiB"),
    ],
    ids=["digits", "depth", "key", "budget", "float", "twice", "size"],
)
def test_what_is_no_recipe_file_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(PithError, match=says) as caught:
        Recipe.load(tmp_path / "r.toml")
    assert len(str(caught.value)) < 300
    (tmp_path / "r.toml").write_text("\ufeff[[method]]\nname = 'snapkv'\n", encoding="utf-8")
    assert str(Recipe.load(tmp_path / "r.toml")) == "snapkv()"


def test_a_syntax_error_shows_a_window_around_its_place() -> None:
    text = "rtn(skip='" + "\u00e9" * 2000 + "', group_size=) + " + "x" * 2000
    with pytest.raises(PithError) as caught:
        Recipe.parse(text)
    first, line, caret = str(caught.value).split("\n")
    assert first.startswith("this is no recipe: ")
    assert len(line) == 62
    assert line[caret.index("^")] == ")"
    assert line[2:] in text


def test_what_decides_bytes_is_named_at_its_default_too() -> None:
    assert str(RTN()) == "rtn(bits=4)"  # the group size comes from the model
    assert str(RTN(group_size=64)) == "rtn(bits=4, group_size=64)"
    assert Recipe.parse("rtn(group_size='auto')") == Recipe.parse(str(RTN()))
    with pytest.raises(ParameterError, match="group_size=-1 is not allowed; allowed is int, 0 or more, or 'auto'"):
        RTN(group_size=-1)
