"""LongHeads summarises, chooses and reads what the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.layers import OneLayer
from pith.attention import Part, Step
from pith.cache.long_heads import LongHeads

FIXTURE = json.loads((Path(__file__).parent / "long_heads.json").read_text())
NAMES = ["odd", "even", "wide", "short_prompt"]
every_case = pytest.mark.parametrize("case", FIXTURE["cases"], ids=NAMES)


def read(case: dict[str, Any], released: bool) -> tuple[torch.Tensor, OneLayer, list[Part]]:
    """The outputs of the case's tokens, the layer, and the parts that were read when chunks were chosen."""
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    method = LongHeads(
        chunk_size=case["chunk"],
        attention_length=case["attention_length"],
        encoding_batch_size=3,
        released=released,
    )
    parts: list[Part] = []
    select = LongHeads.select

    def watched(step: Step) -> list[Part] | None:
        selected = select(method, step)
        parts.extend(selected or [])
        return selected

    object.__setattr__(method, "select", watched)
    one = OneLayer(method, query.shape[1], keys.shape[1], base=case["rope_base"])
    decoded = query.shape[2] - case["prompt"]
    return one.read(query, keys, values, [case["prompt"], *[1] * decoded])[0], one, parts


@every_case
def test_as_released_outputs_are_the_authors(case: dict[str, Any]) -> None:
    out, one, parts = read(case, released=True)
    assert (out - torch.tensor(case["output"])).abs().max() < 1e-5
    assert one.layer.reader is not None
    summaries = one.layer.reader.memory["vectors"][0]
    theirs = torch.tensor(case["chunk_keys"])
    assert (summaries[:, : theirs.shape[1]] - theirs).abs().max() < 1e-5

    indices = [p.index[0] if p.index.ndim == 4 else p.index[0].unsqueeze(1) for p in parts]
    last = len(case["tokens"])
    index = torch.cat(indices, dim=1)[:, -last:]  # [head, query, read]
    at = torch.cat([p.query_at[0] for p in parts if p.query_at is not None])[-last:]
    assert at.tolist() == case["query_positions"]
    assert (index >= 0).sum(dim=-1).tolist() == [case["read_counts"]] * len(index)
    for token, chunks, read_by_heads in zip(case["tokens"], case["chunks"], index.unbind(1), strict=True):
        for theirs_of_head, slots in zip(chunks, read_by_heads, strict=True):
            # the chunk that is not full comes last; a prompt's first token in its chunk reads none of it
            full = {int(s) // case["chunk"] for s in slots[slots >= 0]} | {theirs_of_head[-1]}
            own = token // case["chunk"]
            assert sorted(full - {own}) == sorted(set(theirs_of_head) - {own})


@every_case
def test_without_the_released_asymmetries(case: dict[str, Any]) -> None:
    """A prompt's token reads itself too; a decoded token that fills its chunk reads one chunk more."""
    released = torch.tensor(case["output"])
    difference = (read(case, released=False)[0] - released).abs().amax(dim=(0, 2))
    prompt, chunk, length = case["prompt"], case["chunk"], case["attention_length"]
    assert difference[:length][: min(prompt, length - 1)].max() < 1e-5
    fills = torch.tensor([(i + 1) % chunk == 0 for i in range(prompt, len(difference))])
    assert difference[prompt:][~fills].max() < 1e-5
    if prompt > length:
        assert (difference[length:prompt] > 1e-5).all()
        own = slice(length, prompt)
        apart = (read(case, released=False)[0] - released)[:, own].norm() / released[:, own].norm()
        assert 0.14 < apart < 0.22
    if fills.any():
        assert (difference[prompt:][fills] > 1e-5).all()
