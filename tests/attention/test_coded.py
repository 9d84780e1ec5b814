"""Packed columns against lists: what they hold in which order, what they read, and that nothing is packed twice."""

from __future__ import annotations

import pytest
import torch

from contracts.mirror import Mirror
from pith.attention import coded
from pith.attention.coded import Coded
from pith.attention.storage import Context, Packed, Storage
from pith.cache.deco_quant import DecoQuant
from pith.cache.kivi import KIVI
from pith.cache.kv_cache_int8 import KVCacheInt8
from pith.cache.think import ThinK

STORAGES = {
    "int8": (KVCacheInt8(), 0.05),
    "kivi": (KIVI(bits=4, group_size=4, residual_length=8), 0.5),
    "deco_quant": (DecoQuant(bits=8, inner=4, block=6), 0.5),
    "think": (ThinK(recent_size=4), 10.0),
}
"""Each with how far a number may be from the one that was packed."""

BLOCK = 512
"""Tokens that are read at a time."""

every_storage = pytest.mark.parametrize("name", STORAGES)


def mirror(name: str, rows: int = 2) -> Mirror:
    torch.manual_seed(0)
    storage, loss = STORAGES[name]
    return Mirror(storage, rows=rows, heads=2, dim=8, loss=loss, noise=1e-5 if name == "deco_quant" else 0.0)


def alike(count: int, rows: int = 2) -> list[list[int]]:
    return [[count, count] for _ in range(rows)]


@every_storage
def test_appended_and_packed_in_their_order(name: str) -> None:
    m = mirror(name)
    for count in (37, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 12, 1):
        m.append(count, decoding=count == 1)
        m.check()
    assert m.packed


@every_storage
def test_heads_that_keep_unequal_tokens(name: str) -> None:
    m = mirror(name)
    m.append(40)
    m.check()
    m.keep(alike(25), seed=1)
    m.check()
    for _ in range(9):
        m.append(1, decoding=True)
        m.check()
    m.keep(alike(20), seed=2)
    m.check()
    m.append(21)
    m.keep(alike(30), seed=3)
    m.check()


@every_storage
def test_rows_that_keep_fewer_begin_with_empty_slots(name: str) -> None:
    m = mirror(name)
    m.append(40)
    m.keep([[30, 30], [12, 12]], seed=1)
    m.check()
    m.append(20)
    m.check()
    m.keep([[33, 33], [9, 9]], seed=2)
    m.append(1, decoding=True)
    m.check()


@every_storage
def test_an_eviction_before_anything_is_packed_comes_first(name: str) -> None:
    m = mirror(name)
    m.append(60, settle=False)
    m.keep([[20, 20], [12, 12]])
    m.check()
    assert m.store.plain
    assert not m.packed
    m.store.settle(torch.randn(2, 4, 60, 8))
    m.check()
    assert m.packed


@every_storage
def test_rows_are_reordered_and_repeated(name: str) -> None:
    m = mirror(name)
    m.append(40)
    m.select([1, 0, 1])
    m.check()
    m.append(1, decoding=True)
    m.check()
    m.keep(alike(22, rows=3), seed=4)
    m.select([2, 1])
    m.check()


@every_storage
@pytest.mark.parametrize("kept", [False, True])
def test_crop_takes_tokens_back_packed_or_not(name: str, kept: bool) -> None:
    m = mirror(name)
    m.append(40)
    for _ in range(13):
        m.append(1, decoding=True)
    if kept:
        m.keep(alike(40), seed=5)
    m.check()
    m.crop(2)
    m.check()
    if not kept:
        m.crop(19)
        m.check()
        m.append(30)
        m.check()


