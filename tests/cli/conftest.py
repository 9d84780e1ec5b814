from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from pith.models import builtin


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random model of one layer and the built-in tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    _, tokenizer = builtin()
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**shape, num_key_value_heads=1, vocab_size=len(tokenizer), max_position_embeddings=256)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
