"""FLAP ranks, removes and compensates as the authors' own code; where it deviates, by how much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.drawn import drawn, drawn_tokens
from pith.pruning import flap
from pith.pruning.flap import FLAP, Fluctuation
from pith.weights import blocks, parts
from pith.weights.calibration import of_tokens

FIXTURE = json.loads((Path(__file__).parent / "flap.json").read_text())


def as_coded(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and fluctuation as the authors keep them, one text after another."""
    mean = fluctuation = torch.zeros(batches[0].shape[1])
    for seen, rows in enumerate(batches):
        mean = mean * seen / (seen + 1) + rows.mean(0) / (seen + 1)
        if seen:
            fluctuation = fluctuation * (seen - 1) / seen + (rows - mean).square().sum(0) / (seen + 1)
    return mean, fluctuation


def test_the_authors_running_fluctuation_is_no_variance_and_ours_is() -> None:
    batches = [torch.tensor(batch) for batch in FIXTURE["running"]["batches"]]
    mean, fluctuation = as_coded(batches)
    assert mean.tolist() == pytest.approx(FIXTURE["running"]["mean"], abs=1e-6)
    assert fluctuation.tolist() == pytest.approx(FIXTURE["running"]["fluctuation"], rel=1e-5)
    ours = Fluctuation(6, torch.device("cpu"))
    for batch in batches:
        ours.add(batch)
    assert ours.mean.tolist() == pytest.approx(FIXTURE["running"]["mean"], abs=1e-6)
    assert ours.variance.tolist() == pytest.approx(torch.cat(batches).var(0).tolist(), rel=1e-5)
    share = fluctuation / ours.variance
    assert share.max() / share.min() > 1.2  # so that standardising does not undo the difference


@pytest.mark.parametrize("case", FIXTURE["pruned"], ids=lambda c: f"ratio-{c['ratio']}")
@torch.no_grad()
def test_the_same_fluctuation_leads_to_the_same_widths_and_biases(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the authors' fluctuation and price put in the places of ours."""
    model = drawn(case["model"], scale=case["scale"], **case["shape"])
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    tokens = drawn_tokens(case["texts"], case["length"], case["tokens"])
    read: dict[torch.nn.Module, list[Tensor]] = {}
    for block in blocks(model):
        for linear in (parts(block).o, parts(block).down):
            linear.register_forward_pre_hook(lambda m, args: read.setdefault(m, []).append(args[0][0]))
    for row in tokens:
        model(row[None])

    def theirs(model: Any, calibration: Any) -> flap.Moments:
        found: flap.Moments = {}
        for index, block in enumerate(blocks(model)):
            for kind, linear in (("attention", parts(block).o), ("mlp", parts(block).down)):
                one = Fluctuation(linear.in_features, torch.device("cpu"))
                mean, fluctuation = as_coded(rows[kind, index])
                if kind == "attention":  # whose scores they square
                    fluctuation = fluctuation.square() * linear.weight.square().sum(0)
                one.mean, one.deviations, one.tokens = mean.double(), fluctuation.double(), torch.tensor(2.0)
                found[kind, index] = one
        return found

    rows = {("attention", i): read[parts(b).o] for i, b in enumerate(blocks(model))}
    rows |= {("mlp", i): read[parts(b).down] for i, b in enumerate(blocks(model))}
    means = theirs(model, None)
    for index in range(2):
        heads = as_coded(rows["attention", index])[1].view(2, 128).mean(1)
        assert heads.tolist() == pytest.approx(case["fluctuation_of_heads"][index], rel=1e-3)
    monkeypatch.setattr(flap, "moments", theirs)
    monkeypatch.setattr(flap, "costs", lambda model: {"attention": [170.0] * 2, "mlp": [1.0] * 2})
    ranked = flap.ranked_together(FLAP().scores(model, means), flap.costs(model), case["ratio"])
    kept = [int(mask.sum()) for mask in (*ranked["attention"], *ranked["mlp"])]
    coded = [sum(heads) for heads in case["heads"]] + [channels.count("1") for channels in case["channels"]]
    assert sum(kept) == sum(coded) + 1  # the element at the threshold
    extra = 0
    for index in range(2):
        for mine, as_they in (
            (ranked["attention"][index], torch.tensor(case["heads"][index])),
            (ranked["mlp"][index], torch.tensor([one == "1" for one in case["channels"][index]])),
        ):
            assert bool((mine | ~as_they).all())
            extra += int((mine & ~as_they).sum())
    assert extra == 1
    smaller = FLAP(sparsity=case["ratio"]).compress(model, of_tokens(tokens.tolist()))
    for index, block in enumerate(blocks(smaller)):
        bias = torch.tensor(case["down_bias"][index])
        assert float((block.mlp.down_proj.bias - bias).norm() / bias.norm()) < 0.05  # but for one channel, equal
