"""Budgets: how much of the cache a method may hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from pith.core.errors import ParameterError

Budget: TypeAlias = float | int | str
"""A share of the prompt (`0.25`), a count of tokens (`1024`), or bytes for one sequence (`"64MiB"`)."""

ALLOWED = 'a share of the prompt in (0, 1], a token count (an integer of 1 or more), or bytes such as "64MiB"'

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class ParsedBudget:
    """A budget taken apart: exactly one of the three is set."""

    share: float | None = None
    tokens: int | None = None
    bytes: int | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is ever to be dropped (a share of 1.0)."""
        return self.share == 1.0


def parse_bytes(text: str) -> int:
    """`"64MiB"` as a number of bytes.

    Raises:
        ParameterError: the text is no positive number with one of the units B, KB, MB, GB, KiB, MiB, GiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B)\s*", text, flags=re.IGNORECASE)
    count = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if count < 1:
        raise ParameterError(
            f'{text!r} is no size; allowed is a positive number and a unit, such as "64MiB" or "512KB"'
        )
    return count


def parse_budget(budget: Budget) -> ParsedBudget:
    """Takes a budget apart.

    Raises:
        ParameterError: it is neither a share in (0, 1], nor a token count, nor bytes with a unit.
    """
    if isinstance(budget, bool):
        raise ParameterError(f"budget={budget} makes no sense; allowed is {ALLOWED}")
    if isinstance(budget, str):
        try:
            return ParsedBudget(bytes=parse_bytes(budget))
        except ParameterError:
            raise ParameterError(f"budget={budget!r} makes no sense; allowed is {ALLOWED}") from None
    if isinstance(budget, int) and budget >= 1:
        return ParsedBudget(tokens=budget)
    if isinstance(budget, float) and 0.0 < budget <= 1.0:
        return ParsedBudget(share=budget)
    raise ParameterError(f"budget={budget!r} makes no sense; allowed is {ALLOWED}")
