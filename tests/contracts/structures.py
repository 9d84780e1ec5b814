"""Models of four blocks of many architectures, and the check that what is left of one is right everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, hybrid, tokens
from pith.weights import blocks, stand_ins
from pith.weights.duplicate import duplicate
from pith.weights.folder import as_saved, load_folder
from pith.weights.size import weight_bytes

FOUR = {**COMMON, "num_hidden_layers": 4}
TYPES = ["sliding_attention", "full_attention"] * 2


def smollm3() -> hf.PreTrainedModel:
    """One whose layers rotate or not, by a list."""
    return hf.SmolLM3ForCausalLM(
        hf.SmolLM3Config(**FOUR, num_key_value_heads=2, no_rope_layers=[1, 0, 1, 1], use_sliding_window=False)
    )


def gemma3() -> hf.PreTrainedModel:
    return hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=16, layer_types=TYPES
        )
    )


def gpt_oss() -> hf.PreTrainedModel:
    model = hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=16,
            layer_types=TYPES,
        )
    )  # fmt: skip
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def moe(**more: Any) -> hf.PreTrainedModel:
    """Experts in some blocks, an MLP in the others."""
    return hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
            **more,
        )
    )  # fmt: skip


def gemma3_composite() -> hf.PreTrainedModel:
    """A language model beside a vision tower, in one configuration."""
    text = {
        **FOUR, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16,
        "layer_types": TYPES,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )


MAKERS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**FOUR, num_key_value_heads=2, head_dim=16)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**FOUR, num_key_value_heads=2, head_dim=16)),
    "mistral_sliding": lambda: hf.MistralForCausalLM(
        hf.MistralConfig(**FOUR, num_key_value_heads=2, head_dim=16, sliding_window=16)
    ),
    "gemma3": gemma3,
    "gemma3_composite": gemma3_composite,
    "gpt_oss": gpt_oss,
    "smollm3": smollm3,
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**FOUR, num_key_value_heads=2)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**FOUR)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_positions=128, n_embd=64, n_layer=4, n_head=4)),
    "moe": lambda: moe(mlp_only_layers=[1, 3]),
    "qwen3_next": lambda: hybrid(["linear_attention", "full_attention"] * 2),
}
DROPPING = ["llama", "qwen3", "mistral_sliding", "gemma3", "gemma3_composite", "gpt_oss", "smollm3", "phi3", "moe"]
PLAIN = ["llama", "qwen3", "mistral_sliding", "gemma3", "gemma3_composite", "smollm3"]


@cache
def made(name: str) -> Any:
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def own(name: str) -> Any:
    return duplicate(made(name))


@torch.no_grad()
def check(model: Any, folder: Path) -> torch.Tensor:
    """Cache, generation, Pith's cache and folder agree with a forward without a cache; its logits."""
    as_saved(model)
    ids = tokens(2, 22)  # more than the sliding windows
    logits = model(ids, use_cache=False).logits
    out = model(ids[:, :18], use_cache=True)
    steps = [out.logits]
    for index in range(18, 22):
        steps.append(model(ids[:, index : index + 1], past_key_values=out.past_key_values).logits)
    assert torch.allclose(torch.cat(steps, 1), logits, atol=1e-4)
    greedy = ids
    for _ in range(3):
        greedy = torch.cat([greedy, model(greedy, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    ask = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **ask), greedy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pith.PithWarning)  # of layers with a window
        with pith.applied(model, "snapkv(budget=1.0)"):
            assert torch.equal(model.generate(ids, **ask), greedy)
    model.save_pretrained(folder)
    back = load_folder(folder) if stand_ins(model) else type(model).from_pretrained(folder)
    assert torch.equal(back(ids, use_cache=False).logits, logits)
    assert torch.equal(back.generate(ids, **ask), greedy)
    assert weight_bytes(blocks(back)) == weight_bytes(blocks(model))
    return logits


def without(name: str, gone: dict[int, set[str]]) -> torch.Tensor:
    """The logits of the whole model in which parts of blocks give nothing; "block" passes by."""
    model, handles = made(name), []
    names = {"attention": ("self_attn",), "mlp": ("mlp",)}
    norms = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}

    def nothing(module: Any, args: Any, output: Any) -> Any:
        return (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0

    def pass_by(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    for index, which in gone.items():
        block = blocks(model)[index]
        for part in which:
            if part == "block":
                handles.append(block.register_forward_hook(pass_by, with_kwargs=True))
                continue
            behind = norms[part] if hasattr(block, "post_feedforward_layernorm") else names[part][0]
            handles.append(getattr(block, behind).register_forward_hook(nothing))
    with torch.no_grad():
        logits = model(tokens(2, 22), use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits
