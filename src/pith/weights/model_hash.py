"""A short name for what a model is: its configuration and its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_SAMPLE = 1 << 16
"""The most elements of one tensor that are looked at."""

_VOLATILE = ("_name_or_path", "transformers_version")
"""What a configuration says of where it lay and who wrote it."""


def model_hash(model: Any) -> str:
    """16 hexadecimal digits that differ where configurations or weights differ; where the model lay plays no part.

    So that large models take seconds, a tensor of more than 65536 elements is sampled: of its flattened elements every
    stride-th goes in, with the smallest stride that leaves at most 65536. A change that touches none of them is not
    seen; no training leaves so many elements alone.
    """
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()[:16]


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: of their names, shapes, dtypes and all their bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hexadecimal digits that differ where tokenizers cut texts differently, or write chats differently."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    parts = [fast.to_str() if fast else sorted(tokenizer.get_vocab().items()), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _sample(tensor: Tensor) -> bytes:
    stride = -(-tensor.numel() // _SAMPLE)
    sample = tensor.detach().reshape(-1)[:: max(stride, 1)].cpu().contiguous()
    return sample.view(torch.uint8).numpy().tobytes()
