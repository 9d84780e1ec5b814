"""What a configuration from elsewhere may not decide: whose code runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from pith.core import ModelError, PithWarning

_ATTENTION = (None, "eager", "sdpa")
"""The implementations of attention that are PyTorch's and Transformers' own."""

_EXPERTS = (None, "eager", "batched_mm", "grouped_mm")
"""The same of experts."""

_QUANTIZERS = (
    "aqlm", "auto-round", "awq", "bitnet", "bitsandbytes", "compressed-tensors", "gptq", "hqq", "quanto", "torchao",
)  # fmt: skip
"""The quantizers whose code is in Transformers or in a library that the user has installed."""

_DECODED = ("fp8", "mxfp4", "mxfp8")
"""Those that Transformers can decode when it loads the weights; otherwise it fetches kernels from the hub."""

_COUNTS = re.compile(r"^(num|n)_.*(layer|head|expert)(?!.*size)|(layers|heads|experts|head_dim)$")
_MOST = 16384
"""Layers, heads and experts of a model, at most, and elements of a head."""


def trust_nothing(config: Any, name: str) -> None:
    """Change a configuration, in place, so that no code from the hub runs because of it.

    Attention and experts are computed by PyTorch: the names of kernels, which Transformers would download, are dropped
    with a warning. Weights whose quantizer fetches kernels are decoded when they are loaded, or refused. Changes of
    Transformers' classes (`fusion_config`) are dropped.

    Args:
        config: a Transformers configuration.
        name: of the model, for messages.

    Raises:
        ModelError: the weights are quantized in a way that needs code from the hub, or a number of layers, heads or
            experts is so large that the model would never be built.
    """
    for one in _nested(config):
        _check_counts(one, name)
        for what, own in (("_attn_implementation", _ATTENTION), ("_experts_implementation", _EXPERTS)):
            value = getattr(one, what, None)
            if value not in own:
                setattr(one, what, None)
                warnings.warn(
                    f"config.json of {name} names {what.strip('_')} {str(value)[:60]!r}, which is not used: "
                    "attention and experts run in PyTorch",
                    PithWarning,
                    stacklevel=2,
                )
        if getattr(one, "fusion_config", None) is not None:
            one.fusion_config = None
        _check_quantizer(one, name)


def _check_counts(config: Any, name: str) -> None:
    """Refuse absurd numbers of layers, heads and experts, which would be built one by one until memory is full.

    A layer's width or vocabulary is not one of them, such as Gemma 3n's vocab_size_per_layer_input of 262144.
    """
    for key, value in vars(config).items():
        counted = _COUNTS.search(key) is not None and isinstance(value, int | float)
        if counted and not abs(value) <= _MOST:
            raise ModelError(f"config.json of {name} has {key}={value:.4g}, which is not allowed; at most {_MOST} is")


def _check_quantizer(config: Any, name: str) -> None:
    said = getattr(config, "quantization_config", None)
    if said is None:
        return
    if not isinstance(said, dict):
        said = said.to_dict() if hasattr(said, "to_dict") else {}
    method = said.get("quant_method")
    method = getattr(method, "value", method)
    if said.get("load_in_8bit") or said.get("load_in_4bit"):
        method = "bitsandbytes"
    if method in _DECODED:
        config.quantization_config = {**said, "dequantize": True}
    elif method not in _QUANTIZERS:
        raise ModelError(
            f"the weights of {name} are quantized by {str(method)[:40]!r}, which is not allowed: it may run code from "
            f"the hub; allowed are {', '.join((*_QUANTIZERS, *_DECODED))}"
        )


def _nested(config: Any) -> Iterator[Any]:
    """Yield a configuration and those in it."""
    yield config
    for key in getattr(config, "sub_configs", {}):
        if (inner := getattr(config, key, None)) is not None:
            yield from _nested(inner)
