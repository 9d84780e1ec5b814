"""InfLLM reads, chooses and represents what the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.layers import OneLayer
from pith.attention import Step
from pith.cache.inf_llm import InfLLM

FIXTURE = json.loads((Path(__file__).parent / "inf_llm.json").read_text())
CONTEXTS = dict(
    zip(
        ["grouped", "one_query", "no_sinks"],
        [case for case in FIXTURE["cases"] if case["kind"] == "context"],
        strict=True,
    )
)


def read(case: dict[str, Any], watch: list[list[int]] | None = None) -> tuple[torch.Tensor, OneLayer]:
    """The outputs of the case's tokens, and the layer; what is chosen goes into `watch`."""
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    method = InfLLM(
        block_size=case["block"],
        n_init=case["n_init"],
        n_local=case["n_local"],
        topk=case["topk"],
        repr_topk=case["representatives"],
        exec_block_size=case["execution"],
    )
    one = OneLayer(method, query.shape[1], keys.shape[1], base=case["rope_base"])
    choose = InfLLM.choose

    def watched(step: Step) -> torch.Tensor:
        chosen = choose(method, step)
        if watch is not None:
            watch.append(chosen[0][chosen[0] >= 0].tolist())
        return chosen

    object.__setattr__(method, "choose", watched)
    decoded = query.shape[2] - case["prompt"]
    return one.read(query, keys, values, [case["prompt"], *[1] * decoded])[0], one


@pytest.mark.parametrize("name", CONTEXTS)
def test_blocks_and_outputs(name: str) -> None:
    case, chosen = CONTEXTS[name], []
    out, one = read(case, chosen)
    once = torch.tensor(case["output_once"] or case["output"])
    assert (out - once).abs().max() < 1e-5
    vectors = torch.tensor(case["block_vectors"]).transpose(0, 1)
    assert one.layer.reader is not None
    assert (one.layer.reader.memory["vectors"][0] - vectors).abs().max() < 1e-6
    assert chosen == [b["chosen"] for b in case["execution_blocks"] if b["tokens"][1] > case["n_local"]]


@pytest.mark.parametrize("name", ["grouped", "no_sinks"])
def test_tokens_are_read_once(name: str) -> None:
    """The authors' mask lets the first queries of an execution block read some tokens twice.

    A decoded token does not; here it reads the same blocks too, since the same tokens represent them all the same.
    """
    case = CONTEXTS[name]
    prompt, released = case["prompt"], torch.tensor(case["output"])
    difference = (read(case)[0] - released).abs().amax(dim=(0, 2))
    assert difference[prompt:].max() < 1e-5
    assert difference[: case["execution"]].max() < 1e-5
    assert 0.6 < (difference[:prompt] > 1e-5).float().mean() < 0.7
    apart = (read(case)[0] - released)[:, :prompt].norm() / released[:, :prompt].norm()
    assert 0.14 < apart < 0.18
