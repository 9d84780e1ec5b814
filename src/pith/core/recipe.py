"""A recipe: an ordered set of methods, as a value, as text and as a TOML file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pith.core.errors import RecipeError
from pith.core.files import resolve_path, write_whole
from pith.core.method import Method
from pith.core.parse import DENSE, built, parse_calls
from pith.core.runtime import runtime
from pith.core.toml import load_calls, table


class Recipe:
    """Methods that act together, one for each question but where methods say that several may stand.

    Weights come first, in the order written; then attention-time methods, then decoding, whatever the order written.

    Args:
        methods: the methods; none makes the dense model.

    Raises:
        RecipeError: two methods answer one question, or one of them cannot act with another.

    Example:
        >>> from pith.cache.snapkv import SnapKV
        >>> str(Recipe([SnapKV(budget=0.25)]))
        'snapkv(budget=0.25)'
        >>> Recipe.parse("snapkv(budget=0.25)") == Recipe([SnapKV(budget=0.25)])
        True
    """

    def __init__(self, methods: Iterable[Method] = ()) -> None:
        self.methods: tuple[Method, ...] = tuple(sorted(methods, key=lambda m: m.order))
        answered: dict[str, Method] = {}
        for method in self.methods:
            other = answered.setdefault(method.question, method)
            if other is not method and method.question and not method.several:
                raise RecipeError(
                    f"{other.name} and {method.name} both answer the question {method.question!r}; keep one of them"
                )
        for method, other in itertools.permutations(self.methods, 2):
            if reason := method.refuses(other):
                raise RecipeError(f"{method.name} and {other.name} cannot be combined: {reason}")
        for earlier, later in itertools.combinations(self.methods, 2):
            if reason := later.refuses_after(earlier):
                raise RecipeError(f"{later.name} cannot follow {earlier.name}: {reason}")

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe that a text stands for, such as `"snapkv(budget=0.25)"`; `"dense"` is the one without a method.

        A method in a method is written first: `"ada_kv(snapkv(budget=0.25), floor_alpha=0.2)"`.

        Raises:
            RecipeSyntaxError: the text is no recipe; the message points at the place.
            UnknownMethodError, ParameterError, RecipeError: a method, a parameter or the combination cannot be.
        """
        return cls(map(built, parse_calls(text)))

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The recipe in a TOML file: one `[[method]]` table each, with `name` and the parameters.

        A method in a method is a table in the table: `of = { name = "snapkv", budget = 0.25 }`.

        Raises:
            RecipeSyntaxError: the file cannot be read, or is no such TOML.
            UnknownMethodError, ParameterError, RecipeError: a method, a parameter or the combination cannot be.
        """
        return cls(map(built, load_calls(path)))

    def save(self, path: str | Path) -> None:
        """Write the recipe as a TOML file that `load` reads.

        Raises:
            StoreError: the file cannot be written.
        """
        write_whole(resolve_path(path), self.to_toml().encode())

    def to_toml(self) -> str:
        """The recipe as TOML, with every parameter written out."""
        return "\n".join(f"[[method]]\n{table(method)}\n" for method in self.methods)

    @property
    def weights(self) -> Recipe:
        """The part that changes a model's weights, once, before anything is read."""
        return Recipe(method for method in self.methods if method.order == 0)

    @property
    def rest(self) -> Recipe:
        """The part that acts while the model reads and writes."""
        return Recipe(method for method in self.methods if method.order > 0)

    def answer(self, question: str) -> Method | None:
        """The recipe's method for a question, or None."""
        return next((m for m in self.methods if m.question == question), None)

    def cache(self, model: Any) -> Any:
        """A Transformers cache for `past_key_values=`, in which this recipe's attention-time methods act.

        It sets the model's attention to Pith's, which equals the dense one for every other cache;
        `model.set_attn_implementation("sdpa")` takes that back. One cache serves one batch of sequences.

        Raises:
            ModelError: a method cannot take the model; the message says why.
            RecipeError: a method changes weights, which a cache cannot.
        """
        return runtime().cache(model, self.without_weights())

    def without_weights(self) -> Recipe:
        """This recipe, if no method of it changes weights.

        Raises:
            RecipeError: one does, which cannot be taken back when a `with` block ends.
        """
        if len(self.weights):
            raise RecipeError(
                f"{self.weights} changes weights: pith.compress(model, recipe.weights) returns a new model with that "
                "part, to which recipe.rest can be applied"
            )
        return self

    def __iter__(self) -> Iterator[Method]:
        return iter(self.methods)

    def __len__(self) -> int:
        return len(self.methods)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.methods == other.methods

    def __hash__(self) -> int:
        return hash(self.methods)

    def __str__(self) -> str:
        return " + ".join(map(str, self.methods)) or DENSE

    def __repr__(self) -> str:
        return f"Recipe.parse({str(self)!r})"
