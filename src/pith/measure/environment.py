"""Where a measurement was taken."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pith.core.machine import processor
from pith.measure.crowding import usable_cores

_PACKAGE = Path(__file__).parents[1]


def environment(model: Any, settings: Mapping[str, Any], dtype_reason: str = "") -> dict[str, Any]:
    """Everything that a measurement depends on beside the model and the recipe, as plain data.

    Args:
        model: the loaded model, for its dtype and device.
        settings: what the user chose, such as the length and the seed; it is part of the answer.
        dtype_reason: why the model has its dtype, as `Loaded` says it.
    """
    device = torch.device(model.device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "pith": version("pith-lm"),
        "commit": commit(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        **({"dtype_reason": dtype_reason} if dtype_reason else {}),
        **settings,
    }


def commit() -> str | None:
    """The commit of Pith's own checkout, with "-dirty" where files differ from it; None where it is installed."""
    checkout = _PACKAGE.parents[1]
    if not (checkout / ".git").exists():
        return None
    # no locks: this must not stand in the way of a commit that is being made
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or a repository without a commit
        return None
    return done.stdout.strip()
