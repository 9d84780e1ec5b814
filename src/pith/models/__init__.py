"""Models: loading any causal language model, the built-in one, and what is examined.

A `Subject` is a loaded model with a recipe; everything above asks it and never asks how it was loaded.
"""

from pith.weights.model_hash import model_hash, tokenizer_hash
from pith.models.load import BUILTIN, Loaded, builtin, load
from pith.models.positions import require_positions
from pith.models.subject import Subject

__all__ = ["BUILTIN", "Loaded", "Subject", "builtin", "load", "model_hash", "require_positions", "tokenizer_hash"]
