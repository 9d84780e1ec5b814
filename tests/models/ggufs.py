"""A small GGUF file of a Llama, with a byte-level tokenizer and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.convert_slow_tokenizer import bytes_to_unicode

CHAT = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
HEADS = 2


def write(path: Path, *, quantized: str = "Q4_1", tokenizer: bool = True) -> Path:
    """Write a Llama of one layer; its matrices in a type of GGUF, its norms in float32."""
    import gguf

    tokens = ["<|endoftext|>", *bytes_to_unicode().values(), "th"]
    config = hf.LlamaConfig(
        vocab_size=len(tokens), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=HEADS
    )
    torch.manual_seed(0)
    kind = getattr(gguf.GGMLQuantizationType, quantized)
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_name("small")
    file.add_context_length(128)
    file.add_embedding_length(64)
    file.add_block_count(1)
    file.add_feed_forward_length(64)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(len(tokens))
    if tokenizer:
        file.add_tokenizer_model("gpt2")
        file.add_tokenizer_pre("default")
        file.add_token_list(tokens)
        file.add_token_types([3] + [1] * (len(tokens) - 1))
        file.add_token_merges(["t h"])
        file.add_eos_token_id(0)
        file.add_chat_template(CHAT)
    for name, tensor in hf.LlamaForCausalLM(config).state_dict().items():
        _add(file, name, tensor, kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def _add(file: Any, name: str, tensor: torch.Tensor, kind: Any) -> None:
    import gguf

    if name.startswith("model.layers."):
        _, _, index, part = name.removesuffix(".weight").split(".", 3)
        name = f"blk.{index}.{NAMES[part]}.weight"
    else:
        name = {
            "model.embed_tokens.weight": "token_embd.weight",
            "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight",
        }[name]
    values = tensor.float().numpy()
    if values.ndim == 1:
        file.add_tensor(name, values)
    else:
        file.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
