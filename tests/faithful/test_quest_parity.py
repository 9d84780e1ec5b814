"""Quest reads the pages that the authors' own code reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention import LayerCache, Part, Step
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.in_flight import CacheGroup
from pith.attention.reader import Reader
from pith.cache.quest import Quest

FIXTURE = json.loads((Path(__file__).parent / "quest.json").read_text())
CASES = FIXTURE["cases"]
PAGE = 16
plain = pytest.mark.parametrize(
    "case", [c for c in CASES if len(c["query"]) == len(c["keys"])], ids=lambda c: len(c["keys"][0])
)
every = pytest.mark.parametrize("case", CASES, ids=lambda c: len(c["keys"][0]))


def method(pages: int) -> Quest:
    return Quest(token_budget=pages * PAGE, page_size=PAGE, skip_layers=0)


def decoded(case: dict[str, Any]) -> Step:
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    return step(query.unsqueeze(2), keys, values, prefill=False)


def pages_of(parts: list[Part] | None, head: int) -> list[int] | None:
    return None if parts is None else sorted(set((parts[0].index[0, head] // PAGE).tolist()))


def output(case: dict[str, Any], quest: Quest) -> torch.Tensor:
    """The attention of the last token, which is decoded after the others were read as a prompt."""
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(reader=Reader(quest)))
    call = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)
    prompt = keys.shape[2] - 1
    layer.attend(call, query.unsqueeze(2).expand(-1, -1, prompt, -1), keys[:, :, :prompt], values[:, :, :prompt])
    return layer.attend(call, query.unsqueeze(2), keys[:, :, prompt:], values[:, :, prompt:])[0, :, 0]


@every
def test_bounds_of_full_pages(case: dict[str, Any]) -> None:
    s = decoded(case)
    older = (s.stored - 1) // PAGE
    if not older:
        return
    mine = method(2).bounds(s, torch.tensor([[[older]]]))[0]
    theirs = torch.tensor(case["bounds"])[:, :older].view(len(case["keys"]), -1, older)
    assert torch.allclose(mine, theirs.amax(dim=1), atol=1e-5)


@plain
def test_the_kernels_pages_and_output(case: dict[str, Any]) -> None:
    for run in case["kernel"]:
        parts = method(run["page_budget"]).select(decoded(case))
        for head in range(len(case["query"])):
            assert pages_of(parts, head) == (None if run["pages"] is None else run["pages"][head])
        assert torch.allclose(output(case, method(run["page_budget"])), torch.tensor(run["output"]), atol=1e-5)


@plain
def test_the_evaluation_code_does_not_force_the_newest_page(case: dict[str, Any]) -> None:
    """Of as many pages the same are read where the newest is among the best; else it stands for the worst of them."""
    for run in case["evaluation"]:
        count = len(run["pages"][0])
        parts = method(count).select(decoded(case))
        for head, theirs in enumerate(run["pages"]):
            mine, newest = pages_of(parts, head), len(case["bounds"][head]) - 1
            if mine is None:
                assert sorted(theirs) == list(range(newest + 1))
            elif newest in theirs:
                assert mine == sorted(theirs)
            else:
                ranked = sorted(theirs, key=lambda page: case["bounds"][head][page])
                assert mine == sorted([*ranked[1:], newest])


def test_grouped_queries_deviate_as_stated() -> None:
    """The authors choose for each query head; one choice a key-value head reads what one of its heads wants most."""
    (case,) = [c for c in CASES if len(c["query"]) > len(c["keys"])]
    group = len(case["query"]) // len(case["keys"])
    for run in case["kernel"]:
        if run["pages"] is None:
            continue
        parts = method(run["page_budget"]).select(decoded(case))
        for head in range(len(case["keys"])):
            theirs = [set(run["pages"][head * group + g]) for g in range(group)]
            mine = set(pages_of(parts, head) or [])
            assert len(mine) == run["page_budget"]
            assert mine <= set.union(*theirs)
            assert set.intersection(*theirs) <= mine
