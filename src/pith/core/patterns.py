"""Values by name pattern, such as the bits of some layers and those of all others."""

from __future__ import annotations

import fnmatch
from typing import Any


class Patterns(dict[str, Any]):
    """Values by name pattern, such as `{"*.down_proj": 4, "*": 3}`: of a name the first that fits counts.

    A pattern fits a name, or the name's last part, as shells match files.
    """

    def __hash__(self) -> int:  # type: ignore[override]  # it is never changed: it is a value in a frozen dataclass
        return hash(tuple(self.items()))

    def of(self, name: str, default: Any = None) -> Any:
        """The value of the first pattern that fits a name; the default where none does."""
        return next((value for pattern, value in self.items() if fits(name, pattern)), default)


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits a dotted name or its last part: `*.mlp.*` and `down_proj` both fit `0.mlp.down_proj`."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition(".")[2], pattern)
