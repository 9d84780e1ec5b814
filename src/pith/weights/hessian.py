"""What a linear layer reads, as the second moments that layer-wise methods need."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class SecondMoments:
    """H = 2 / count * sum over tokens of r x x^T: the Hessian of the squared error of a layer's outputs.

    Attributes:
        matrix: the sum, not yet divided: [in, in].
        tokens: how many were read.
    """

    def __init__(self, inputs: int, device: torch.device | str = "cpu") -> None:
        self.matrix: Float[Tensor, "in in"] = torch.zeros(inputs, inputs, device=device)
        self.tokens = 0

    def add(self, rows: Float[Tensor, "token in"], importance: Float[Tensor, token] | None = None) -> None:
        """Counts tokens in, each with its importance, 1 by default."""
        rows = rows.float()
        left = rows if importance is None else rows * importance[:, None].to(rows)
        self.matrix.addmm_(left.T, rows)
        self.tokens += len(rows)

    def hessian(self, count: int) -> Float[Tensor, "in in"]:
        """The Hessian, where `count` is what the sum is divided by: sequences in the authors' code."""
        return self.matrix * (2 / count)


def inverse_factor(hessian: Float[Tensor, "in in"], damping: float = 0.01, tries: int = 8) -> Float[Tensor, "in in"]:
    """The upper Cholesky factor U of the inverse, H^-1 = U^T U, with damping * mean(diag H) added to the diagonal.

    Of columns j.. the first row of the inverse of what is left of H is U[j, j:] U[j, j]. Where that is not enough to
    make the matrix positive, ten times the damping is added, so many times as `tries` allows.

    Raises:
        ValueError: it was not enough.
    """
    mean = hessian.diagonal().mean().clamp(min=torch.finfo(hessian.dtype).tiny)
    for attempt in range(tries):
        damped = hessian + torch.eye(len(hessian), device=hessian.device) * (damping * 10**attempt * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed:
                return upper
    raise ValueError(f"a matrix of {len(hessian)} inputs could not be inverted")
