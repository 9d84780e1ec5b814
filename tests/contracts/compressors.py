"""Every registered method that changes weights as a recipe that is done in a moment on tiny models, and such models."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, tokens
from pith.weights import Calibration, Compressor
from pith.weights.calibration import of_tokens

COMPRESSORS = [name for name, method in pith.methods().items() if issubclass(method, Compressor)]

QUICK: dict[str, Any] = {
    "group_size": 32, "steps": 2, "rank": 4, "evaluations": 6, "samples": 4, "epochs": 1, "iterations": 4, "experts": 2,
}  # fmt: skip
"""Values of parameters that many methods have, where a method's default would take long or not fit."""

SMALL: dict[str, str] = {
    "amq": "amq(rtn(group_size=32), bits=4.5, sequences=1, initial=4, rounds=1, candidates=3, population=4, "
    "generations=2)",
    "reallm": "reallm(bits=2, rank=4, steps=2, rounds=1, learn=1)",
    "inheritune": "inheritune(keep=0.5)",
    "llm_drop": "llm_drop(drop=1)",
    "sleb": "sleb(drop=1)",
}
"""Recipes of methods for which those values are not enough."""


def small(name: str, groups: bool = True) -> str:
    """The method where it changes something and takes a moment; with `groups=False` at its own group size."""
    if name in SMALL:
        return SMALL[name] if groups else SMALL[name].replace("group_size=32", "")
    known = {parameter.name: parameter.kind for parameter in pith.methods()[name].parameters()}
    quick = {key: value for key, value in QUICK.items() if groups or key != "group_size"}
    numbers = ("int", "float", "int or choice")
    values = ", ".join(f"{key}={value}" for key, value in quick.items() if known.get(key, "") in numbers)
    return f"{name}({values})"


@cache
def llama(tied: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    """A Llama of four blocks with grouped queries, with matrices so large that what is removed matters."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        **{**COMMON, "num_hidden_layers": 4}, num_key_value_heads=2, head_dim=16, tie_word_embeddings=tied
    )
    model = hf.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()  # `.to` would round its rotary angles
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@cache
def gpt2() -> Any:
    """A GPT-2, whose linear layers lie the other way round."""
    torch.manual_seed(0)
    config = hf.GPT2Config(
        vocab_size=97, n_positions=128, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=None
    )
    return hf.GPT2LMHeadModel(config).eval()


def texts(rows: int = 4, length: int = 32, **more: Any) -> Calibration:
    """Random calibration."""
    return of_tokens(tokens(rows, length, seed=7).tolist(), **more)
