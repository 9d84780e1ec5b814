"""Models: loading any causal language model, the built-in one, and what is examined.

A `Subject` is a loaded model with a recipe; everything above asks it and never asks how it was loaded.
"""

from pith.models.export import export
from pith.models.load import Loaded, builtin, load
from pith.models.locate import BUILTIN
from pith.models.positions import require_positions
from pith.models.subject import Subject
from pith.weights.model_hash import model_hash, tokenizer_hash

__all__ = [
    "BUILTIN", "Loaded", "Subject", "builtin", "export", "load", "model_hash", "require_positions", "tokenizer_hash",
]  # fmt: skip
