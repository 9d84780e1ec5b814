"""Transformers' own runtime for packed GGUF weights, on the weights of a Llama, as a peer that takes its turns.

It acts only where Transformers keeps the file's architecture packed and where the hub has a kernel for the device. What
it turned into dense layers is no peer: the reason is given instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GgufConfig

from llama_cpp_peer import write

KINDS = ("q8_0", "q4_0")


def packed_models(model: Any, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the models whose weights Transformers keeps packed, and why it does not keep the others so, by name."""
    found, absent = {}, {}
    for kind in KINDS:
        name, reason = f"Transformers GGUF {kind}", why_dense()
        if not reason:  # else it would make dense layers, which are timed already
            path = folder / f"packed.{kind}.gguf"
            write(model, path, kind)
            loaded = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=path.name, quantization_config=GgufConfig(), dtype=torch.float32
            ).eval()
            packed = any(type(one).__name__ == "GgufLinear" for one in loaded.modules())
            reason = "" if packed else "no layer was kept packed"
            found |= {name: loaded} if packed else {}
        absent |= {name: reason} if reason else {}
    return found, absent


def why_dense() -> str:
    """Return why Transformers makes dense layers of a Llama's GGUF weights; empty if it keeps them packed."""
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
    from transformers.integrations.gguf.kernels import get_gguf_kernel

    reasons = []
    if "llama" not in GGUF_ARCHS:
        reasons.append(f"it keeps {', '.join(sorted(GGUF_ARCHS))} packed, and not llama")
    if not get_gguf_kernel():
        reasons.append("there is no kernel for packed weights here")
    return "; ".join(reasons)
