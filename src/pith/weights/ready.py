"""What a model and a calibration must be before a method changes weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pith.core import InputError, ModelError
from pith.weights.calibration import Calibration


def require_in_memory(model: Any) -> None:
    """Refuse a model of which tensors are on no device, such as layers that a device map left on the disk.

    Raises:
        ModelError: a parameter or buffer is a "meta" tensor.
    """
    away = [name for held in (model.named_parameters(), model.named_buffers()) for name, one in held if one.is_meta]
    if away:
        raise ModelError(
            f"{type(model).__name__} has {len(away)} tensors that are not in memory (on 'meta' or offloaded), such as "
            f"{away[0]}; load it without device_map, or with one that leaves no layer on the disk"
        )


def require_finite(model: Any, name: str) -> None:
    """Raise if a weight is NaN or infinite; every tensor is read once.

    Args:
        model: a Transformers model.
        name: of the model, for the message.

    Raises:
        ModelError: a tensor of the model's state holds such a value; the message names it.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and tensor.numel() and not _is_finite(tensor):
            exact = tensor.float() if tensor.itemsize < 2 else tensor
            wrong = int((~exact.isfinite()).sum())
            raise ModelError(
                f"the weights of {name} hold NaN or infinite values: {wrong} of {tensor.numel()} in {key}, "
                f"as {str(tensor.dtype).removeprefix('torch.')}"
            )


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite: the extremes are, and NaN spreads to them."""
    if tensor.itemsize < 2:  # PyTorch has no extremes of 8-bit floats
        return bool(tensor.float().isfinite().all())
    least, most = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(least) and torch.isfinite(most))


def require_known_tokens(model: Any, calibration: Calibration) -> None:
    """Refuse a calibration that the model cannot read, or from which nothing can be predicted.

    Raises:
        InputError: sequences have one token only, or a token is outside the model's vocabulary.
    """
    tokens = calibration.tokens
    if not tokens.numel():
        return
    if tokens.shape[1] < 2:
        raise InputError("calibration sequences of 1 token; allowed are 2 or more, since methods predict the next one")
    rows = model.get_input_embeddings().weight.shape[0]
    if int(tokens.min()) < 0 or int(tokens.max()) >= rows:
        wrong = int(tokens.max()) if int(tokens.max()) >= rows else int(tokens.min())
        raise InputError(
            f"the calibration holds token {wrong}; {type(model).__name__} has the tokens 0 to {rows - 1}: make it with "
            "the model's own tokenizer"
        )
