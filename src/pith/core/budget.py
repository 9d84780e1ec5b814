"""Budgets: how much of the cache a method may hold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

from pith.core.errors import ParameterError, shown

Budget: TypeAlias = float | int | str
"""A share of the prompt (`0.25`), a count of tokens (`1024`), or bytes for one sequence (`"64MiB"`)."""

ALLOWED = 'a share of the prompt in (0, 1], a token count (an integer of 1 or more), or bytes such as "64MiB"'

MOST = 2**63 - 1
"""The largest integer that a parameter takes: more than a tensor's index, or a TOML or a JSON reader, can hold."""

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
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|B)\s*", text, flags=re.IGNORECASE)
    count = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    if not math.isfinite(count) or count > MOST:
        raise ParameterError(f"{shown(text)} is too large a size; allowed are fewer than 2**63 bytes")
    if count < 1:
        raise ParameterError(
            f'{shown(text)} is no size; allowed is a positive number and a unit, such as "64MiB" or "512KB"'
        )
    return int(count)


def parse_budget(budget: Budget) -> ParsedBudget:
    """Takes a budget apart.

    Raises:
        ParameterError: it is neither a share in (0, 1], nor a token count, nor bytes with a unit; or it is 2**63 or
            more.
    """
    wrong = f"budget={shown(budget)} makes no sense; allowed is {ALLOWED}"
    if isinstance(budget, str):
        try:
            return ParsedBudget(bytes=parse_bytes(budget))
        except ParameterError:
            raise ParameterError(wrong) from None
    if isinstance(budget, int) and budget > MOST:
        raise ParameterError(f"budget={shown(budget)} is too large; allowed is {ALLOWED}, below 2**63")
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1:
        return ParsedBudget(tokens=budget)
    if isinstance(budget, float) and 0.0 < budget <= 1.0:
        return ParsedBudget(share=budget)
    raise ParameterError(wrong)
