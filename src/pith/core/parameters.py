"""Values with named parameters: what methods and tasks have in common."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union

from pith.core.budget import ALLOWED, MOST, Budget, parse_budget
from pith.core.errors import ParameterError, nearest, shorten, shown
from pith.core.patterns import Patterns
from pith.core.words import is_unicode


def param(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    odd: bool = False,
    sweep: tuple[Any, ...] = (),
    file: bool = False,
    folder: bool = False,
) -> Any:
    """A parameter: a dataclass field with its documentation and its range.

    Args:
        default: the value that is taken when none is given, the paper's where it states one; of a parameter that is
            annotated with a contract, a method.
        doc: one line that says what it is, with its unit.
        ge, le: the smallest and the largest value allowed.
        odd: whether only odd values are allowed.
        sweep: the values that are worth searching, from the one that saves most to the one that saves least. Two
            numbers are the ends of a range; more values, or those of a `Literal`, are choices. Of a method's parameters
            that have one, the first is its knob: what it has decides bytes or time.
        file, folder: whether the value is the path of a file, or of a folder, that the method or the task reads. What
            it holds belongs to the keys of results; no other parameter's value is ever taken for a path.
    """
    told = {"doc": doc, "ge": ge, "le": le, "odd": odd, "sweep": sweep, "file": file, "folder": folder}
    return dataclasses.field(default=default, metadata=told)


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter.

    Attributes:
        name: what it is given by.
        kind, allowed: its type and its range, as words for people.
        default: the value that is taken when none is given.
        doc: what it is.
        takes: where the value is a method itself, the contracts it may answer; empty for every other parameter.
        sweep: the values that are worth searching, as in `param`; empty where none are.
        file, folder: whether the value is the path of a file or of a folder that is read.
    """

    name: str
    kind: str
    default: Any
    allowed: str
    doc: str
    takes: tuple[type[Parametrised], ...] = ()
    sweep: tuple[Any, ...] = ()
    file: bool = False
    folder: bool = False

    @property
    def is_range(self) -> bool:
        """Whether the sweep is the two ends of a range."""
        return len(self.sweep) == 2 and self.kind != "choice" and all(type(v) in (int, float) for v in self.sweep)


@dataclass(frozen=True, kw_only=True)
class Parametrised:
    """A value with parameters, built, compared and printed: `str(value)` is the text that builds it again.

    The text names the parameters that differ from their defaults, and those of `always_named` unless they are "auto".
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
        hints = _hints(type(self))
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) is not (plain := _as_value(value)):
                object.__setattr__(self, field.name, plain)
            _check(self.name, field, hints[field.name], getattr(self, field.name))

    def __str__(self) -> str:
        values = {p.name: (p, getattr(self, p.name)) for p in self.parameters()}
        first, always = next((p.name for p, _ in values.values() if p.takes), None), self.always_named()
        words: list[str] = []
        for name, (parameter, value) in values.items():
            # by text: to Python budget=1, one token, equals budget=1.0, everything
            default = value == parameter.default and repr(value) == repr(parameter.default)
            if default and (name not in always or value == "auto"):
                continue
            if name == first and isinstance(value, Parametrised):
                words.insert(0, str(value))
            else:
                words.append(f"{name}={written(value)}")
        return f"{self.name}({', '.join(words)})"

    @classmethod
    def always_named(cls) -> tuple[str, ...]:
        """Return the parameters that the text names where they are defaults too; none unless a class says otherwise."""
        return ()

    @classmethod
    def build(cls, /, **values: Any) -> typing.Self:
        """Builds the value from parameters by name.

        Raises:
            ParameterError: a name is none of the parameters (the message lists them), or a value is wrong.
        """
        known = [p.name for p in cls.parameters()]
        for given in values:
            if given not in known:
                has = ", ".join(known) or "none"
                hint = nearest(given, known)
                raise ParameterError(f"{cls.name} has no parameter {shown(given, 60)}{hint}; it has: {has}")
        hints, plain = _hints(cls), {name: _as_value(value) for name, value in values.items()}
        for field in dataclasses.fields(cls):
            if field.name in plain:
                _check(cls.name, field, hints[field.name], plain[field.name])
        return cls(**plain)

    @classmethod
    def parameters(cls) -> list[Parameter]:
        """The parameters, in their order."""
        hints = _hints(cls)
        return [
            Parameter(
                f.name, _kind(hints[f.name]), _default(f), _allowed(f, hints[f.name]), f.metadata.get("doc", ""),
                _contracts(hints[f.name]), tuple(f.metadata.get("sweep", ())),
                f.metadata.get("file", False), f.metadata.get("folder", False),
            )
            for f in dataclasses.fields(cls)
        ]  # fmt: skip

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


def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; they are evaluated once, which takes milliseconds."""
    found: dict[str, Any] | None = cls.__dict__.get("_evaluated_hints")
    if found is None:
        found = typing.get_type_hints(cls)
        cls._evaluated_hints = found  # type: ignore[attr-defined]
    return found


