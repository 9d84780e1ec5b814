"""SLEB finds what the authors' own code finds, by the same losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.drawn import drawn, drawn_tokens
from pith.pruning.sleb import SLEB
from pith.weights import blocks
from pith.weights.calibration import of_tokens

FIXTURE = json.loads((Path(__file__).parent / "sleb.json").read_text())


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"model-{c['model']}")
def test_losses_and_order(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(case["model"])
    texts = of_tokens(drawn_tokens(case["texts"], case["length"], case["tokens"]).tolist())
    method = SLEB(drop=len(case["order"]), early=case["early"], late=case["late"])
    table: list[list[float]] = []
    own = SLEB._losses

    def losses(*args: Any) -> dict[int, float]:
        found = own(*args)
        table.append([found[seat] for seat in sorted(found)])
        return found

    monkeypatch.setattr(SLEB, "_losses", losses)
    smaller = method.compress(model, texts)
    for mine, theirs in zip(table, case["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-6)
    left = [index for index in range(6) if index not in case["order"]]
    kept = [block.mlp.up_proj.weight.data_ptr() for block in blocks(smaller)]
    assert kept == [blocks(model)[index].mlp.up_proj.weight.data_ptr() for index in left]
