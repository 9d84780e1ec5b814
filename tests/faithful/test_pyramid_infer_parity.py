"""PyramidInfer keeps what the authors' own code keeps, layer by layer, and cuts decoded tokens as it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention import LayerCache
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.evictor import Evictor
from pith.attention.in_flight import CacheGroup
from pith.cache.pyramid_infer import PyramidInfer
from pith.core import DenseCache

FIXTURE = json.loads((Path(__file__).parent / "pyramid_infer.json").read_text())
CALL = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)


def method_of(config: dict[str, Any]) -> PyramidInfer:
    """Their "linear" is a constant ratio as it runs."""
    words = {k: "constant" if v == "linear" else v for k, v in config.items()}
    ratios = {k: float(v) for k, v in words.items() if k.endswith("ratio") or k == "distance_weight"}
    return PyramidInfer.build(**(words | ratios))


@pytest.mark.parametrize("case", FIXTURE["lengths"], ids=lambda c: f"{c['layers']}-{c['length']}")
def test_lengths(case: dict[str, Any]) -> None:
    method = method_of(case["config"])
    assert [int(n) for n in method.schedule(torch.tensor([case["length"]]), case["layers"])] == case["lengths"]


def test_the_shipped_schedule_holds_what_it_claims() -> None:
    case = FIXTURE["lengths"][0]
    assert PyramidInfer().claimed(DenseCache(tokens=case["length"], layers=32)) == sum(case["lengths"]) / (
        32 * case["length"]
    )


class Model:
    """Layers that attend with the fixture's queries and keys; what goes from layer to layer are positions."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.query, self.keys = torch.tensor(case["query"]), torch.tensor(case["keys"])
        method, depth = method_of(case["config"]), case["layers"]
        layers = [
            LayerCache(i, depth, CacheGroup(range(depth), depth), Answers(evictor=Evictor(method, (i, depth), None)))
            for i in range(depth)
        ]
        self.cache = SimpleNamespace(layers=layers, left_alone={}, served=lambda: layers)
        self.companion = method.companion()

    def read(self, *positions: int) -> None:
        """One forward."""
        tokens = hidden = torch.tensor([positions])
        self.companion.before(self.cache, tokens)
        for index, layer in enumerate(self.cache.layers):
            given = {"past_key_values": self.cache}
            fewer = self.companion._enter(lambda: self.cache, index, None, (hidden[..., None],), given)
            hidden = hidden if fewer is None else fewer[0][0][..., 0]
            query, keys = (x[index][None, :, hidden[0]] for x in (self.query, self.keys))
            layer.attend(CALL, query, keys, keys)
        self.companion.after(self.cache, tokens, None, hidden[..., None].float())

    def held(self) -> list[list[int]]:
        """The positions that each layer holds."""
        return [layer.store.positions[0, 0].tolist() for layer in self.cache.layers]


def name_of(case: dict[str, Any]) -> str:
    return f"{case['layers']}-{case['length']}+{case['steps']}"


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=name_of)
def test_kept_positions(case: dict[str, Any]) -> None:
    model = Model(case)
    model.read(*range(case["length"]))
    assert model.held() == case["held"]
    assert [layer.seen for layer in model.cache.layers] == [case["length"]] * case["layers"]


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=name_of)
def test_scores(case: dict[str, Any]) -> None:
    method = replace(method_of(case["config"]), streamingllm_sink_len=0)
    for layer, (held, expected) in enumerate(zip(case["held"], case["scores"], strict=True)):
        query, keys = (torch.tensor(case[x])[layer][None, :, held] for x in ("query", "keys"))
        scores = method.score(step(query, keys, positions=torch.tensor([[held]], dtype=torch.int32)))[0, 0]
        assert scores[: len(expected)].tolist() == pytest.approx(expected, abs=1e-6)
        assert scores[len(expected) :].isinf().all()


@pytest.mark.parametrize("case", [c for c in FIXTURE["cases"] if c["steps"]], ids=name_of)
def test_decoded_tokens(case: dict[str, Any]) -> None:
    model, before = Model(case), case["held"]
    trims = {(trim["step"], trim["layer"]): trim for trim in case["trims"]}
    model.read(*range(case["length"]))
    for position in range(case["length"], case["length"] + case["steps"]):
        model.read(position)
        for layer, held in enumerate(model.held()):
            trim = trims.get((position, layer))
            expected = [*before[layer], position]
            if trim is not None:
                gone = set(trim["candidates"]) - set(trim["kept_candidates"])
                expected = [p for p in expected if p not in gone]
                assert len(held) == trim["length"]
            assert held == expected
        before = model.held()
    assert before == case["held_at_end"]
