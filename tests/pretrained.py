"""Pretrained models for tests, which skip where a model cannot be had."""

from __future__ import annotations

import functools

import pytest

from pith.models import Loaded, load
from pith.models.cached import fetched_folder
from pith.models.packages import PACKAGED


@functools.cache
def smollm2() -> Loaded:
    """SmolLM2-135M-Instruct in float32, loaded once in each process; a test that uses it leaves it as it was.

    It takes two seconds to load, and one to read 64 tokens: where a random model shows the same, take that.
    """
    model = PACKAGED["smollm2"]
    if fetched_folder(model.name) is None:
        pytest.skip(f"smollm2 is not on this machine; get it with: {model.get}")
    return load(model.name, "float32", "cpu")
