"""Every registered method as recipes that the laws can run on tiny models: one that leaves all, one that is tight."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import pith
from pith.attention import Allocation, Eviction, Reading, Retention, Storage

METHODS = pith.methods()

EVICTIONS = [name for name, m in METHODS.items() if issubclass(m, Eviction)]
"""Those that have a budget of their own."""

COMBINATORS = [name for name, m in METHODS.items() if issubclass(m, Allocation)]
"""Those that divide another method's budget."""

RETENTIONS = [name for name, m in METHODS.items() if issubclass(m, Retention)]
STORAGES = [name for name, m in METHODS.items() if issubclass(m, Storage)]
READINGS = [name for name, m in METHODS.items() if issubclass(m, Reading)]

GATES = Path(tempfile.mkdtemp(prefix="pith-gates-")) / "gates.safetensors"
"""Gates of duo_attention for two layers of two key-value heads."""
save_file({"gates": torch.tensor([[0.9, 0.1], [0.2, 0.8]])}, GATES)

BY_SLOT = ["kivi"]
"""Storages whose groups begin at slots, so that a row's groups are others in a padded batch than alone."""

EVERYTHING: dict[str, str] = {
    "duo_attention": "duo_attention(sparsity=0.0)",
    "inf_llm": "inf_llm()",
    "lag_kv": "lag_kv(ratio=1.0)",
    "long_heads": "long_heads(chunk_size=64, attention_length=256)",
    "pyramid_infer": "pyramid_infer(min_context_length=4096)",
    "quest": "quest(token_budget=1.0)",
    "recycled_attention": "recycled_attention(stride=1)",
    "token_select": "token_select()",
}
"""Recipes under which a method without a budget gives the dense model."""

TIGHT: dict[str, str] = {
    "deco_quant": "deco_quant(block=8)",
    "duo_attention": f"duo_attention(sink_size=2, recent_size=6, gates={str(GATES)!r})",
    "inf_llm": "inf_llm(block_size=4, n_init=2, n_local=8, topk=2, repr_topk=2, exec_block_size=4)",
    "kivi": "kivi(group_size=8, residual_length=8)",
    "kv_cache_int8": "kv_cache_int8()",
    "lag_kv": "lag_kv(ratio=0.25, sink_size=4, lag_size=8)",
    "long_heads": "long_heads(chunk_size=4, attention_length=16)",
    "pyramid_infer": "pyramid_infer(min_context_length=4, prefill_decay_ratio=0.5)",
    "quest": "quest(token_budget=8, page_size=4, skip_layers=0)",
    "recycled_attention": "recycled_attention(k=8, stride=3)",
    "think": "think(recent_size=4, window=4)",
    "token_select": "token_select(n_init=2, n_local=4, k=8, chunk=4)",
}
"""Recipes under which a method without a budget does not."""


def at_budget(name: str, budget: object) -> str:
    """An eviction, or the default eviction in a combinator, at a budget."""
    return f"{name}(snapkv(budget={budget}))" if name in COMBINATORS else f"{name}(budget={budget})"


def everything(name: str) -> str:
    """The method where it drops nothing and reads everything."""
    return EVERYTHING.get(name) or at_budget(name, 1.0)


def tight(name: str) -> str:
    """The method where it matters."""
    return TIGHT.get(name) or at_budget(name, 0.3)
