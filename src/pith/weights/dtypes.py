"""The dtypes of the tensors of a saved model: what a folder says of them, and what its file holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pith.core import ModelError


def other_dtypes(model: Any) -> dict[str, str]:
    """Return the dtypes of a model's floating-point tensors that are not in the model's own dtype, by name."""
    return {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and tensor.dtype != model.dtype
    }


def read_dtypes(said: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """Return what a folder's `config.json` says under "dtypes"; folders of earlier versions say nothing.

    Raises:
        AttributeError, TypeError: it says something else than dtypes.
    """
    found = {name: getattr(torch, kind) for name, kind in said.get("dtypes", {}).items()}
    if not all(isinstance(kind, torch.dtype) for kind in found.values()):
        raise TypeError('"dtypes" holds something that is not a dtype')
    return found


def require_dtypes(
    model: Any,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    own: torch.dtype,
    others: Mapping[str, torch.dtype],
    folder: Path,
) -> None:
    """Compare the tensors of a file with what the folder says of them, and give the model's tensors their dtypes.

    A tensor that was saved in another dtype than the model's keeps that dtype whichever the model is loaded in, and
    what Transformers keeps in float32 in that dtype is float32 here too.

    Args:
        model: built in `dtype`, before its tensors are loaded.
        tensors: of the file.
        dtype: in which the model is loaded.
        own: in which it was saved.
        others: dtypes of the tensors that were saved in another one, by name.
        folder: where the file lies, for the message.

    Raises:
        ModelError: a tensor of the file has another dtype or shape than the folder says.
    """
    parts, kept = model.state_dict(keep_vars=True), _kept_in_float32(model, dtype)
    for name, tensor in tensors.items():
        if (part := parts.get(name)) is None:
            continue
        expected = others.get(name) or (own if part.dtype == dtype else part.dtype)
        if tensor.dtype != expected or tensor.shape != part.shape:
            raise ModelError(
                f"the weights of {folder} do not fit: {name} is {_said(tensor.dtype, tensor)}, and config.json says "
                f"{_said(expected, part)}; save the model again"
            )
        if name in others:
            part.data = part.data.to(expected)
        elif dtype != own and part.is_floating_point() and any(pattern.search(name) for pattern in kept):
            part.data = part.data.float()


def _kept_in_float32(model: Any, dtype: torch.dtype) -> list[re.Pattern[str]]:
    """Return patterns of the tensors that `from_pretrained` keeps in float32 when it loads in a dtype."""
    parts: set[str] = set()
    if dtype in (torch.float16, torch.bfloat16):
        parts |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        parts |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return [re.compile(rf"(^|\.){re.escape(part)}(\.|$)") for part in sorted(parts)]


def _said(dtype: torch.dtype, tensor: Tensor) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(tensor.shape)}"
