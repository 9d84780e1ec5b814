from __future__ import annotations

from pathlib import Path

import pytest

from pith.cache.snapkv import SnapKV
from pith.core import Recipe, methods
from pith.report.cards import LAWS, cards, checks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", methods())
def test_what_a_card_says_of_the_tests_is_so(name: str) -> None:
    method = methods()[name]
    if not method.__module__.startswith("pith."):
        pytest.skip("another package's")
    found = checks(method)
    assert found[0].path.endswith(f"/test_{name}.py")
    assert found[-1].path == "tests/contracts/"
    for check in found[:-1]:
        text = (ROOT / check.path).read_text()
        assert check.tests == text.count("\ndef test_") > 0
    parity = [check for check in found if "authors' code" in check.against]
    assert bool(parity) == (ROOT / "tests" / "faithful" / f"test_{name}_parity.py").is_file()
    assert all(method.paper.code in check.against for check in parity)


def test_methods_in_methods_have_cards_too() -> None:
    found = cards([Recipe(), Recipe.parse("ada_kv(tova(budget=0.5)) + kivi")])
    assert [card.method.name for card in found] == ["ada_kv", "tova", "kivi"]


def test_where_no_tests_lie_beside_the_package_none_are_claimed(tmp_path: Path) -> None:
    assert checks(SnapKV, tmp_path) == ()
    (tmp_path / "tests" / "contracts").mkdir(parents=True)
    (tmp_path / "tests" / "contracts" / "test_other_laws.py").write_text("def test_one():\n    pass\n")
    assert checks(SnapKV, tmp_path) == (), "laws alone say nothing of a method without tests of its own"


def test_a_strangers_method_is_not_credited_with_tests_of_the_same_name() -> None:
    class SnapKVOfAnother(SnapKV):
        """A method from elsewhere."""

        name = "snapkv"

    SnapKVOfAnother.__module__ = "another.snapkv"
    assert checks(SnapKVOfAnother) == ()


def test_a_card_says_whether_a_method_that_changes_weights_reads_texts() -> None:
    said = {card.method.name: card.reads for card in cards([Recipe.parse("wanda + rtn + snapkv")])}
    assert said == {
        "snapkv": "",
        "wanda": "It reads calibration texts before it changes weights.",
        "rtn": "It reads no texts.",
    }


def test_what_changes_weights_keeps_laws_of_its_own() -> None:
    laws = {name: {c.path for c in checks(methods()[name])} for name in ("gptq", "snapkv")}
    assert all(f"{LAWS}/" in paths for paths in laws.values())
    counts = {name: next(c.tests for c in checks(methods()[name]) if c.path == f"{LAWS}/") for name in laws}
    assert counts["gptq"] != counts["snapkv"]
