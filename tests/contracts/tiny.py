"""Tiny random models of the architectures that the laws run over, built in code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import transformers as hf

COMMON = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "attention_dropout": 0.0,
}


def _llama(kv_heads: int) -> hf.PreTrainedModel:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, num_key_value_heads=kv_heads, head_dim=16))


def _gpt_oss() -> hf.PreTrainedModel:
    model = hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **COMMON,
            num_key_value_heads=2,
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        )
    )
    for layer in model.model.layers:  # random weights leave the sinks where they do nothing
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def hybrid(layer_types: list[str]) -> hf.PreTrainedModel:
    """A Qwen3-Next with a layer of each of these types."""
    return hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(
            **{**COMMON, "num_hidden_layers": len(layer_types)},
            num_key_value_heads=2,
            head_dim=16,
            layer_types=layer_types,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        )
    )


MAKERS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama_mha": lambda: _llama(4),
    "llama_gqa": lambda: _llama(2),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**COMMON, num_key_value_heads=2, head_dim=16)),
    "mistral_sliding": lambda: hf.MistralForCausalLM(
        hf.MistralConfig(**COMMON, num_key_value_heads=2, head_dim=16, sliding_window=16)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **COMMON,
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "gpt_oss": _gpt_oss,
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**COMMON, num_key_value_heads=2)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**COMMON)),
    "olmoe": lambda: hf.OlmoeForCausalLM(
        hf.OlmoeConfig(**COMMON, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2)
    ),
    "qwen3_next": lambda: hybrid(["linear_attention", "full_attention"]),
}

FULL = ["llama_mha", "llama_gqa", "qwen3", "phi3", "gpt_neox", "olmoe"]
"""Those whose every layer is full attention."""


@cache
def tiny(name: str, dtype: torch.dtype = torch.float32) -> hf.PreTrainedModel:
    """The model of that architecture, always the same.

    Matrices are made large enough that what is dropped matters, and the gains of norms uneven, so that no two keys of a
    model that normalises its keys are equally long.
    """
    torch.manual_seed(0)
    model = MAKERS[name]().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random tokens [rows, length], none of them padding."""
    return torch.randint(2, 97, (rows, length), generator=torch.Generator().manual_seed(seed))
