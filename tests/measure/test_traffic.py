"""The bytes that a decoded token must read."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import COMMON, tiny
from pith.core import Recipe
from pith.measure import weight_bytes
from pith.measure.seconds import Run
from pith.measure.traffic import bytes_read, weights_read

FLOAT = 4
RUN = Run(1.0, 1.0, 1000, 1100)


def test_of_a_table_that_is_only_looked_up_one_row_counts() -> None:
    model = tiny("llama_gqa")
    assert not model.config.tie_word_embeddings
    assert weights_read(model) == weight_bytes(model) - 96 * 64 * FLOAT  # 97 rows of 64


def test_a_table_that_is_the_head_too_counts_whole() -> None:
    config = hf.LlamaConfig(**COMMON, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    model = hf.LlamaForCausalLM(config)
    assert weights_read(model) == weight_bytes(model)


def test_learned_positions_are_looked_up_too() -> None:
    torch.manual_seed(0)
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=2, n_positions=50))
    assert weights_read(model) == weight_bytes(model) - 49 * 32 * FLOAT  # the other table is the head


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    model = tiny("olmoe")
    experts = [p for name, p in model.named_parameters() if ".experts." in name]
    assert experts
    left_out = sum(p.numel() for p in experts) * FLOAT // 2  # two of four
    assert weights_read(model) == weight_bytes(model) - 96 * 64 * FLOAT - left_out


def test_experts_that_nobody_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama_gqa")
    monkeypatch.setattr(model.config, "num_experts_per_tok", 2, raising=False)
    assert weights_read(model) is None
    assert bytes_read(model, Recipe(), RUN) is None


def test_the_cache_is_read_as_it_is_held() -> None:
    model = tiny("llama_gqa")
    assert bytes_read(model, Recipe(), RUN) == weights_read(model) + 1000
    # a sliding window that let go of the prompt
    assert bytes_read(model, Recipe(), Run(1.0, 1.0, 1000, 300)) == weights_read(model) + 300


def test_what_a_reading_reads_is_not_known() -> None:
    assert bytes_read(tiny("llama_gqa"), Recipe.parse("quest()"), RUN) is None
