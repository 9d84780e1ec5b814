"""ThinK against numbers that the authors' code gave: scores, channels, pruned keys, and attention while decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange, repeat

from pith.attention.storage import Context
from pith.attention.store import Store
from pith.cache.think import ThinK

FIXTURE = json.loads((Path(__file__).parent / "think.json").read_text())
PRUNE, DECODE = ([c for c in FIXTURE["cases"] if c["kind"] == kind] for kind in ("prune", "decode"))


def per_query_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeated as the authors repeat, so that each query head chooses for itself."""
    return repeat(x, "b kv token d -> b (kv group) token d", group=heads // x.shape[1])


@pytest.mark.parametrize("case", PRUNE, ids=lambda c: f"{c['ratio']}-{c['recent']}-{len(c['query'])}")
def test_the_same_channels_are_kept(case: dict[str, Any]) -> None:
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    method = ThinK(pruning_ratio=case["ratio"], recent_size=case["recent"])
    repeated = per_query_head(keys, query.shape[1])
    count = method.due("keys", keys.shape[2], prefill=True)
    context = Context(query=query, rest=repeated[:, :, count:])
    packed = method.encode(repeated[:, :, :count], "keys", context)
    torch.testing.assert_close(method.scores(repeated[:, :, :count], context)[0], torch.tensor(case["score"]))
    assert packed.groups["kept"][0, :, 0].int().tolist() == torch.tensor(case["mask"]).int().tolist()
    assert torch.equal(packed.tokens["channels"][0], torch.tensor(case["pruned"]))
    assert list(repeated[0, :, count:].shape) == case["full_shape"]


@pytest.mark.parametrize("case", [c for c in PRUNE if len(c["query"]) > len(c["keys"])], ids=["a", "b"])
def test_grouped_queries_deviate_as_stated(case: dict[str, Any]) -> None:
    """One choice for a key-value head; it agrees with most of each query head's, and holds a share of the bytes."""
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    method = ThinK(pruning_ratio=case["ratio"], recent_size=case["recent"])
    count, group = method.due("keys", keys.shape[2], prefill=True), query.shape[1] // keys.shape[1]
    packed = method.encode(keys[:, :, :count], "keys", Context(query=query, rest=keys[:, :, count:]))
    mine = per_query_head(packed.groups["kept"], query.shape[1])[0, :, 0]
    theirs = torch.tensor(case["mask"]).bool()
    shared = (mine & theirs).sum().item() / theirs.sum().item()
    assert 0.7 < shared <= 1
    assert packed.tokens["channels"].numel() * group == torch.tensor(case["pruned"]).numel()


@pytest.mark.parametrize("case", DECODE, ids=lambda c: f"{c['prompt']}-{c['capacity']}")
def test_attention_while_decoding(case: dict[str, Any]) -> None:
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    heads, prompt, steps = query.shape[1], case["prompt"], len(case["output"][0])
    keys, values = per_query_head(keys, heads), per_query_head(values, heads)
    store = Store(ThinK(pruning_ratio=case["ratio"], recent_size=case["recent"]))

    def read(at: slice, decoding: bool) -> None:
        positions = torch.arange(at.start, at.stop, dtype=torch.int32)[None, None]
        store.append(keys[:, :, at].clone(), values[:, :, at].clone(), positions, decoding)

    read(slice(0, prompt), decoding=False)
    if case["kept_tokens"] is not None:
        store.keep(torch.tensor(case["kept_tokens"])[None])
    store.settle(query[:, :, : query.shape[2] - steps])
    kept = store.key_column.shelves[0].groups["kept"].dense()[0, :, 0]
    assert [head.nonzero()[:, 0].tolist() for head in kept] == case["kept"]
    for i in range(steps):
        read(slice(prompt + i, prompt + i + 1), decoding=True)
        asked = query[:, :, query.shape[2] - steps + i].unsqueeze(2)
        out = store.mix((store.dot(asked) / query.shape[-1] ** 0.5).softmax(dim=-1))
        assert (rearrange(out, "1 h 1 d -> h d") - torch.tensor(case["output"])[:, i]).abs().max() < 1e-5
        store.settle(asked, prefill=False)
    pruned, whole = store.key_column.shelves[0].tokens["channels"].dense(), store.key_column.recent.dense()
    assert [list(pruned[0].shape), list(whole[0].shape)] == [case["pruned_shape"], case["full_shape"]]
