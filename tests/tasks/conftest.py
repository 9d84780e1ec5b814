"""What several tests of tasks share."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def plain() -> Iterator[Any]:
    """The harness's own class for Transformers models; it imports accelerate, of which it uses nothing here."""
    names = ("accelerate", "accelerate.utils")
    absent = importlib.util.find_spec("accelerate") is None
    for name in names if absent else ():
        sys.modules[name] = ModuleType(name)
        for word in ("Accelerator", "InitProcessGroupKwargs", "find_executable_batch_size", "get_max_memory"):
            setattr(sys.modules[name], word, None)
    yield importlib.import_module("lm_eval.models.huggingface").HFLM
    for name in names if absent else ():
        del sys.modules[name]
