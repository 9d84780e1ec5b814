"""Whatever keeps tensors from being written is one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pith.core import InputError, StoreError
from pith.weights.writing import write_errors


def test_errors_of_python_of_safetensors_and_of_tokenizers(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^out cannot be written: No space left on device$"),
        write_errors(Path("out")),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(StoreError, match=r"^out cannot be written: No such file or directory$"),
        write_errors(Path("out"), StoreError),
    ):
        save_file({"a": torch.ones(2)}, tmp_path / "none" / "file")
    with pytest.raises(InputError, match=r"written: No space left on device$"), write_errors(Path("out")):
        raise Exception("No space left on device (os error 28)")


def test_what_is_no_error_of_writing_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), write_errors(Path("out")):
        raise ZeroDivisionError
