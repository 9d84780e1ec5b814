"""What goes wrong while tensors are written, as one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pith.core import InputError, PithError


@contextmanager
def write_errors(path: Path, kind: type[PithError] = InputError) -> Iterator[None]:
    """Turn the errors of a full disk, a limit or a permission into one line; all others pass through.

    safetensors raises an error of its own, which is not an OSError, and tokenizers a plain `Exception`.

    Args:
        path: what is written.
        kind: of the error that is raised.

    Raises:
        PithError: the file or folder cannot be written; the message says why.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    except SafetensorError as error:
        reason = _reason(error)
    except Exception as error:
        if type(error) is not Exception:
            raise
        reason = _reason(error)
    else:
        return
    raise kind(f"{path} cannot be written: {reason[:120]}")


def _reason(error: Exception) -> str:
    """Return what the system says in an error of Rust, such as `I/O error: No space left on device (os error 28)`."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r" \(os error \d+\).*$", "", line).rpartition(": ")[2]
