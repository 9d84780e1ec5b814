"""A function through points, of which only a few were measured: what a search asks before it measures more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SMOOTHED = 1e-6
"""What is added to the diagonal, so that points that are nearly equal do no harm."""


@dataclass(frozen=True)
class CubicRBF:
    """Cubic radial basis functions with a linear tail.

        f(x) = sum_i c_i |x - x_i|^3 + t_0 + t^T x,    sum_i c_i = 0,  sum_i c_i x_i = 0

    Attributes:
        points: where it was measured, in units of the box.
        weights: c.
        tail: t_0 and t.
    """

    points: Float[Tensor, "point gene"]
    weights: Float[Tensor, " point"]
    tail: Float[Tensor, " term"]

    @classmethod
    def through(cls, points: Float[Tensor, "point gene"], values: Float[Tensor, " point"]) -> CubicRBF:
        """The function through values at points, which may be fewer than it has terms: then the least one."""
        points, values = points.double(), values.double()
        count, terms = len(points), points.shape[1] + 1
        system = torch.zeros(count + terms, count + terms, dtype=torch.float64)
        system[:count, :count] = torch.cdist(points, points).pow(3) + _SMOOTHED * torch.eye(count)
        system[:count, count:] = _linear(points)
        system[count:, :count] = _linear(points).T
        wanted = torch.cat([values, torch.zeros(terms, dtype=torch.float64)])
        found = torch.linalg.lstsq(system, wanted[:, None], driver="gelsd").solution[:, 0]
        return cls(points, found[:count], found[count:])

    def __call__(self, points: Float[Tensor, "point gene"]) -> Float[Tensor, " point"]:
        """The function's values."""
        points = points.double()
        return torch.cdist(points, self.points).pow(3) @ self.weights + _linear(points) @ self.tail


def _linear(points: Float[Tensor, "point gene"]) -> Float[Tensor, "point term"]:
    return torch.cat([torch.ones(len(points), 1, dtype=points.dtype), points], dim=1)
