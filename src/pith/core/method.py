"""A method: one published technique with its hyper-parameters, as a value."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from pith.core.paper import Paper
from pith.core.parameters import Parametrised


@dataclass(frozen=True, kw_only=True)
class DenseCache:
    """The dense cache of one prompt, of which a method claims to hold a share.

    Attributes:
        tokens: the prompt's length.
        token_bytes: bytes that one token takes, over all layers.
        layers: the number of layers.
        head_dim: numbers of a key.
        number_bytes: bytes of a number.
    """

    tokens: int
    token_bytes: int = 1
    layers: int = 1
    head_dim: int = 64
    number_bytes: int = 2


@dataclass(frozen=True, kw_only=True)
class Method(Parametrised, ABC):
    """One published technique with its hyper-parameters: built, compared, printed and combined as a value.

    A family derives its contract from it, a method derives from the contract. The method's docstring says what it
    does, its formula and, under "Deviates:", where it differs from the paper. Two methods are equal when they are of
    one class with equal parameters; `str(method)` is the text that a recipe holds.

    Class attributes:
        name: the word that stands for it in recipes: its file's name, or its class's name in snake case.
        paper: where it comes from.
        question: the question that its contract answers.
        several: whether a recipe may hold several answers to it, which act in the order written, and not one.
        contract: the name of its contract.
        order: when the contract's methods act: weights 0, attention 1, decoding 2.
    """

    paper: ClassVar[Paper]
    question: ClassVar[str] = ""
    several: ClassVar[bool] = False
    contract: ClassVar[str] = ""
    order: ClassVar[int] = 1

    def refuses(self, other: Method) -> str | None:
        """Why this method cannot stand in a recipe with another one; None if it can."""
        return None

    def refuses_after(self, earlier: Method) -> str | None:
        """Why this method cannot act on what an earlier one of its order left; None if it can."""
        return None

    def claimed(self, dense: DenseCache) -> float:
        """The share of the dense cache that the method says it holds after a prompt, 1 unless it says otherwise."""
        return 1.0
