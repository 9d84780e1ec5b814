"""KIVI against numbers that the authors' code gave: codes, statistics, lengths, and attention while decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange

from pith.attention.bits import unpack
from pith.attention.storage import Context, Packed
from pith.attention.store import Store
from pith.cache.kivi import KIVI

FIXTURE = json.loads((Path(__file__).parent / "kivi.json").read_text())
CODES, LENGTHS, ATTENTION = ([c for c in FIXTURE["cases"] if c["kind"] == k] for k in ("codes", "lengths", "attention"))


def theirs(case: dict[str, Any], name: str) -> torch.Tensor:
    return torch.tensor(case[name], dtype=getattr(torch, case["dtype"]))[None]


def packed(case: dict[str, Any], part: str) -> Packed:
    return KIVI(bits=case["bits"], group_size=case["group"]).encode(theirs(case, part), part, Context())


@pytest.mark.parametrize("part", ["keys", "values"])
@pytest.mark.parametrize("case", CODES, ids=lambda c: f"{c['bits']}-{c['dtype']}")
def test_codes_and_statistics(case: dict[str, Any], part: str) -> None:
    mine, one = packed(case, part), part[:-1]
    statistics = mine.groups if part == "keys" else mine.tokens
    assert unpack(mine.tokens["code"], case["bits"])[0].tolist() == case[f"{one}_codes"]
    assert torch.equal(statistics["scale"], theirs(case, f"{one}_scale"))
    assert torch.equal(statistics["minimum"], theirs(case, f"{one}_minimum"))
    assert torch.equal(KIVI(bits=case["bits"]).decode(mine), theirs(case, f"{one}_restored"))


@pytest.mark.parametrize("case", CODES, ids=lambda c: f"{c['bits']}-{c['dtype']}")
def test_the_authors_words_hold_the_same_codes_along_tokens_for_keys(case: dict[str, Any]) -> None:
    bits = case["bits"]
    shifts = torch.arange(0, 32, bits)
    words = torch.tensor(case["key_packed"])
    along_tokens = rearrange((words.unsqueeze(2) >> shifts[:, None]) & (2**bits - 1), "h word n d -> h (word n) d")
    assert along_tokens.tolist() == unpack(packed(case, "keys").tokens["code"], bits)[0].tolist()
    words = torch.tensor(case["value_packed"])
    along_channels = rearrange((words.unsqueeze(3) >> shifts) & (2**bits - 1), "h t word n -> h t (word n)")
    assert along_channels.tolist() == unpack(packed(case, "values").tokens["code"], bits)[0].tolist()


def lengths(store: Store) -> list[int]:
    parts = [store.key_column, store.value_column]
    return [count for column in parts for count in (column.packed, column.recent.length)]


def read(store: Store, keys: torch.Tensor, values: torch.Tensor, begin: int, decoding: bool) -> None:
    positions = torch.arange(begin, begin + keys.shape[2], dtype=torch.int32)[None, None]
    store.append(keys, values, positions, decoding=decoding)


@pytest.mark.parametrize("case", LENGTHS, ids=lambda c: str(c["prompt"]))
def test_what_is_packed_after_each_token(case: dict[str, Any]) -> None:
    store = Store(KIVI(residual_length=case["residual"]))
    pairs = torch.randn(1, 2, case["prompt"] + len(case["parts"]), 8)
    prompt = case["prompt"]
    read(store, pairs[:, :, :prompt], pairs[:, :, :prompt], 0, False)
    store.settle()
    assert lengths(store) == case["parts"][0]
    for token, expected in enumerate(case["parts"][1:], start=prompt):
        read(store, pairs[:, :, token : token + 1], pairs[:, :, token : token + 1], token, True)
        store.settle(prefill=False)
        assert lengths(store) == expected


@pytest.mark.parametrize("case", ATTENTION, ids=["2-mha", "4-gqa"])
def test_attention_while_decoding(case: dict[str, Any]) -> None:
    method = KIVI(bits=case["bits"], group_size=case["group"], residual_length=case["residual"])
    query, keys, values = (torch.tensor(case[name])[None] for name in ("query", "keys", "values"))
    prompt, kv_head = case["prompt"], keys.shape[1]
    store = Store(method)
    read(store, keys[:, :, :prompt], values[:, :, :prompt], 0, False)
    store.settle()
    for i in range(query.shape[2]):
        at = slice(prompt + i, prompt + i + 1)
        read(store, keys[:, :, at], values[:, :, at], prompt + i, True)
        folded = rearrange(query[:, :, i], "b (kv group) d -> b kv group d", kv=kv_head)
        out = store.mix((store.dot(folded) / query.shape[-1] ** 0.5).softmax(dim=-1))
        expected = torch.tensor(case["output"])[:, i]
        assert (rearrange(out, "1 kv group d -> (kv group) d") - expected).abs().max() < 1e-5
        store.settle(prefill=False)
        assert lengths(store) == case["parts"][i + 1]
