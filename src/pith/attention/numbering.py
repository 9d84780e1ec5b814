"""Which new tokens are padding, and the positions of the others among the tokens of their rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pith.attention.store import PADDING
from pith.core import InputError


class Numbering:
    """Counts the tokens of each row of a batch, padding left out.

    Attributes:
        seen: slots seen so far, padding included; the same for every row.
        rows: [batch], tokens seen by each row; None until a row had padding, since then all rows have `seen`.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.rows: Int[Tensor, " batch"] | None = None

    def count(self, valid: Bool[Tensor, "batch new"] | None, batch: int, new: int, device: torch.device) -> Tensor:
        """Return the positions of new tokens, [batch, 1, new] int32 with `PADDING` for padding, and count them."""
        first, self.seen = self.seen, self.seen + new
        if valid is None and self.rows is None:
            if new == 1:
                return torch.full((batch, 1, 1), first, device=device, dtype=torch.int32)
            return torch.arange(first, self.seen, device=device, dtype=torch.int32).repeat(batch, 1, 1)
        if self.rows is None:
            self.rows = torch.full((batch,), first, device=device)
        if valid is None:
            valid = torch.ones((batch, new), dtype=torch.bool, device=device)
        index = self.rows[:, None] + valid.cumsum(dim=-1) - 1
        self.rows = self.rows + valid.sum(dim=-1)
        return torch.where(valid, index, PADDING).to(torch.int32).unsqueeze(1)

    def uncount(self, newest: Int[Tensor, "batch removed"]) -> None:
        """Take back the newest tokens, given by their positions."""
        self.seen -= newest.shape[1]
        if self.rows is not None:
            self.rows = self.rows - (newest >= 0).sum(dim=-1)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Make these rows of the batch the new batch."""
        if self.rows is not None:
            self.rows = self.rows[rows]

    def check_left_padding(self, valid: Bool[Tensor, "batch new"]) -> None:
        """Raise if a row that has tokens ends in padding; a row whose tokens all come later may consist of padding.

        Raises:
            InputError: a row does.
        """
        begun = valid.any(dim=-1)
        if self.rows is not None:
            begun = begun | (self.rows > 0)
        elif self.seen:
            begun = torch.ones_like(begun)
        ended = begun & ~valid[:, -1]
        if bool(ended.any()):
            row = int(ended.nonzero()[0])
            raise InputError(f"row {row} ends in padding; pad on the left (tokenizer.padding_side = 'left')")


def valid_tokens(mask: Tensor | None, new: int) -> Bool[Tensor, "batch new"] | None:
    """Return which of the new tokens are not padding; None where the forward has no padding mask.

    Args:
        mask: the forward's mask, [batch, tokens seen and new].
        new: the number of new tokens.

    Raises:
        InputError: the mask has another number of dimensions.
    """
    if mask is None:
        return None
    if mask.ndim != 2:
        raise InputError(f"the attention mask has {mask.ndim} dimensions; allowed is a padding mask [batch, tokens]")
    return mask[:, -new:].bool()


def refuse_late_rows(mask: Tensor | None, new: int) -> None:
    """Refuse a row whose first token comes after the first forward, for methods that act on the whole prompt then.

    Args:
        mask: the forward's padding mask, [batch, tokens seen and new], or None.
        new: the number of new tokens; there are earlier ones.

    Raises:
        InputError: there is such a row.
    """
    if mask is None or mask.ndim != 2 or mask.shape[1] <= new:
        return
    late = ~mask[:, :-new].bool().any(dim=-1) & mask[:, -new:].bool().any(dim=-1)
    if bool(late.any()):
        row = int(late.nonzero()[0])
        raise InputError(
            f"row {row} of the batch is only padding in the first forward, on which a method of this recipe acts; read "
            "the padded prompt in one forward (no prefill_chunk_size), or its rows one by "
            "one; leave rows out that are only padding"
        )