def snake_case(name: str) -> str:
    """`StreamingLLM` as `streaming_llm`, `H2O` as `h2o`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def written(value: Any) -> str:
    """A parameter's value as recipes write it."""
    return str(value) if isinstance(value, Parametrised) else repr(value)


def _as_value(value: Any) -> Any:
    """A value that can be hashed: of a dictionary its `Patterns`, of a list a tuple."""
    if isinstance(value, dict) and not isinstance(value, Patterns):
        return Patterns(value)
    return tuple(value) if isinstance(value, list) else value


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _contracts(hint: Any) -> tuple[type[Parametrised], ...]:
    """The classes of methods in a type."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(part for part in parts if inspect.isclass(part) and issubclass(part, Parametrised))


def _words(method: type[Parametrised]) -> list[str]:
    """The contracts that a class of methods stands for: its own, or those that were derived from it."""
    own = getattr(method, "contract", "")
    derived = [own] if own else [word for one in method.__subclasses__() for word in _words(one)]
    return list(dict.fromkeys(derived)) or [snake_case(method.__name__)]


def _kind(hint: Any) -> str:
    """A type as a person reads it."""
    if hint == Budget:
        return "budget"
    if typing.get_origin(hint) is Literal:
        return "choice"
    if typing.get_origin(hint) in (Union, types.UnionType):
        kinds = " or ".join("none" if a is type(None) else _kind(a) for a in typing.get_args(hint))
        return " or ".join(dict.fromkeys(kinds.split(" or ")))  # two classes may have one contract
    if _contracts(hint):
        return " or ".join(_words(hint))
    if hint is Patterns:
        return "values by name pattern"
    if typing.get_origin(hint) is tuple:
        return "several"
    return str(getattr(hint, "__name__", hint))


def _allowed(field: dataclasses.Field[Any], hint: Any) -> str:
    """A parameter's range as a person reads it."""
    if hint == Budget:
        return ALLOWED
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    ge, le = field.metadata.get("ge"), field.metadata.get("le")
    if hint_parts := [a for a in typing.get_args(hint) if typing.get_origin(a) is Literal]:
        values = ", ".join(repr(v) for part in hint_parts for v in typing.get_args(part))
        if int in typing.get_args(hint):
            return f"int, {ge} or more, or {values}"
        return f"one of {values}" + (", or such by name pattern" if Patterns in typing.get_args(hint) else "")
    bounds = [f"{ge} or more" if ge is not None else "", f"at most {le}" if le is not None else ""]
    kind = ("an odd " if field.metadata.get("odd") else "") + _kind(hint)
    if _contracts(hint):
        kind = " or ".join(word if word == "none" else _with_article(word) for word in kind.split(" or "))
        default = _default(field)
        bounds.append(f"such as {default.name}" if isinstance(default, Parametrised) else "")
    return ", ".join([kind, *filter(None, bounds)])


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _check(owner: str, field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    if hint == Budget:
        try:
            parse_budget(value)
        except ParameterError as error:
            raise ParameterError(f"{owner}: {error}") from None
        return
    parts = list(value.values()) if isinstance(value, Patterns) else value if isinstance(value, tuple) else [value]
    if any(isinstance(one, int) and abs(one) > MOST for one in parts):
        raise ParameterError(f"{_given(owner, field, value)} is too large; allowed are integers below 2**63")
    fits = _is_a(value, hint)
    if fits and isinstance(value, Patterns):
        flat = (_is_a(k, str) and _is_a(v, hint) and not isinstance(v, dict) for k, v in value.items())
        fits = bool(value) and all(flat)
    ge, le, odd = (field.metadata.get(k) for k in ("ge", "le", "odd"))
    for one in parts if fits else []:
        if isinstance(one, int | float) and not isinstance(one, bool):
            fits = fits and (ge is None or one >= ge) and (le is None or one <= le) and (not odd or one % 2 == 1)
    if not fits:
        raise ParameterError(f"{_given(owner, field, value)} is not allowed; allowed is {_allowed(field, hint)}")


def _given(owner: str, field: dataclasses.Field[Any], value: Any) -> str:
    return f"{owner}: {field.name}={shorten(str(value)) if isinstance(value, Parametrised) else shown(value)}"


def _is_a(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args)  # to Python 4.0 and True are integers
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(one, args[0]) for one in value)
    if origin in (Union, types.UnionType):
        return any(_is_a(value, a) for a in args)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint) and (not isinstance(value, str) or is_unicode(value))
