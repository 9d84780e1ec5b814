"""Heads that hold different numbers of tokens, against lists; plain and packed."""

from __future__ import annotations

import pytest
import torch

from contracts.mirror import Mirror
from pith.attention.ragged import Layout, Ragged, align
from pith.cache.deco_quant import DecoQuant
from pith.cache.kivi import KIVI
from pith.cache.kv_cache_int8 import KVCacheInt8

STORAGES = {
    "plain": (None, 0.0),
    "int8": (KVCacheInt8(), 0.05),
    "kivi": (KIVI(bits=4, group_size=4, residual_length=8), 0.5),
    "deco_quant": (DecoQuant(bits=8, inner=4, block=6), 0.5),
}

every_storage = pytest.mark.parametrize("name", STORAGES)


def mirror(name: str) -> Mirror:
    torch.manual_seed(0)
    storage, loss = STORAGES[name]
    return Mirror(storage, rows=2, heads=3, dim=8, loss=loss, noise=1e-5 if name == "deco_quant" else 0.0)


COUNTS = [[30, 17, 24], [11, 33, 16]]


@every_storage
def test_heads_of_different_lengths_and_what_comes_later(name: str) -> None:
    m = mirror(name)
    m.append(60, settle=False)
    m.keep(COUNTS, ragged=True)
    assert isinstance(m.store.key_column, Ragged)
    m.check()
    m.store.settle(torch.randn(2, 6, 60, 8))
    for count in (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 14, 1):
        m.append(count, decoding=count == 1)
        m.check()
    assert bool(m.packed) == (name != "plain")


@every_storage
def test_a_second_eviction(name: str) -> None:
    m = mirror(name)
    m.append(60, settle=False)
    m.keep(COUNTS, ragged=True)
    m.store.settle(torch.randn(2, 6, 60, 8))
    m.append(25)
    m.check()
    m.keep([[20, 31, 12], [9, 28, 40]], ragged=True, seed=1)
    m.check()
    for _ in range(4):
        m.append(1, decoding=True)
    m.check()


@every_storage
def test_rows_are_reordered_and_tokens_taken_back(name: str) -> None:
    m = mirror(name)
    m.append(60, settle=False)
    m.keep(COUNTS, ragged=True)
    m.store.settle(torch.randn(2, 6, 60, 8))
    for _ in range(6):
        m.append(1, decoding=True)
    m.select([1, 1, 0])
    m.check()
    m.crop(4)
    m.check()
    m.append(1, decoding=True)
    m.check()


def test_a_plain_one_takes_no_slot_too_many() -> None:
    m = mirror("plain")
    m.append(60, settle=False)
    m.keep(COUNTS, ragged=True)
    m.store.settle()
    tokens = sum(map(sum, COUNTS))
    sizes = [t.untyped_storage().nbytes() for t in m.store.key_column.tensors()]
    assert sum(sizes) == tokens * 8 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [3, 8, 12])
def test_products_at_odd_sizes(dtype: torch.dtype, dim: int) -> None:
    """Grouped products ask for rows of whole sixteen bytes, and for no empty group."""
    m = Mirror(None, rows=1, heads=3, dim=dim, loss=0.0)
    m.given = m.given.to(dtype)
    keys = torch.randn(1, 3, 20, dim, dtype=dtype)
    store = m.store
    store.append(keys, keys, torch.arange(20, dtype=torch.int32)[None, None], decoding=False)
    index = torch.full((1, 3, 9), -1)
    index[0, 0], index[0, 2, 5:] = torch.arange(9), torch.arange(4)
    store.keep(index, ragged=True)
    real = index >= 0
    dense = keys.gather(2, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, -1, dim)) * real.unsqueeze(-1)
    assert torch.equal(store.keys, dense)
    query, weights = torch.randn(1, 3, 2, dim, dtype=dtype), torch.rand(1, 3, 2, 9).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    assert (store.dot(query).float() - (query @ dense.transpose(-1, -2)).float()).abs().max() < tolerance
    assert (store.mix(weights).float() - (weights @ dense).float()).abs().max() < tolerance


def test_align_and_layout() -> None:
    index = torch.tensor([[[3, -1, 5, -1], [-1, -1, -1, 7]]])
    moved = align(index)
    assert moved.tolist() == [[[3, 5], [-1, 7]]]
    layout = Layout.of(moved)
    assert layout.counts.tolist() == [[2, 1]]
    rectangle = torch.tensor([[[3.0, 5.0], [0.0, 7.0]]])
    assert layout.flat(rectangle).tolist() == [3, 5, 7]
    assert torch.equal(layout.rectangle(layout.flat(rectangle), 0), rectangle)
