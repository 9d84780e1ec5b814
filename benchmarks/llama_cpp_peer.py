"""llama-cpp-python on the weights of a Llama in Transformers, as a peer that takes its turns in a benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
"""What GGUF calls the parts of a block."""


def peers(model: Any, folder: Path) -> dict[str, Callable[[torch.Tensor, int], dict[str, float]]]:
    """The model in q8_0 and q4_0, each as something that reads a prompt, decodes and says its seconds."""
    found = {}
    for kind in ("q8_0", "q4_0"):
        path = folder / f"{kind}.gguf"
        write(model, path, kind)
        found[f"llama.cpp {kind}"] = _runner(path)
    return found


def write(model: Any, path: Path, kind: str) -> None:
    """Writes a Llama as GGUF; matrices in the given kind, as q8_0 and q4_0 are defined, norms in float32."""
    import gguf

    config, quantised = model.config, getattr(gguf.GGMLQuantizationType, kind.upper())
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_rope_dimension_count(config.head_dim)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(config.rope_parameters["rope_theta"])
    file.add_vocab_size(config.vocab_size)
    file.add_tokenizer_model("llama")  # it crashes without a vocabulary
    file.add_token_list([f"word{index}" for index in range(config.vocab_size)])
    file.add_token_scores([0.0] * config.vocab_size)
    file.add_token_types([1] * config.vocab_size)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values = tensor.float().numpy()
        if values.ndim == 1:
            file.add_tensor(_named(name), values)
        else:
            file.add_tensor(_named(name), gguf.quants.quantize(values, quantised), raw_dtype=quantised)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _named(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, index, part = name.removesuffix(".weight").split(".", 3)
        return f"blk.{index}.{NAMES[part]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def _runner(path: Path) -> Callable[[torch.Tensor, int], dict[str, float]]:
    from llama_cpp import Llama

    threads = torch.get_num_threads()
    llama = Llama(
        str(path), n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads, use_mmap=False, verbose=False
    )

    def run(prompt: torch.Tensor, decoded: int) -> dict[str, float]:
        llama.reset()
        begin = time.perf_counter()
        llama.eval(prompt[0].tolist())
        read, steps = time.perf_counter(), []
        for index in range(decoded):
            before = time.perf_counter()
            llama.eval([3 + index])
            steps.append(time.perf_counter() - before)
        return {"prefill_seconds": read - begin, "decode_seconds": statistics.median(steps)}

    return run
