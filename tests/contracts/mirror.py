"""A store beside plain lists of what it should hold: every token's pair as it was given, and as it was first packed."""

from __future__ import annotations

import torch

from pith.attention.storage import Storage
from pith.attention.store import Store


class Mirror:
    """A store, and for each row and head the list of tokens that it should hold, in their order.

    A token's pair is what it was given, or what it became when it was packed; what it became it must stay, bit by bit.

    Args:
        storage: the store's form.
        rows, heads, dim: the shape of what it holds.
        loss: how far a packed number may be from the one that was given.
        noise: how far it may be from what it was when it was packed: nothing, but for storages that decode by matrix
            products, whose sums depend on how many tokens are decoded together.
    """

    def __init__(
        self, storage: Storage | None, rows: int, heads: int, dim: int, loss: float, noise: float = 0.0
    ) -> None:
        self.store, self.heads, self.dim, self.loss, self.noise = Store(storage), heads, dim, loss, noise
        self.held: list[list[list[int]]] = [[[] for _ in range(heads)] for _ in range(rows)]
        self.source = list(range(rows))  # which row of the given pairs each row goes on from
        self.given = torch.randn(2, rows, heads, 0, dim)
        self.packed: dict[tuple[int, int, int, int], torch.Tensor] = {}
        self.seen, self.changed = 0, 0

    def append(self, count: int, decoding: bool = False, settle: bool = True) -> None:
        new = torch.randn(2, self.given.shape[1], self.heads, count, self.dim)
        self.given = torch.cat([self.given, new], dim=3)
        positions = torch.arange(self.seen, self.seen + count, dtype=torch.int32)
        rows = len(self.held)
        keys, values = new[:, self.source]
        self.store.append(keys, values, positions.expand(rows, 1, count), decoding=decoding)
        for row in self.held:
            for head in row:
                head += range(self.seen, self.seen + count)
        self.seen += count
        if settle:
            self.store.settle(torch.randn(rows, self.heads * 2, count, self.dim), prefill=not decoding)

    def slots(self) -> list[list[list[int]]]:
        """The slots that hold tokens."""
        positions = self.store.positions.expand(-1, self.heads, -1)
        return [[[s for s, p in enumerate(head.tolist()) if p >= 0] for head in row] for row in positions]

    def keep(self, counts: list[list[int]], ragged: bool = False, seed: int = 0) -> None:
        """Keeps so many tokens of each row and head, the newest among them, the others drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        most = max(c for row in counts for c in row)
        index = torch.full((len(counts), self.heads, most), -1)
        for row, slots_of_row in enumerate(self.slots()):
            for head, slots in enumerate(slots_of_row):
                count = counts[row][head]
                newest = min(3, count)
                drawn = (
                    torch.randperm(len(slots) - newest, generator=generator)[: count - newest].sort().values.tolist()
                )
                chosen = [*drawn, *range(len(slots) - newest, len(slots))]
                index[row, head, most - count :] = torch.tensor([slots[i] for i in chosen])
                self.held[row][head] = [self.held[row][head][i] for i in chosen]
        self.store.keep(index, ragged=ragged)

    def select(self, rows: list[int]) -> None:
        self.store.select(torch.tensor(rows))
        self.held = [[list(head) for head in self.held[row]] for row in rows]
        self.source = [self.source[row] for row in rows]

    def crop(self, count: int) -> None:
        self.store.crop(count)
        self.held = [[head[: len(head) - count] for head in row] for row in self.held]
        self.seen -= count
        self.given = self.given[:, :, :, : self.seen]
        self.packed = {key: value for key, value in self.packed.items() if key[3] < self.seen}

    def check(self) -> None:
        """The store holds what the lists hold, and what was packed is what it was."""
        store = self.store
        dense = torch.stack([store.keys, store.values])
        for row, slots_of_row in enumerate(self.slots()):
            for head, slots in enumerate(slots_of_row):
                tokens = self.held[row][head]
                positions = store.positions.expand(-1, self.heads, -1)[row, head]
                assert positions[slots].tolist() == tokens
                for part in (0, 1):
                    self._check(part, row, head, tokens, dense[part, row, head, slots])
        self._check_reads(dense)

    def _check(self, part: int, row: int, head: int, tokens: list[int], mine: torch.Tensor) -> None:
        source = self.source[row]
        for token, number in zip(tokens, mine, strict=True):
            key, given = (part, source, head, token), self.given[part, source, head, token]
            if key in self.packed:
                assert (number - self.packed[key]).abs().max() <= self.noise
            elif not torch.equal(number, given):
                assert (number - given).abs().max() <= self.loss
                self.packed[key] = number.clone()

    def _check_reads(self, dense: torch.Tensor) -> None:
        """Products, sums and gathering are those of the tensors themselves."""
        store, rows = self.store, len(self.held)
        real = (store.positions >= 0).expand(rows, self.heads, -1)
        query = torch.randn(rows, self.heads, 2, self.dim)
        expected = query @ dense[0].transpose(-1, -2)
        assert ((store.dot(query) - expected) * real.unsqueeze(2)).abs().max() < 2e-4
        weights = torch.rand(rows, self.heads, 2, store.length) * real.unsqueeze(2)
        assert (store.mix(weights) - weights @ dense[1]).abs().max() < 1e-3
        for heads in (1, self.heads):
            index = torch.randint(0, store.length, (rows, heads, 7))
            keys, values = store.gather(index)
            wide = index.expand(-1, self.heads, -1).unsqueeze(-1).expand(-1, -1, -1, self.dim)
            read = real.gather(2, index.expand(-1, self.heads, -1)).unsqueeze(-1)
            assert ((keys - dense[0].gather(2, wide)) * read).abs().max() <= self.noise
            assert ((values - dense[1].gather(2, wide)) * read).abs().max() <= self.noise
