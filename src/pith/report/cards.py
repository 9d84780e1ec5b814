"""What is known of each method in a comparison: its card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pith
from pith.core import Method, Parameter, Recipe, method
from pith.report.row import each

LAWS = "tests/contracts"
OF_WEIGHTS = "test_compressor_laws.py"


@dataclass(frozen=True)
class Check:
    """A file of tests: its path in the checkout, how many tests it has, and what they hold the method against."""

    path: str
    tests: int
    against: str


@dataclass(frozen=True)
class Card:
    """One method.

    Attributes:
        method: its class, which knows its paper, formula, deviations and parameters.
        parameters: them.
        checks: how it is checked; empty where this installation has no tests beside it.
    """

    method: type[Method]
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]

    @property
    def reads(self) -> str:
        """Of a method that changes weights, whether it reads texts; empty of any other."""
        return reads(self.method)


def cards(recipes: Sequence[Recipe]) -> list[Card]:
    """A card for each method in the recipes, and for those in them, sorted by contract and name."""
    kinds = {type(one) for recipe in recipes for one in each(recipe)}
    return [
        Card(kind, tuple(kind.parameters()), checks(kind)) for kind in sorted(kinds, key=lambda k: (k.contract, k.name))
    ]


def reads(kind: type[Method]) -> str:
    """Of a method that changes weights, whether it reads texts, as a sentence; empty of any other."""
    calibrated = getattr(kind, "calibrated", None)
    if calibrated is None:
        return ""
    return "It reads calibration texts before it changes weights." if calibrated else "It reads no texts."


def checks(kind: type[Method], root: Path | None = None) -> tuple[Check, ...]:
    """The tests of a method that lie in the checkout which is running, found by their names.

    Args:
        kind: the method.
        root: the checkout; None is the one that the package was imported from. A package that was installed without
            its tests has none to show.
    """
    root = root or Path(pith.__file__).parents[2]
    tests = root / "tests"
    if not tests.is_dir() or not _is_registered(kind):
        return ()
    found = [Check(_shown(path, root), _count([path]), "the paper's equation, computed naively")
             for path in sorted(tests.rglob(f"test_{kind.name}.py"))]  # fmt: skip
    found += [Check(_shown(path, root), _count([path]), f"numbers that the authors' code ({kind.paper.code}) gave")
              for path in sorted(tests.rglob(f"test_{kind.name}_parity.py"))]  # fmt: skip
    # what changes weights keeps other laws than what acts while a model reads and writes
    laws = sorted((root / LAWS).glob("test_*_laws.py"))
    laws = [law for law in laws if (kind.order == 0) == (law.name == OF_WEIGHTS)]
    if found and laws:
        found.append(Check(f"{LAWS}/", _count(laws), "the laws that its contract keeps on every architecture"))
    return tuple(found)


def _is_registered(kind: type[Method]) -> bool:
    """Whether it is the package's own: tests of a stranger's method lie elsewhere, whatever their names."""
    return kind.__module__.split(".")[0] == "pith" and method(kind.name) is kind


def _count(paths: Sequence[Path]) -> int:
    return sum(len(re.findall(r"^def test_", path.read_text(encoding="utf-8"), flags=re.MULTILINE)) for path in paths)


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
