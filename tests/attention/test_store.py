"""The store against lists: what it holds, in which order, in how many bytes."""

from __future__ import annotations

import itertools

import torch

from pith.attention.store import Store


def pairs(begin: int, count: int, batch: int = 2, heads: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys and values that say which token they belong to."""
    index = torch.arange(begin, begin + count, dtype=torch.float32)
    keys = index[None, None, :, None].expand(batch, heads, count, 4).clone()
    return keys, -keys, index.int().expand(batch, 1, count).clone()


def held(store: Store) -> list[int]:
    assert (store.keys[..., 0] == -store.values[..., 0]).all()
    assert (store.keys[..., 0] == store.positions).all()
    return [int(x) for x in store.keys[0, 0, :, 0]]


def test_it_grows_by_a_sixteenth_and_never_by_a_token() -> None:
    store, buffers = Store(), [0]
    store.append(*pairs(0, 2048), decoding=False)
    for i in range(2048, 2048 + 300):
        store.append(*pairs(i, 1), decoding=True)
        buffers.append(store.keys.untyped_storage().data_ptr())
        assert store.keys.untyped_storage().nbytes() <= 2 * 3 * 4 * 4 * (store.length + max(64, store.length // 16))
    assert held(store) == list(range(2348))
    # a new buffer lies elsewhere than the one that it is filled from, but may lie where an earlier one was freed
    assert sum(a != b for a, b in itertools.pairwise(buffers)) == 3


def test_after_a_prompt_it_holds_nothing_more() -> None:
    store = Store()
    keys, values, positions = pairs(0, 40)
    store.append(torch.cat([keys, keys], dim=1)[:, :3], values, positions, decoding=False)
    assert store.keys.untyped_storage().nbytes() == 2 * keys.nbytes
    store.settle()
    assert store.keys.untyped_storage().nbytes() == keys.nbytes
    assert held(store) == list(range(40))


def test_keep_frees_the_rest() -> None:
    store = Store()
    store.append(*pairs(0, 40), decoding=False)
    store.keep(torch.tensor([3, 4, 39]).expand(2, 1, 3))
    assert held(store) == [3, 4, 39]
    assert store.keys.untyped_storage().nbytes() == 2 * 3 * 3 * 4 * 4


def test_heads_that_keep_different_pairs() -> None:
    store = Store()
    store.append(*pairs(0, 10), decoding=False)
    index = torch.tensor([[[1, 5], [2, 6], [3, 9]], [[0, 1], [-1, 4], [7, 8]]])
    store.keep(index)
    assert store.positions.tolist() == index.tolist()
    assert (store.keys[..., 0] == index.clamp(min=0)).all()


def test_drop_is_deletion() -> None:
    generator = torch.Generator().manual_seed(0)
    store, lists = Store(), [[list(range(20)) for _ in range(3)] for _ in range(2)]
    store.append(*pairs(0, 20), decoding=False)
    for token in range(20, 200):
        store.append(*pairs(token, 1), decoding=True)
        index = torch.randint(0, store.length, (2, 3), generator=generator)
        for row in range(2):
            for head in range(3):
                lists[row][head].append(token)
                del lists[row][head][index[row, head]]
        store.drop(index)
        assert store.positions.tolist() == lists
        assert (store.keys[..., 0] == store.positions).all()


def test_drop_by_one_index_for_all_heads_keeps_one_row_of_positions() -> None:
    store = Store()
    store.append(*pairs(0, 10), decoding=False)
    for token in range(10, 100):
        store.append(*pairs(token, 1), decoding=True)
        store.drop(torch.full((2, 1), 2))
    assert held(store) == [0, 1, *range(92, 100)]
    assert store.positions.shape == (2, 1, 10)


def test_rows_can_be_reordered_and_repeated() -> None:
    store = Store()
    keys, values, positions = pairs(0, 5)
    keys[1] += 100
    store.append(keys, values, positions, decoding=False)
    store.select(torch.tensor([1, 1, 0]))
    assert store.keys[:, 0, 0, 0].tolist() == [100, 100, 0]
