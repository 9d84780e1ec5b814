"""A text read in parts gives the logits of the text read at once."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import tiny, tokens
from pith.core import ModelError
from pith.tasks.stream import Stream


@pytest.mark.parametrize("name", ["llama_gqa", "gpt_neox", "qwen3_next", "mistral_sliding"])
def test_parts_are_as_good_as_the_whole(name: str) -> None:
    model, text = tiny(name), tokens(2, 12)
    stream = Stream(model)
    found = [stream.read(text[:, :9])] + [stream.read(text[:, i : i + 1]) for i in range(9, 12)]
    with torch.no_grad():
        whole = model(text).logits
    assert torch.stack(found, dim=1).shape == (2, 4, 97)
    torch.testing.assert_close(torch.stack(found, dim=1), whole[:, 8:], atol=1e-3, rtol=1e-3)
    assert stream.cache.get_seq_length() == 12


def test_several_tokens_at_once_give_the_logits_after_each() -> None:
    model, text = tiny("llama_gqa"), tokens(2, 12)
    stream = Stream(model)
    stream.read(text[:, :5])
    with torch.no_grad():
        whole = model(text).logits
    torch.testing.assert_close(stream.read_each(text[:, 5:9]), whole[:, 5:9], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(stream.read_each(text[:, 9:]), whole[:, 9:], atol=1e-3, rtol=1e-3)


def test_a_model_without_a_cache_of_keys_and_values_is_refused() -> None:
    shape = {"vocab_size": 97, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    with pytest.raises(ModelError, match="MambaForCausalLM gives no key-value cache back"):
        Stream(hf.MambaForCausalLM(hf.MambaConfig(**shape)).eval()).read(tokens(1, 4))
