"""Expected Attention computes, and keeps, what the authors' own code does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from contracts.steps import step
from pith.attention import Step
from pith.attention.evictor import best
from pith.attention.rotary import Rotor
from pith.attention.self_check import check
from pith.cache.expected_attention import ExpectedAttention

FIXTURE = json.loads((Path(__file__).parent / "expected_attention.json").read_text())
every_case = pytest.mark.parametrize(
    "case", FIXTURE["cases"], ids=lambda c: f"{c['model']}-{c['length']}-{c['heads']}-{c['n_future']}"
)


def prompt(case: dict[str, Any]) -> Step:
    """The layer's step after the prompt: queries rotated by the model's own code."""
    config, model = {
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM),
    }[case["model"]]
    built = model(
        config(
            hidden_size=len(case["hidden"][0]),
            intermediate_size=8,
            vocab_size=8,
            num_hidden_layers=1,
            num_attention_heads=case["heads"],
            num_key_value_heads=case["kv_heads"],
            head_dim=case["head_dim"],
            rope_parameters={"rope_type": "default", "rope_theta": case["rope_theta"]},
        )
    )
    module = built.model.layers[0].self_attn
    query = torch.tensor(case["hidden"]) @ torch.tensor(case["q_weight"]).T
    query = query.view(1, case["length"], case["heads"], case["head_dim"]).transpose(1, 2)
    if case["q_norm"] is not None:
        module.q_norm.weight.data = torch.tensor(case["q_norm"])
        query = module.q_norm(query).detach()
    rotor = Rotor(check(built.eval()).of(0), torch.zeros(1, 1, dtype=torch.long))
    rotated = rotor.rotate(query, torch.arange(case["length"])[None, None])
    return step(rotated, torch.tensor(case["keys"])[None], torch.tensor(case["values"])[None], rotor=rotor)


def method(case: dict[str, Any]) -> ExpectedAttention:
    return ExpectedAttention(n_future_positions=case["n_future"], n_sink=case["n_sink"])


@every_case
def test_mean_and_covariance(case: dict[str, Any]) -> None:
    s = prompt(case)
    mean, covariance = method(case).statistics(s)
    assert (mean[0] - torch.tensor(case["mean"])).abs().max() < 2e-5
    assert (covariance[0] - torch.tensor(case["covariance"])).abs().max() < 2e-5
    mean, covariance = method(case).future(s)
    assert (mean[0] - torch.tensor(case["rotated_mean"])).abs().max() < 2e-5
    assert (covariance[0] - torch.tensor(case["rotated_covariance"])).abs().max() < 2e-5


@every_case
@pytest.mark.parametrize("index", range(5))
def test_scores_and_kept_positions(case: dict[str, Any], index: int) -> None:
    s, variant = prompt(case), case["variants"][index]
    mine = replace(
        method(case),
        use_covariance=variant["use_covariance"],
        use_vnorm=variant["use_vnorm"],
        epsilon=float(variant["epsilon"]),
    )
    scores, first = mine.score(s), case["n_sink"]
    expected = torch.tensor(variant["scores"])
    assert torch.allclose(scores[0, :, first:], expected[:, first:], atol=1e-5, rtol=1e-4)
    assert scores[..., :first].isinf().all()
    for run in variant["runs"]:
        assert best(scores, s.positions, torch.tensor([run["budget"]]))[0].tolist() == run["kept"]
