"""Refusing gradients where a cache no longer has what they need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pith.core import InputError


def guard(out: Tensor, cut_by: str) -> Tensor:
    """Return an attention's output; its gradient raises where some of what was read is cut off from its tokens.

    Forwards without a backward pass, which are most, are not refused.

    Args:
        out: the output.
        cut_by: the method that has packed or reread pairs without their gradients.
    """
    if not torch.is_grad_enabled():
        return out
    out = out if out.requires_grad else out.detach().requires_grad_()  # else the gradient would be 0 without a word
    guarded: Tensor = _Refused.apply(out, cut_by)  # type: ignore[no-untyped-call]
    return guarded


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, cut_by: str) -> Tensor:
        ctx.cut_by = cut_by
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise InputError(
            f"gradients do not pass through what {ctx.cut_by} holds: read the text under torch.no_grad(), or use a "
            f"recipe without {ctx.cut_by}"
        )
