"""Numbers as people read them, where every room can reach them."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether a text can be written to a file; bytes of a command line that are not UTF-8 cannot."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def bytes_(count: float) -> str:
    """A number of bytes with a binary unit and three digits, such as `1.50 MiB`."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB"]
    count /= 1024
    while count >= 1000 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{digits(count)} {units[0]}"


def digits(value: float) -> str:
    """A number with three digits: `0.950`, `12.3`, `1,234`."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size and size < 0.0095:
        return f"{value:.2g}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"
