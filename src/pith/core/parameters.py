"""Values with named parameters: what methods and tasks have in common."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union

from pith.core.budget import ALLOWED, Budget, parse_budget
from pith.core.errors import ParameterError, nearest


def param(default: Any, doc: str, *, ge: float | None = None, le: float | None = None, odd: bool = False) -> Any:
    """A parameter: a dataclass field with its documentation and its range.

    Args:
        default: the value that is taken when none is given, the paper's where it states one.
        doc: one line that says what it is, with its unit.
        ge, le: the smallest and the largest value allowed.
        odd: whether only odd values are allowed.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, "ge": ge, "le": le, "odd": odd})


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter; `kind` and `allowed` are words for people."""

    name: str
    kind: str
    default: Any
    allowed: str
    doc: str


@dataclass(frozen=True, kw_only=True)
class Parametrised:
    """A value with parameters, built, compared and printed: `str(value)` is the text that builds it again.

    Two are equal when they are of one class with equal parameters. Each parameter is checked when the value is built.

    Class attributes:
        name: the word that stands for it: its file's name, or its class's name in snake case.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            stem = cls.__module__.rpartition(".")[2]
            cls.name = stem if stem.replace("_", "") == cls.__name__.lower() else snake_case(cls.__name__)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(self.name, field, hints[field.name], getattr(self, field.name))

    def __str__(self) -> str:
        given = (f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
        return f"{self.name}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in given)})"

    @classmethod
    def build(cls, **values: Any) -> typing.Self:
        """Builds the value from parameters by name.

        Raises:
            ParameterError: a name is none of the parameters (the message lists them), or a value is wrong.
        """
        known = [p.name for p in cls.parameters()]
        for given in values:
            if given not in known:
                has = ", ".join(known) or "none"
                raise ParameterError(f"{cls.name} has no parameter {given!r}{nearest(given, known)}; it has: {has}")
        return cls(**values)

    @classmethod
    def parameters(cls) -> list[Parameter]:
        """The parameters, in their order."""
        hints = typing.get_type_hints(cls)
        return [
            Parameter(f.name, _kind(hints[f.name]), f.default, _allowed(f, hints[f.name]), f.metadata.get("doc", ""))
            for f in dataclasses.fields(cls)
        ]

    @classmethod
    def doc(cls, part: Literal["summary", "formula", "deviations"]) -> str:
        """A part of the class docstring: the text without its formula, the formula, or what is under "Deviates:"."""
        text = inspect.cleandoc(cls.__doc__ or "")
        body, _, deviations = text.partition("Deviates:")
        if part == "deviations":
            return inspect.cleandoc(deviations).strip()
        blocks = [b for b in body.split("\n\n") if b.strip()]
        formula = [b for b in blocks if b.lstrip("\n").startswith("    ")]
        if part == "formula":
            return "\n\n".join(inspect.cleandoc(b) for b in formula)
        return "\n\n".join(b for b in blocks if b not in formula).strip()


def snake_case(name: str) -> str:
    """`StreamingLLM` as `streaming_llm`, `H2O` as `h2o`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _kind(hint: Any) -> str:
    """A type as a person reads it."""
    if hint == Budget:
        return "budget"
    if typing.get_origin(hint) is Literal:
        return "choice"
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else _kind(a) for a in typing.get_args(hint))
    return str(getattr(hint, "__name__", hint))


def _allowed(field: dataclasses.Field[Any], hint: Any) -> str:
    """A parameter's range as a person reads it."""
    if hint == Budget:
        return ALLOWED
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    ge, le = field.metadata.get("ge"), field.metadata.get("le")
    bounds = [f"{ge} or more" if ge is not None else "", f"at most {le}" if le is not None else ""]
    kind = ("an odd " if field.metadata.get("odd") else "") + _kind(hint)
    return ", ".join([kind, *filter(None, bounds)])


def _check(owner: str, field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    if hint == Budget:
        try:
            parse_budget(value)
        except ParameterError as error:
            raise ParameterError(f"{owner}: {error}") from None
        return
    ge, le, odd = (field.metadata.get(k) for k in ("ge", "le", "odd"))
    fits = _is_a(value, hint)
    if fits and isinstance(value, int | float) and not isinstance(value, bool):
        fits = (ge is None or value >= ge) and (le is None or value <= le) and (not odd or value % 2 == 1)
    if not fits:
        raise ParameterError(f"{owner}: {field.name}={value!r} is not allowed; allowed is {_allowed(field, hint)}")


def _is_a(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, types.UnionType):
        return any(_is_a(value, a) for a in args)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and value == value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
