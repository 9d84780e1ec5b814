"""Numbers as people read them."""

from __future__ import annotations


def bytes_(count: float) -> str:
    """A number of bytes with a binary unit and three digits, such as `1.50 MiB`."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB"]
    count /= 1024
    while count >= 1000 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{digits(count)} {units[0]}"


def seconds(value: float) -> str:
    """A time with three digits and the unit that suits it, such as `12.3 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{digits(value / size)} {unit}"
    return f"{digits(value / 1e-6)} µs"


def percent(share: float) -> str:
    """A share as a percentage, such as `25.1%`."""
    return f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"


def digits(value: float) -> str:
    """A number with three digits: `0.950`, `12.3`, `1,234`."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size and size < 0.0095:
        return f"{value:.2g}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


def listed(words: list[str], joint: str = "and") -> str:
    """Words in a sentence: `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}" if words else ""
