"""Which codes a quantised weight may have on any processor: where a choice is a tie, the last bits of a sum decide it.

A group that is cut on both sides has the grid from -m to m, whose zero lies halfway between two codes, as do the cut
weights themselves: whether they are rounded up or down depends on the last bit of m, and so on the processor that
multiplied. All such roundings are computed here in float64, and from their errors which cuts could be the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 1e-4
"""How near to the middle between two codes is a tie, in steps of the grid: fixtures hold factors of six digits."""

ERROR = 1e-4
"""By what share two errors may differ that float32 and such factors cannot tell apart."""


@dataclass(frozen=True)
class Outcomes:
    """What could come out for every group, for each cut that is tried and each way in which its ties can fall.

    Attributes:
        reach: the largest absolute weight after the cut: [outcome, out, group].
        low, high: the codes, which are equal but for weights at a tie: [outcome, out, group, member].
        possible: whether a processor could find no better one: [outcome, out, group].
    """

    reach: Tensor
    low: Tensor
    high: Tensor
    possible: Tensor

    def allow(self, codes: Tensor) -> Tensor:
        """Return for every group whether its codes, [out, in], are those of an outcome that is possible."""
        codes = codes.unflatten(1, (-1, self.low.shape[-1])).double()
        within = ((codes >= self.low) & (codes <= self.high)).all(-1)
        return (within & self.possible).any(0)

    def allow_reach(self, reach: Tensor) -> Tensor:
        """Return for every group whether it is cut, [out, group], as in an outcome that is possible."""
        near = (self.reach - reach).abs() <= ERROR * self.reach
        return (near & self.possible).any(0)

    def settled(self) -> Tensor:
        """Return for every group whether each processor must give the same codes."""
        low = torch.where(self.possible[..., None], self.low, torch.inf).amin(0)
        high = torch.where(self.possible[..., None], self.high, -torch.inf).amax(0)
        return (low == high).all(-1)

    def settled_reach(self) -> Tensor:
        """Return for every group whether each processor must find the same cut."""
        low = torch.where(self.possible, self.reach, torch.inf).amin(0)
        return low == torch.where(self.possible, self.reach, -torch.inf).amax(0)


def outcomes(weight: Tensor, moments: Tensor, bits: int, size: int, shares: list[float]) -> Outcomes:
    """Return what could come out of cutting and rounding a weight, [out, in], in float64.

    Args:
        weight: before it is cut; its rows are whole groups.
        moments: the sum of x x^T over what the layer reads.
        bits: of a code.
        size: of a group.
        shares: of the largest absolute weight, at which cuts are tried; [1.0] where nothing is cut.
    """
    groups, largest = weight.double().unflatten(1, (-1, size)), 2**bits - 1
    begins = range(0, len(moments), size)
    inner = torch.stack([moments.double()[begin : begin + size, begin : begin + size] for begin in begins])
    cuts = []
    for share in shares:
        bound = groups.abs().amax(-1, keepdim=True) * share
        cut = groups.clamp(-bound, bound)
        least, most = cut.amin(-1, keepdim=True).clamp(max=0), cut.amax(-1, keepdim=True).clamp(min=0)
        scale = (most - least) / largest
        steps, middle = cut / scale, -least / scale
        for zero in (_down(middle), _up(middle)):
            # weights at the bound have one size, so that those of both signs are rounded in or out together
            for rounded in (_inward(steps), _outward(steps)):
                codes = (rounded + zero).clamp(0, largest)
                rest = scale * (codes - zero) - groups
                error = torch.einsum("ogi,gij,ogj->og", rest, inner, rest)
                low, high = ((one + zero).clamp(0, largest) for one in (_down(steps), _up(steps)))
                cuts.append((cut.abs().amax(-1), low, high, error))
    reach, low, high, errors = (torch.stack(parts) for parts in zip(*cuts, strict=True))
    own = errors.unflatten(0, (len(shares), 4))
    worst = own.amax(1)  # [cut, out, group]
    same = torch.eye(len(shares), dtype=torch.bool)[..., None, None]
    others = worst[None].masked_fill(same, torch.inf).amin(1)  # [cut, out, group], the best of the other cuts
    possible = own <= others[:, None] * (1 + ERROR)
    return Outcomes(reach, low, high, possible.flatten(0, 1))


def _down(steps: Tensor) -> Tensor:
    return (steps + 0.5 - STEP).floor()


def _up(steps: Tensor) -> Tensor:
    return (steps + 0.5 + STEP).floor()


def _inward(steps: Tensor) -> Tensor:
    return _down(steps.abs()) * steps.sign()


def _outward(steps: Tensor) -> Tensor:
    return _up(steps.abs()) * steps.sign()
