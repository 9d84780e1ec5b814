"""The contract of methods that answer: how are kept pairs stored?"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from pith.core import Method

Part = Literal["keys", "values"]
"""Which half of the pairs is stored."""


@dataclass(frozen=True)
class Packed:
    """Tokens in a storage's own form.

    Attributes:
        tokens: tensors [batch, head, token, ...] of three or four dimensions: what each token has of its own.
        groups: tensors [batch, head, group, ...]: what the tokens of a group share, such as their scale. In both, one
            head stands for all.
        size: consecutive tokens in a group; the last group may have fewer.
        part: whether these are keys or values.
    """

    tokens: dict[str, Tensor]
    groups: dict[str, Tensor]
    size: int
    part: Part

    @property
    def count(self) -> int:
        """The number of tokens."""
        return next(iter(self.tokens.values())).shape[2]


@dataclass(frozen=True)
class Context:
    """What a storage may look at while it encodes, beside the tokens themselves; what is None there is nothing of.

    Attributes:
        query: the queries of the forward that has just attended, as attention used them.
        asks: which of these are no padding; None is all.
        rest: the newer tokens of the same part, which stay as they are.
        real: which of the tokens to encode, and then of the rest, are no padding; None is all.
    """

    query: Float[Tensor, "batch query_head query dim"] | None = None
    asks: Bool[Tensor, "batch query"] | None = None
    rest: Float[Tensor, "batch kv_head rest dim"] | None = None
    real: Bool[Tensor, "batch heads held"] | None = None


@dataclass(frozen=True, kw_only=True)
class Storage(Method):
    """Holds kept pairs in fewer bytes.

    A method writes `due`, `encode` and `decode`. The newest tokens stay as they are until `due` asks for them; then
    they are encoded once and never again. Attention reads what is packed block by block, so that no second copy of the
    cache in full precision comes to be.

    Class attributes:
        per_head: whether `encode` must see each head by itself. Where heads keep different numbers of pairs it is given
            the tokens of all of them one behind the other, as one head; a method that cannot take that says so here.
    """

    question: ClassVar[str] = "how are kept pairs stored?"
    contract: ClassVar[str] = "storage"
    per_head: ClassVar[bool] = False

    @abstractmethod
    def due(self, part: Part, held: int, prefill: bool) -> int:
        """How many of the `held` oldest tokens in full precision are to be encoded now, after this forward."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "batch kv_head token dim"], part: Part, context: Context) -> Packed:
        """Packs tokens.

        Args:
            x: keys as attention uses them, or values; as many tokens as `due` gave, or fewer, of any number.
            part: which of the two.
            context: what else there is to be seen.
        """

    @abstractmethod
    def decode(self, packed: Packed) -> Float[Tensor, "batch kv_head token dim"]:
        """The tokens as `encode` was given them, as nearly as the form allows, in their dtype."""

    def dot(
        self, query: Float[Tensor, "batch kv_head query dim"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query token"]:
        """The products of queries with packed keys; a method overrides it where its form allows a cheaper way."""
        keys = self.decode(packed)
        return query.to(keys.dtype) @ keys.transpose(-1, -2)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query token"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query dim"]:
        """The sums of packed values by weights; a method overrides it where its form allows a cheaper way."""
        values = self.decode(packed)
        return weights.to(values.dtype) @ values
