"""DuoAttention: retrieval heads keep all, streaming heads keep sinks and a window."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from pith.attention import Retention, Seat, Step
from pith.attention.attend import attend
from pith.attention.interface import attention, mask
from pith.core import DenseCache, InputError, ModelError, Paper, param, require_file, shown, user_path

FILE = "duo_attention.safetensors"
"""The gates of a model, beside its weights."""

_TRAINING = "pith_duo_attention"


@dataclass(frozen=True, kw_only=True)
class DuoAttention(Retention):
    """Retrieval heads keep every pair; streaming heads keep the first and the latest ones; gates tell which is which.

        loss = mean_{labelled tokens} (H_full - H_gated)^2 + reg_weight * mean |alpha|      H: the last hidden states
        gated attention of a head = alpha full + (1 - alpha) streaming, alpha in [0, 1]         (authors' training code)
        retrieval heads: alpha >= the `sparsity` quantile of all alphas; a key-value head has one alpha

    `fit` finds the gates with the model frozen, on texts in which something far back is asked for. Every head reads
    the first prompt with full attention. Later tokens see, in streaming heads, `sink_size` + `recent_size` pairs and
    what is read with them. Heads take just the memory of what they keep.

    Deviates: while decoding, streaming heads are cut when they are 64 pairs over, all at once, so that a token costs
    no copy of the cache; until then they see up to 64 pairs more than the window. After each part of a prompt they are
    cut as the authors' are. Of equal gates those of lower layers and heads are retrieval heads; the authors add random
    noise. They train with 128 sinks and deploy with 64; `fit` trains with those of the method. With a storage that
    packs pairs, those that came after the first cut take in every head the memory that retrieval heads need for theirs.
    """

    paper: ClassVar[Paper] = Paper(
        "2410.10819",
        "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads",
        "Guangxuan Xiao, Jiaming Tang, Jingwei Zuo, Junxian Guo, Shang Yang, Haotian Tang, et al.",
        2024,
        "mit-han-lab/duo-attention",
    )
    contract: ClassVar[str] = "allocation"
    every_step: ClassVar[bool] = True
    ragged: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    sink_size: int = param(64, "first tokens that a streaming head keeps", ge=0, le=2**31)
    recent_size: int = param(256, "latest tokens that a streaming head keeps", ge=1, le=2**31)
    sparsity: float = param(0.5, "the share of key-value heads that stream", ge=0.0, le=1.0, sweep=(1.0, 0.0))
    gates: str = param("", f"the file of gates that `fit` wrote; empty is {FILE} in the model's folder", file=True)

    @property
    def keeps_all(self) -> bool:
        """Whether no head streams."""
        return self.sparsity == 0

    def on(self, model: Any) -> DuoAttention:
        """The method with the model's own gates.

        Raises:
            ModelError: there are none, or they were made for another model.
        """
        if self.keeps_all:
            return self
        folder = getattr(model.config, "_name_or_path", "") or "."
        path = user_path(self.gates or Path(folder) / FILE, label="duo_attention: gates=", error=ModelError)
        if not os.path.exists(path):  # False for what cannot be a path
            raise ModelError(
                f"there are no gates for duo_attention at {shown(str(path))}; "
                "DuoAttention().fit(model, data, path) makes them, as in recipes/duo_attention/fit.py"
            )
        require_file(path, label="duo_attention: gates=", error=ModelError)
        read_gates.cache_clear()  # the file may hold other gates than when it was read last
        found, wanted = tuple(read_gates(str(path)).shape), _heads(model)
        if found != wanted:
            raise ModelError(
                f"the gates in {path} are for {found[0]} layers of {found[1]} key-value heads; {type(model).__name__} "
                f"has {wanted[0]} of {wanted[1]}"
            )
        return replace(self, gates=str(path))

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """Infinite for what a head keeps; of the rest the later, the better."""
        full = retrieval_heads(read_gates(self.gates), self.sparsity)[step.layer].to(step.positions.device)
        newest = step.positions[:, :1, -1:]
        kept = (step.positions < self.sink_size) | (step.positions > newest - self.recent_size)
        return step.positions.float().masked_fill(kept | full[:, None], float("inf"))

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """What a streaming head keeps; `split` gives the others all."""
        return real.clamp(max=self.sink_size + self.recent_size)

    def split(
        self, scores: Float[Tensor, "batch kv_head key"], limit: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch kv_head"]:
        """As many as `score` asks for."""
        return (scores == float("inf")).sum(dim=-1)

    def claimed(self, dense: DenseCache) -> float:
        """All of retrieval heads, sinks and window of the others."""
        return 1 - self.sparsity + self.sparsity * min(1.0, (self.sink_size + self.recent_size) / max(dense.tokens, 1))

    def fit(
        self,
        model: Any,
        data: Sequence[tuple[Int[Tensor, "1 token"], Bool[Tensor, "1 token"]]],
        path: str | Path,
        *,
        rate: float = 0.02,
        reg_weight: float = 0.05,
    ) -> DuoAttention:
        """Finds a model's gates, writes them to a file and gives the method that reads it; the model is not changed.

        Args:
            model: a Transformers causal language model.
            data: for each step a text, and which of its tokens are labelled: those that something far back decides.
            path: the file; as `FILE` in the model's folder it is found by itself.
            rate: the peak learning rate; it rises over the first fifth of the steps and falls over the last.
            reg_weight: how much a gate is pulled towards streaming.

        Raises:
            InputError: there are no texts, or one in which nothing is labelled.
        """
        if not len(data) or not all(bool(labelled.any()) for _, labelled in data):
            raise InputError(f"data has {len(data)} texts; allowed is 1 or more, each with a labelled token")
        alpha = nn.Parameter(torch.ones(_heads(model), device=model.device))
        optimizer = torch.optim.AdamW([alpha], lr=rate, weight_decay=0.0)
        fifth = max(len(data) / 5, 1.0)
        with torch.enable_grad(), _gated(model, self) as hidden:
            for step, (tokens, labelled) in enumerate(data):
                optimizer.param_groups[0]["lr"] = rate * min(1.0, 0.1 + 0.9 * min(step, len(data) - step) / fifth)
                loss = distance(hidden, alpha, tokens.to(model.device), labelled.to(model.device))
                (loss + reg_weight * alpha.abs().mean()).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    alpha.clamp_(0, 1)
        save_file({"gates": alpha.detach().float().cpu()}, path)
        read_gates.cache_clear()
        return replace(self, gates=str(path))


def retrieval_heads(gates: Float[Tensor, "layer kv_head"], sparsity: float) -> Bool[Tensor, "layer kv_head"]:
    """The heads whose gates are at or above the quantile; of equal ones the first."""
    count = gates.numel()
    kept = 0 if sparsity >= 1 else count - ceil(sparsity * (count - 1) - 1e-9)
    best = gates.flatten().argsort(descending=True, stable=True)[:kept]
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, best, True).view(gates.shape)


@lru_cache(maxsize=8)
def read_gates(path: str) -> Float[Tensor, "layer kv_head"]:
    """The gates in a file.

    Raises:
        ModelError: it holds none.
    """
    try:
        gates = load_file(path)["gates"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"{shown(path)} holds no gates of duo_attention: {error}") from None
    if gates.ndim != 2 or not gates.is_floating_point() or not gates.isfinite().all():
        raise ModelError(f"{shown(path)} holds no gates of duo_attention: they must be finite, a row for each layer")
    return gates.clamp(0, 1)


def streaming_mask(length: int, sink_size: int, recent_size: int, device: Any = None) -> Bool[Tensor, "1 1 query key"]:
    """What each token of a text sees in a streaming head."""
    at = torch.arange(length, device=device)
    behind = at[:, None] - at
    return ((behind >= 0) & ((at < sink_size) | (behind < recent_size)))[None, None]


def distance(
    hidden: Any,
    alpha: Float[Tensor, "layer kv_head"],
    tokens: Int[Tensor, "1 token"],
    labelled: Bool[Tensor, "1 token"],
) -> Float[Tensor, ""]:
    """The mean squared distance of the last hidden states at labelled tokens, with gates and without.

    Args:
        hidden: gives the last hidden states for gates and tokens; without gates those of the model as it is.
    """
    with torch.no_grad():
        wanted = hidden(None, tokens)[labelled].float()
    loss: Tensor = (hidden(alpha, tokens)[labelled].float() - wanted).pow(2).mean()
    return loss


def _heads(model: Any) -> tuple[int, int]:
    """Layers, and key-value heads in each."""
    config = model.config.get_text_config(decoder=True)
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or config.num_attention_heads


@contextmanager
def _gated(model: Any, method: DuoAttention) -> Iterator[Any]:
    """A function of gates and tokens that gives a model's last hidden states; the model is frozen meanwhile."""
    gates: list[Tensor | None] = [None]

    def mixed(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        full, _ = attention(module, query, key, value, seen, **more)
        if gates[0] is None or seen is not None:  # with a mask it is a sliding window, which the runtime leaves alone
            return full, None
        visible = streaming_mask(query.shape[2], method.sink_size, method.recent_size, query.device)
        scaling, softcap, sinks = more.get("scaling"), more.get("softcap"), more.get("s_aux")
        streaming = attend(query, key, value, visible, scaling, softcap, sinks).transpose(1, 2)
        layer: int = module.layer_idx  # type: ignore[assignment]
        alpha = gates[0][layer].repeat_interleave(query.shape[1] // key.shape[1]).to(full.dtype)[:, None]
        return alpha * full + (1 - alpha) * streaming, None

    def hidden(alpha: Tensor | None, tokens: Tensor) -> Tensor:
        gates[0] = alpha
        states: Tensor = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
        return states

    AttentionInterface.register(_TRAINING, mixed)
    AttentionMaskInterface.register(_TRAINING, mask)
    before = model.config._attn_implementation
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.set_attn_implementation(_TRAINING)
    try:
        model.requires_grad_(False)
        yield hidden
    finally:
        model.set_attn_implementation(before)
        for parameter in trained:
            parameter.requires_grad_(True)
