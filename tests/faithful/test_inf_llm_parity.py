"""InfLLM reads, chooses and represents what the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pith.attention import LayerCache, Step
from pith.attention.call import Call
from pith.cache.inf_llm import InfLLM
from pith.core import Recipe

FIXTURE = json.loads((Path(__file__).parent / "inf_llm.json").read_text())
CONTEXTS = [case for case in FIXTURE["cases"] if case["kind"] == "context"]


class Watched(InfLLM):
    """Writes down what is chosen; its name is no other method's."""

    def choose(self, step: Step) -> torch.Tensor:
        chosen = super().choose(step)
        CHOSEN.append(sorted(chosen[0][chosen[0] >= 0].tolist()))
        return chosen


CHOSEN: list[list[int]] = []


def read(case: dict[str, Any]) -> tuple[torch.Tensor, LayerCache]:
    """The case's tokens through one layer of a model that rotates as the case does."""
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    config = LlamaConfig(
        hidden_size=8 * query.shape[1],
        num_attention_heads=query.shape[1],
        num_key_value_heads=keys.shape[1],
        head_dim=8,
        num_hidden_layers=1,
        vocab_size=4,
        intermediate_size=4,
        rope_parameters={"rope_type": "default", "rope_theta": case["rope_base"]},
    )
    model = LlamaForCausalLM(config)
    method = Watched(
        block_size=case["block"],
        n_init=case["n_init"],
        n_local=case["n_local"],
        topk=case["topk"],
        repr_topk=case["representatives"],
        exec_block_size=case["execution"],
    )
    layer = Recipe([method]).cache(model).layers[0]
    rotary, module = layer.answers.rotary, model.model.layers[0].self_attn
    tables = rotary.tables(torch.arange(query.shape[2])[None], query)
    query, keys = rotary.rotate(module, query, tables), rotary.rotate(module, keys, tables)
    outs, prompt = [], case["prompt"]
    CHOSEN.clear()
    for start, end in [(0, prompt), *((i, i + 1) for i in range(prompt, query.shape[2]))]:
        call = Call(module, None, torch.arange(start, end)[None], None, None, None, 0.0)
        outs.append(layer.attend(call, *(x[:, :, start:end] for x in (query, keys, values))))
    return torch.cat(outs, dim=2)[0], layer


@pytest.mark.parametrize("case", CONTEXTS, ids=["grouped", "one_query", "no_sinks"])
def test_blocks_and_outputs(case: dict[str, Any]) -> None:
    out, layer = read(case)
    once = torch.tensor(case["output_once"] or case["output"])
    assert (out - once).abs().max() < 1e-5
    vectors = torch.tensor(case["block_vectors"]).transpose(0, 1)
    assert (layer.reader.memory["vectors"][0] - vectors).abs().max() < 1e-6
    far = [block["chosen"] for block in case["execution_blocks"] if block["tokens"][1] > case["n_local"]]
    assert far == CHOSEN


@pytest.mark.parametrize("case", [c for c in CONTEXTS if c["output_once"]], ids=["grouped", "no_sinks"])
def test_tokens_are_read_once(case: dict[str, Any]) -> None:
    """The authors' mask lets the first queries of an execution block read some tokens twice; decoded tokens do not."""
    released = torch.tensor(case["output"])
    difference = (read(case)[0] - released).abs().amax(dim=(0, 2))
    prompt = case["prompt"]
    assert difference[prompt:].max() < 1e-5
    assert difference[: case["n_local"]].max() < 1e-5
    assert 0.05 < difference[:prompt].max() < 0.6 * released.abs().max()
    print(difference[:prompt].max(), released.abs().max(), (difference > 1e-5).sum())
