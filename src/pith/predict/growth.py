"""How a cost grows with the length of the text, told from a few lengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch


class Growth:
    """A sum of powers of the length with coefficients of zero or more, by what was measured.

        cost(n) = sum_p c_p n^p,  c_p >= 0

    The coefficients are those of least squares of the relative errors. At a length that was measured, that counts;
    elsewhere the sum does, and not the last measurement alone, whose noise it would carry far.

    Args:
        measured: the cost at each length, one or more.
        powers: the powers of the length; where one length was measured, the first of them is taken.
    """

    def __init__(self, measured: Mapping[int, float], powers: Sequence[int]) -> None:
        self._measured, self._powers = dict(measured), powers
        self.coefficients = _least_squares(self._measured, powers)

    def at(self, length: int) -> float:
        """The cost at a length."""
        if length in self._measured:
            return self._measured[length]
        return math.fsum(c * length**p for c, p in zip(self.coefficients, self._powers, strict=True))


def _least_squares(measured: Mapping[int, float], powers: Sequence[int]) -> list[float]:
    """The best of all sets of powers whose coefficients come out as zero or more: there are few powers."""
    scale = max(measured)
    lengths = torch.tensor([n / scale for n in measured], dtype=torch.float64)
    costs = torch.tensor(list(measured.values()), dtype=torch.float64)
    best, found = float("inf"), [0.0] * len(powers)
    for count in range(1, min(len(powers), len(measured)) + 1):
        for places in itertools.combinations(range(len(powers)), count):
            terms = torch.stack([lengths ** powers[place] for place in places], dim=1) / costs[:, None]
            solved = torch.linalg.lstsq(terms, torch.ones(len(costs), 1, dtype=torch.float64)).solution
            error = float((terms @ solved - 1).square().sum())
            if bool((solved >= 0).all()) and error < best - 1e-12:
                best, found = error, [0.0] * len(powers)
                for place, value in zip(places, solved.flatten().tolist(), strict=True):
                    found[place] = value / scale ** powers[place]
    return found
