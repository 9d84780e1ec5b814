"""Modules that stand where plain Transformers has others, and how a model is built again with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from pith.core import ModelError, methods


class StandIn(nn.Module, ABC):
    """A module that plain Transformers does not know: a packed linear layer, a part that was dropped.

    A model with such modules is saved with a list of them, and loaded by building the plain model and putting each in
    its place. What a stand-in holds must be in its parameters and buffers; all else in `plan`.

    Class attributes:
        kind: its name in files; every class has one of its own.
        reads_all: whether every token reads all its tensors, once, and no other module's.
    """

    kind: ClassVar[str]
    reads_all: ClassVar[bool] = True

    @abstractmethod
    def plan(self) -> dict[str, Any]:
        """All that `build` needs beside the tensors: numbers, texts, truth values, and lists of them."""

    @classmethod
    @abstractmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> StandIn:
        """A stand-in with empty tensors, into which those of a file are loaded.

        Args:
            plan: what `plan` gave.
            replaced: the plain module that stands in its place; the stand-in may take modules over from it.
            dtype: of the model.
        """

    def placed(self, model: nn.Module) -> None:
        """Is told that a model was loaded and every stand-in of it is in its place, before their tensors are."""


def stand_ins(model: nn.Module) -> dict[str, StandIn]:
    """The model's stand-ins by name, an outer one before those in it."""
    return {name: module for name, module in model.named_modules() if isinstance(module, StandIn)}


def layout(model: nn.Module) -> list[dict[str, Any]]:
    """What `rebuild` needs to put every stand-in of a model in its place, in order, as plain data."""
    return [{"name": name, "kind": module.kind, **module.plan()} for name, module in stand_ins(model).items()]


def rebuild(model: nn.Module, parts: list[dict[str, Any]], dtype: torch.dtype) -> None:
    """Puts stand-ins with empty tensors into a plain model.

    Raises:
        ModelError: a kind is not known, or the model has no module of that name.
    """
    known = _kinds()
    for part in parts:
        plan = {key: value for key, value in part.items() if key not in ("name", "kind")}
        name, kind = part["name"], part["kind"]
        if kind not in known:
            raise ModelError(f"a module of the kind {kind!r} is not known here; known are {', '.join(sorted(known))}")
        try:
            replaced = model.get_submodule(name)
        except AttributeError:
            raise ModelError(f"{type(model).__name__} has no module {name!r}, which the file says is {kind}") from None
        model.set_submodule(name, known[kind].build(plan, replaced, dtype))


def _kinds() -> dict[str, type[StandIn]]:
    methods()  # their modules bring stand-ins of their own
    found: dict[str, type[StandIn]] = {}
    waiting = list(StandIn.__subclasses__())
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if "kind" in one.__dict__:
            found[one.kind] = one
    return found
