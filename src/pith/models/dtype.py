"""Which dtype is faster on this machine's processor: the checkpoint's own, or float32.

Many processors have no instructions for bfloat16 and float16: there a product of matrices in them takes several times
as long as in float32. A measurement of the model's own shapes says whether this is one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from pith.core import warn
from pith.core.machine import free_memory, processor
from pith.core.words import bytes_
from pith.weights import PackedLinear
from pith.weights.turns import by_turns

PROMPT = 32
"""Tokens of the prompt whose product is timed."""

DECODED = 2
"""Products of one token that are counted beside that of a prompt: prompts are most of what is read."""

CHECKPOINT = "checkpoint"
"""What is given for a dtype where the model is to keep its own."""

OWN = "the checkpoint's own"

_CLEAR = 1.25
"""Float32 is taken where the checkpoint's dtype takes at least so many times as long."""

_NOTICED = 0.01
"""Seconds of the whole model for that prompt and those tokens; a smaller gain is not worth another dtype."""

_SMALL = 500_000
"""Models of fewer weights are not measured: no processor needs as long for their products in any dtype."""

_STREAMED = 4 * 2**20
"""Weights that one token is multiplied with, at most: more than a cache of the processor holds in float32."""

_PRODUCT = 2**19
"""Weights of the matrix that the prompt is multiplied with, at most: of a larger one some rows are taken."""

_ROUNDS, _AT_LEAST, _SECONDS = 9, 5, 0.1

_EXACT = (torch.bfloat16, torch.float16)
"""The dtypes whose every number is one of float32's."""

Reader = Callable[[str], Any]
"""Reads the model in a dtype: "auto" is the checkpoint's own."""


@dataclass(frozen=True)
class Times:
    """How long products of a model's shapes take in a dtype and in float32; seconds, the best of a few rounds.

    Attributes:
        prompt, prompt_float32: of `PROMPT` tokens with one matrix.
        token, token_float32: of one token with one matrix.
    """

    prompt: float
    prompt_float32: float
    token: float
    token_float32: float

    @property
    def gain(self) -> float:
        """Seconds that float32 saves for a prompt and a few decoded tokens; below 0 where it takes longer."""
        return self.prompt - self.prompt_float32 + DECODED * (self.token - self.token_float32)

    @property
    def ratio(self) -> float:
        """The dtype's time for them as a multiple of float32's."""
        return 1 + self.gain / (self.prompt_float32 + DECODED * self.token_float32)

    def __str__(self) -> str:
        """Return both ratios in words, to go on with what is multiplied."""
        prompt, token = self.prompt / self.prompt_float32, self.token / self.token_float32
        return f"{prompt:.1f} times as long as float32 for a prompt and {token:.1f} times for one token"


def read_fastest(read: Reader, kind: str, device: torch.device) -> tuple[Any, str]:
    """Read a model in the dtype that was asked for, or in the faster one; return it and why it has its dtype.

    With "auto" a model in bfloat16 or float16 that is to run on a processor is read again in float32 where that is
    clearly faster there and fits into memory; a warning says so. No weight changes by it: float32 holds every number of
    both. Quantized checkpoints and packed layers keep the dtype that they were saved in: packed layers have kernels in
    bfloat16 only. With "checkpoint" the model keeps its own dtype, and a warning says where float32 is faster.

    Args:
        read: reads the model in a dtype.
        kind: "auto", "checkpoint", or a dtype.
        device: on which the model is to run.
    """
    if kind not in ("auto", CHECKPOINT):
        return read(kind), "asked for"
    model = read("auto")
    own = str(model.dtype).removeprefix("torch.")
    if device.type != "cpu" or model.dtype not in _EXACT:
        return model, OWN
    if getattr(model.config, "quantization_config", None) or _packed(model):
        return model, f"{OWN}: its weights are quantized"
    found = measured(model)
    if found is None:
        return model, OWN
    times, count = found
    here = f"on this processor ({processor()}) {own} takes {times}, in products of the model's shapes"
    if times.ratio < _CLEAR or times.gain * count < _NOTICED:
        return model, f"{OWN}: {here}"
    if kind == CHECKPOINT:
        warn(f"{own} is kept: {here}; dtype='float32' is faster and takes twice the bytes")
        return model, OWN
    needed, free = 4 * sum(parameter.numel() for parameter in model.parameters()), free_memory()
    if free is not None and needed > free:
        reason = f"{here}, but float32 needs {bytes_(needed)}, and {bytes_(free)} are free"
        warn(f"{own} is kept: {reason}")
        return model, reason
    del model
    warn(f"float32 is used: {here}; dtype={own!r} keeps the checkpoint's own")
    return read("float32"), here


def _packed(model: Any) -> bool:
    return any(isinstance(module, PackedLinear) for module in model.modules())


def measured(model: Any) -> tuple[Times, float] | None:
    """Time products of the shape that holds most of a model's weights, in its dtype and in float32.

    Vocabulary matrices play no part. The same shape is timed once in a process for each dtype and number of threads.

    Returns:
        The times, and how many such matrices hold as many weights as the model; None where it is too small to matter.
    """
    vocabulary = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    weights: Counter[tuple[int, int]] = Counter()
    for parameter in model.parameters():
        if parameter.ndim in (2, 3) and parameter.dtype == model.dtype and vocabulary not in parameter.shape:
            weights[(parameter.shape[-2], parameter.shape[-1])] += parameter.numel()
    if weights.total() < _SMALL:
        return None
    (out, inputs), held = weights.most_common(1)[0]
    times = _times(out, inputs, held // (out * inputs), model.dtype, torch.get_num_threads())
    return times, weights.total() / (out * inputs)


@cache
def _times(out: int, inputs: int, count: int, dtype: torch.dtype, threads: int) -> Times:
    """Time both products; `threads` is of the key, since PyTorch uses as many."""
    dtypes, cpu = (dtype, torch.float32), torch.device("cpu")
    rows = max(1, min(out, _PRODUCT // inputs))
    many = max(1, min(count, _STREAMED // (rows * inputs)))
    # values play no part in the time; each of the matrices is memory of its own, as in the model
    matrices = {kind: [torch.ones(rows, inputs, dtype=kind) for _ in range(many)] for kind in dtypes}
    texts = {kind: torch.ones(PROMPT, inputs, dtype=kind) for kind in dtypes}

    def prompt(kind: torch.dtype) -> None:
        F.linear(texts[kind], matrices[kind][0])

    def token(kind: torch.dtype) -> None:
        for matrix in matrices[kind]:
            F.linear(texts[kind][:1], matrix)

    calls = [lambda kind=kind, work=work: work(kind) for work in (prompt, token) for kind in dtypes]
    with torch.no_grad():
        best = [min(took) for took in by_turns(calls, cpu, rounds=_ROUNDS, seconds=_SECONDS, at_least=_AT_LEAST)]
    whole = out / rows
    return Times(best[0] * whole, best[1] * whole, best[2] * whole / many, best[3] * whole / many)
