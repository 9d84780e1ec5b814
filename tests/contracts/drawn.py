"""Llamas whose every number is drawn from a seed by rules that stand here, so that fixtures can name them."""

from __future__ import annotations

import torch
import transformers as hf

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip


def drawn(seed: int, scale: float = 0.25, **shape: object) -> hf.LlamaForCausalLM:
    """A Llama of SHAPE: matrices normal times a scale, vectors 1 plus a tenth of that, biases as matrices, by name."""
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**{**SHAPE, **shape})).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            vector = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.1 * noise if vector else scale * noise)
    return model


def drawn_tokens(rows: int, length: int, seed: int) -> torch.Tensor:
    """Random tokens [rows, length]."""
    return torch.randint(2, 97, (rows, length), generator=torch.Generator().manual_seed(seed))
