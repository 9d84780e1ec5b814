"""Before anything of Pith is imported: shapes in annotations are checked at run time."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from jaxtyping import install_import_hook

install_import_hook(["pith.attention", "pith.cache", "pith.tasks", "pith.models", "pith.measure"], "beartype.beartype")

import torch

torch.set_num_threads(1)  # the suite runs in several processes
