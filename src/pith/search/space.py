"""What there is to search: the swept parameters of methods, and the recipes that the registry's methods make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pith.core import InputError, Method, Parameter, PithError, Recipe, methods, nearest

NONE = "none"
"""What a recipe holds for a question that none of its methods answers."""

LOG = 10.0
"""A range whose ends differ by so many times is searched by the logarithm."""


@dataclass(frozen=True)
class Place:
    """A swept parameter of a method, or of a method in it.

    Attributes:
        path: the parameters' names from the outer method on.
        parameter: what is known of it.
    """

    path: tuple[str, ...]
    parameter: Parameter

    def value(self, method: Method) -> Any:
        """What the method has there."""
        found: Any = method
        for name in self.path:
            found = getattr(found, name)
        return found

    def put(self, method: Method, value: Any) -> Method:
        """The method with another value there.

        Raises:
            ParameterError: the value is not allowed, alone or beside the others.
        """
        name, *inner = self.path
        if inner:
            value = Place(tuple(inner), self.parameter).put(getattr(method, name), value)
        return dataclasses.replace(method, **{name: value})

    def at(self, share: float) -> Any:
        """The value that lies so far along the sweep: 0 saves most, 1 least."""
        sweep = self.parameter.sweep
        if not self.parameter.is_range:
            return sweep[min(int(share * len(sweep)), len(sweep) - 1)]
        first, last = sweep
        return self.round(first + share * (last - first))

    def round(self, value: float) -> float | int:
        """A value of the range with three digits at most, rounded towards what saves more."""
        first, last = self.parameter.sweep
        if value:
            unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
            towards = math.floor if first <= last else math.ceil
            # what is round already stays: 0.29 / 0.001 is a little less than 290
            steps = round(value / unit)
            value = float(f"{(steps if math.isclose(steps, value / unit) else towards(value / unit)) * unit:.3g}")
        value = min(max(value, min(first, last)), max(first, last))
        return math.floor(value) if isinstance(first, int) else float(value)


def places(method: Method) -> list[Place]:
    """The swept parameters of a method in their order, those of methods in it where they stand."""
    found: list[Place] = []
    for parameter in method.parameters():
        value = getattr(method, parameter.name)
        if parameter.sweep:
            found.append(Place((parameter.name,), parameter))
        elif isinstance(value, Method):
            found += [Place((parameter.name, *inner.path), inner.parameter) for inner in places(value)]
    return found


def knob(method: Method) -> Place | None:
    """The parameter that decides what a method saves: the first that is swept."""
    return next(iter(places(method)), None)


class Chooser(Protocol):
    """Decides each open question of a search space; equal names ask equal questions."""

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        """One of these."""

    def number(self, name: str, low: float, high: float, log: bool) -> float | int:
        """A number from `low` to `high`, whole where both are; by the logarithm where `log` says so."""


@dataclass(frozen=True)
class Space:
    """Recipes of at most one method for each question.

    Attributes:
        names: the methods that answer each question, by the question.
    """

    names: dict[str, tuple[str, ...]]

    def build(self, chooser: Chooser) -> Recipe:
        """The recipe that a chooser decides for.

        Raises:
            PithError: the methods, or the values of one, do not go together.
        """
        known = methods()
        picked = (chooser.choice(question, (NONE, *names)) for question, names in self.names.items())
        return Recipe([_filled(known[name](), name, chooser) for name in picked if name != NONE])

    def decisions(self, recipe: Recipe) -> dict[str, Any]:
        """What a chooser must decide for the recipe to be built, as far as its parameters are searched."""
        answers: dict[str, Any] = dict.fromkeys(self.names, NONE)
        for method in recipe:
            answers |= {method.question: method.name, **_answers(method, method.name)}
        return answers

    def alone(self, share: Callable[[Method], float | None]) -> list[Recipe]:
        """Every method alone, with its knob so far along the sweep as `share` says; None leaves the method out.

        The questions take turns, so that the first few come from all of them.
        """
        most = max(map(len, self.names.values()), default=0)
        found = [methods()[names[i]]() for i in range(most) for names in self.names.values() if i < len(names)]
        shares = [(method, share(method)) for method in found]
        return [Recipe([turned(method, at)]) for method, at in shares if at is not None]

    @property
    def weights(self) -> tuple[str, ...]:
        """The methods in it that change weights."""
        return tuple(name for names in self.names.values() for name in names if methods()[name].order == 0)

    @property
    def reads_texts(self) -> bool:
        """Whether a method in it reads calibration texts."""
        return any(getattr(methods()[name], "calibrated", False) for name in self.weights)


def space(among: Sequence[str], without: Sequence[str] = ()) -> Space:
    """The space of registered methods.

    Args:
        among: contracts and methods by their names; of a contract those that train or search for long are left out.
        without: the names of methods that are left out.

    Raises:
        InputError: there is no such contract or method.
    """
    known = methods()
    contracts = {method.contract for method in known.values()}
    for word in among:
        if word not in contracts and word not in known:
            there = {*contracts, *known}
            raise InputError(f"no contract or method is called {word!r}{nearest(word, there)}; see pith methods")
    names: dict[str, tuple[str, ...]] = {}
    for name, method in known.items():
        meant = name in among or (method.contract in among and not getattr(method, "trains", False))
        if meant and name not in without:
            names[method.question] = (*names.get(method.question, ()), name)
    return Space(names)


def contracts(weights: bool) -> list[str]:
    """The contracts of all registered methods that change weights, or else of those that act later."""
    return sorted({method.contract for method in methods().values() if (method.order == 0) == weights})


def lower(recipe: Recipe) -> Recipe | None:
    """The recipe with the knob of the first method turned on that changes weights and can still save more.

    Of choices the next is taken, of a range the middle of what is left; None where nothing is left.
    """
    for method in recipe.weights:
        place = knob(method)
        value = place.value(method) if place else None
        if place is None or (place.parameter.is_range and not isinstance(value, int | float)):
            continue
        sweep = place.parameter.sweep
        further: Any
        if place.parameter.is_range:
            further = place.round((value + sweep[0]) / 2)
        else:
            further = sweep[max(sweep.index(value) - 1, 0)] if value in sweep else value
        if further != value:
            return Recipe(place.put(one, further) if one is method else one for one in recipe)
    return None


def turned(method: Method, share: float) -> Method:
    """The method with its knob so far along the sweep; one without a knob as it is."""
    place = knob(method)
    return place.put(method, place.at(share)) if place else method


def inside(method: Method, parameter: Parameter) -> tuple[str, ...]:
    """The registered methods that can stand in a parameter of another; none of them holds a method itself."""
    fitting = []
    for name, other in methods().items():
        if not issubclass(other, parameter.takes) or any(p.takes for p in other.parameters()):
            continue
        try:
            dataclasses.replace(method, **{parameter.name: other()})
        except PithError:
            continue
        fitting.append(name)
    return tuple(fitting)


def _filled(method: Method, prefix: str, chooser: Chooser) -> Method:
    """The method with every swept parameter, and every method in it, decided for."""
    values: dict[str, Any] = {}
    for parameter in method.parameters():
        name = f"{prefix}.{parameter.name}"
        if parameter.sweep:
            values[parameter.name] = _decided(name, parameter, chooser)
        elif parameter.takes and (options := inside(method, parameter)):
            inner = chooser.choice(name, options)
            values[parameter.name] = _filled(methods()[inner](), f"{name}.{inner}", chooser)
    return dataclasses.replace(method, **values)


def _decided(name: str, parameter: Parameter, chooser: Chooser) -> Any:
    if not parameter.is_range:
        return chooser.choice(name, parameter.sweep)
    low, high = sorted(parameter.sweep)
    return Place((), parameter).round(chooser.number(name, low, high, log=low > 0 and high / low >= LOG))


def _answers(method: Method, prefix: str) -> dict[str, Any]:
    """What `_filled` has to be answered to make this method, as far as it is searched."""
    answers: dict[str, Any] = {}
    for parameter in method.parameters():
        value, name = getattr(method, parameter.name), f"{prefix}.{parameter.name}"
        if isinstance(value, Method):
            answers |= {name: value.name, **_answers(value, f"{name}.{value.name}")}
        elif value in parameter.sweep or _is_between(value, parameter):
            answers[name] = value
    return answers


def _is_between(value: Any, parameter: Parameter) -> bool:
    """Whether a value lies in a range that is searched; one that is no number does not."""
    if not parameter.is_range or not isinstance(value, int | float):
        return False
    return bool(min(parameter.sweep) <= value <= max(parameter.sweep))
