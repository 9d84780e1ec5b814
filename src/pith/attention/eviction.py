"""The contracts of methods that answer: which pairs are kept?"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.companion import Companion
from pith.attention.reading import Reading
from pith.attention.step import Step
from pith.attention.storage import Storage
from pith.core import Budget, DenseCache, Method, ParameterError, param, parse_budget


@dataclass(frozen=True)
class Seat:
    """A layer among those that share a budget.

    Attributes:
        index, count: its index among them, and how many there are.
        token_bytes: bytes that one token of one sequence takes over all of them.
    """

    index: int
    count: int
    token_bytes: int


def tokens_within(budget: Budget, real: Int[Tensor, " batch"], token_bytes: int) -> Int[Tensor, " batch"]:
    """A budget in tokens, for rows that have seen so many; one takes `token_bytes` over all layers that share it."""
    parsed = parse_budget(budget)
    if parsed.share is not None:
        # a tenth is no binary number: 0.1 * 30 must be 3
        return (real.double() * parsed.share + 1e-6).long().clamp(min=1)
    tokens = parsed.tokens if parsed.tokens is not None else max(1, (parsed.bytes or 0) // token_bytes)
    return torch.full_like(real, tokens)


@dataclass(frozen=True, kw_only=True)
class Retention(Method):
    """Keeps the best-scored pairs and frees the others: what evictions and allocations have in common.

    A prompt is read whole before it evicts; each further part of a prompt, or a further turn, evicts again when it was
    read, with a share taken of everything seen. Decoded tokens come on top, unless the method evicts at every step:
    then the count stays what the prompt left.

    Scores are taken in float32, whatever the model's dtype; code of authors that takes them in bfloat16 or float16
    may choose otherwise among pairs whose scores lie close together.

    Class attributes:
        every_step: whether each decoded token evicts one pair.
        renumbers: whether stored pairs are placed at their index in the cache, as if the dropped ones had never been.
        raw: whether keys are held before their rotation.
        rotates: whether `score` asks for the layer's rotation (`Step.rotor`).
        ragged: whether heads may keep different numbers of pairs.
        moves: whether `limit` is asked at each decoded token too; else it stays what the prompt left.
    """

    question: ClassVar[str] = "which pairs are kept?"
    every_step: ClassVar[bool] = False
    renumbers: ClassVar[bool] = False
    raw: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    ragged: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    @property
    @abstractmethod
    def keeps_all(self) -> bool:
        """Whether nothing is ever to be dropped."""

    @abstractmethod
    def score(self, step: Step) -> Float[Tensor, "batch heads key"]:
        """How much each stored pair is worth keeping; `heads` is kv_head, or 1 where all heads keep the same.

        Only the order counts. Slots without a token may get any score: they are never kept.
        """

    @abstractmethod
    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """How many pairs each row may keep in a layer, on average over its heads.

        Args:
            real: the number of tokens each row has seen.
            seat: the layer.
        """

    def split(
        self, scores: Float[Tensor, "batch kv_head key"], limit: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch kv_head"]:
        """How many pairs each head keeps, where heads keep different numbers (`ragged`).

        Args:
            scores: as `score` gave them; -inf where there is no token.
            limit: as `limit` gave it.
        """
        raise NotImplementedError(f"{self.name} is not ragged")

    def carry(self, step: Step) -> Float[Tensor, "batch heads key"] | None:
        """A number for each stored pair that is kept with it, and is `Step.carried` at the next forward.

        A method that overrides it is asked at every forward, before `score`, whether anything is to be dropped or not.
        """
        return None

    def refuses(self, other: Method) -> str | None:
        """Keys are held in one form only, and heads of unequal length cannot be packed head by head."""
        if isinstance(other, Storage):
            if self.renumbers:
                return f"{self.name} places keys at other positions again and again, which {other.name} packs for good"
            if self.ragged and other.per_head:
                return f"heads keep different numbers of pairs, and {other.name} packs all heads of a layer together"
        if isinstance(other, Reading) and self.renumbers and (self.raw or other.raw):
            return f"{self.name} and {other.name} each place keys at positions of their own"
        return None

    def on(self, model: Any) -> Retention:
        """The method as it acts on a model; one that needs parts made for the model finds them.

        Raises:
            ModelError: there are none.
        """
        return self

    def companion(self) -> Companion | None:
        """What the method does around whole forwards of the model, for one cache; None is nothing."""
        return None


@dataclass(frozen=True, kw_only=True)
class Eviction(Retention):
    """Keeps the best-scored pairs of each key-value head within a budget; a method writes `score`."""

    contract: ClassVar[str] = "eviction"

    budget: Budget = param(
        0.5, "what is kept: a share of the prompt, a token count, or bytes for one sequence", sweep=(0.02, 1.0)
    )

    @property
    def keeps_all(self) -> bool:
        """Whether the budget is a share of 1.0."""
        return parse_budget(self.budget).everything

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """The budget in tokens, the same in every layer."""
        return tokens_within(self.budget, real, seat.token_bytes)

    def claimed(self, dense: DenseCache) -> float:
        """The budget as a share of the dense cache."""
        limit = int(self.limit(torch.tensor([dense.tokens]), Seat(0, 1, dense.token_bytes))[0])
        return min(1.0, limit / max(dense.tokens, 1))


@dataclass(frozen=True, kw_only=True)
class Allocation(Retention):
    """Gives layers, or the heads of a layer, different parts of the budget of another method, whose scores it takes.

    A method writes `limit` (layers) or `split` (heads, with `ragged = True`), and declares the other method as the
    parameter `of`, with the paper's as its default. It acts when a prompt, or a part of one, was read; decoded tokens
    come on top.
    """

    contract: ClassVar[str] = "allocation"

    of: Retention

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of.renumbers or self.of.raw or self.of.moves or self.of.companion() is not None:
            raise ParameterError(
                f"{self.name}: of={self.of} is not allowed; allowed is a method that scores each pair when a prompt "
                "was read, such as snapkv"
            )

    @property
    def rotates(self) -> bool:  # type: ignore[override]
        """Whether the other method asks for the layer's rotation."""
        return self.of.rotates

    @property
    def ragged(self) -> bool:  # type: ignore[override]
        """Whether the other method lets heads keep different numbers of pairs."""
        return self.of.ragged

    @property
    def keeps_all(self) -> bool:
        """Whether the other method keeps all."""
        return self.of.keeps_all

    def score(self, step: Step) -> Float[Tensor, "batch heads key"]:
        """The other method's scores."""
        return self.of.score(step)

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """The other method's limit."""
        return self.of.limit(real, seat)

    def split(
        self, scores: Float[Tensor, "batch kv_head key"], limit: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch kv_head"]:
        """The other method's numbers."""
        return self.of.split(scores, limit)

    def carry(self, step: Step) -> Float[Tensor, "batch heads key"] | None:
        """The other method's numbers."""
        return self.of.carry(step)

    def claimed(self, dense: DenseCache) -> float:
        """What the other method claims."""
        return self.of.claimed(dense)