@every_storage
def test_what_was_kept_has_the_codes_that_it_had(name: str) -> None:
    m = mirror(name)
    m.append(48)
    column = m.store.key_column
    assert isinstance(column, Coded)
    before = {n: c.dense().clone() for n, c in column.shelves[0].tokens.items()}
    index = torch.tensor([[[0, 3, 5, 30], [1, 2, 9, 31]]]).expand(2, -1, -1)
    column.keep(index)
    for n, codes in before.items():
        wide = index.unsqueeze(-1).expand(-1, -1, -1, codes.shape[-1])
        expected = codes.expand(-1, 2, -1, -1).gather(2, wide)
        assert torch.equal(column.shelves[0].tokens[n].dense(), expected)


class Counted(KVCacheInt8):
    """Counts what is encoded and decoded."""

    name = "counted"
    encoded: list[int] = []  # noqa: RUF012  (a test's own notes)
    decoded: list[int] = []  # noqa: RUF012

    def encode(self, x: torch.Tensor, part: str, context: Context) -> Packed:
        self.encoded.append(x.shape[2])
        return super().encode(x, part, context)  # type: ignore[arg-type]

    def decode(self, packed: Packed) -> torch.Tensor:
        self.decoded.append(packed.count)
        return super().decode(packed)

    def dot(self, query: torch.Tensor, packed: Packed) -> torch.Tensor:
        return Storage.dot(self, query, packed)

    def mix(self, weights: torch.Tensor, packed: Packed) -> torch.Tensor:
        return Storage.mix(self, weights, packed)


def test_each_token_is_encoded_once_and_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "BLOCK", 2 * 8 * BLOCK)
    Counted.encoded.clear()
    Counted.decoded.clear()
    m = Mirror(Counted(), rows=1, heads=2, dim=8, loss=0.05)
    m.append(BLOCK + 70)
    m.append(1, decoding=True)
    m.store.keep(torch.arange(0, BLOCK + 71, 2)[None, None])
    assert sum(Counted.encoded) == 2 * (BLOCK + 71)
    m.append(BLOCK)
    m.store.dot(torch.randn(1, 2, 1, 8))
    m.store.mix(torch.rand(1, 2, 1, m.store.length))
    assert max(Counted.decoded) <= BLOCK
    assert sum(Counted.decoded) == 2 * m.store.length


@pytest.mark.parametrize("name", ["kivi", "deco_quant"])
def test_groups_that_no_token_is_left_of_are_freed(name: str) -> None:
    m = mirror(name, rows=1)
    storage, _ = STORAGES[name]
    column = Coded(storage, "keys")
    column.append(torch.randn(1, 2, 48, 8), decoding=False)
    column.pack(Context(), prefill=True)
    for _ in range(48):
        column.append(torch.randn(1, 2, 1, 8), decoding=True)
        column.pack(Context(), prefill=False)
    groups = sum(shelf.length // shelf.size for shelf in column.shelves)
    dense = column.dense()
    column.keep(torch.arange(64, 96)[None, None])
    (shelf,) = column.shelves
    assert torch.equal(column.dense(), dense[:, :, 64:])
    assert all(c.length < groups for c in shelf.groups.values())
    assert m.store.length == 0


@every_storage
def test_what_it_holds_is_what_its_tensors_take(name: str) -> None:
    m = mirror(name, rows=1)
    m.append(64)
    dim, tokens, parts = 8, 64, 2 * 2  # of two heads, keys and values
    whole = 4 * dim
    expected = {
        "int8": tokens * parts * (dim + 4),
        # keys packed whole, in 16 groups; values but for 8 tokens, in two groups of channels
        "kivi": 2 * (64 * dim // 2 + 16 * 2 * whole) + 2 * (56 * (dim // 2 + 2 * 2 * 4) + 8 * whole),
        "deco_quant": tokens * parts * dim + 2 * tokens * 4 + 2 * 4 * 16,
        "think": 2 * (60 * 4 * 5 + 4 * whole + dim) + 2 * 64 * whole,
    }[name]
    held = sum(t.untyped_storage().nbytes() for t in m.store.tensors()) - 4 * tokens
    assert held == expected
