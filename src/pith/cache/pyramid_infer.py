"""PyramidInfer: what the latest tokens do not look at is not computed in deeper layers."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import Companion, LayerCache, Retention, Seat, Step
from pith.attention.evictor import best
from pith.attention.step import query_block
from pith.attention.store import PADDING
from pith.core import DenseCache, ModelError, Paper, param

Decay = Literal["cosine", "constant"]
"""How a ratio falls with depth."""


@dataclass(frozen=True, kw_only=True)
class PyramidInfer(Retention):
    """Compute in each deeper layer only those prompt tokens that the latest ones attend to in the layer below.

        score_j = mean_{i in last w + 1} u_i mean_{query heads} softmax(q_i K^T / sqrt(d))_j
                  w = recent_ratio * prompt, u from 1 (oldest) to distance_weight (newest)
        kept    = the first streamingllm_sink_len, the best rho_l of what stands before the last w + 1, and these
                  rho_l = p + (1 - p) (cos(pi l / layers) + 1) / 2      p = prefill_decay_ratio

    What is dropped above layer l is never computed again, so reading a prompt gets cheaper and deeper layers hold less:
    a pyramid. Of what is decoded, each time that exceed_length_to_compress more tokens have left the recent ones, these
    are cut to gen_compress_ratio * rho_l of their number, with p = gen_decay_ratio, by the same score.

    The prompt is what the first forward reads. What later forwards of several tokens read, further turns or parts of a
    prompt, is kept whole, and decoded tokens are counted from there. The model's output has the tokens that reach its
    last layer, of which the last is the prompt's last: logits of dropped tokens do not exist.

    Deviates: the paper keeps the tokens of highest attention up to a mass p that falls with depth, the authors' code,
    as here, a fixed share. Their "linear" strategy is a constant ratio as it runs, and is called that. Rows of a batch
    are chosen and counted each for itself; theirs have one length, padding counted in. With an interval above 1 their
    code scores decoded tokens in the layers between by attention of a lower layer; here each layer uses its own. Votes
    for decoded tokens are summed as they come, not taken from stored rows of attention: the same numbers, four bytes a
    pair. The attention of the recent tokens is computed twice, by the kernel and for the votes; what deeper layers are
    spared must first make up for that.
    """

    contract: ClassVar[str] = "eviction"
    paper: ClassVar[Paper] = Paper(
        "2405.12532",
        "PyramidInfer: Pyramid KV Cache Compression for High-throughput LLM Inference",
        "Dongjie Yang, XiaoDong Han, Yan Gao, Yao Hu, Shilin Zhang, Hai Zhao",
        2024,
        "mutonix/pyramidinfer",
    )

    recent_ratio: float = param(0.2, "share of the prompt that votes and is always kept", ge=0.0, le=1.0)
    prefill_decay_ratio: float = param(
        0.9, "share of earlier tokens that the deepest layer keeps", ge=0.0, le=1.0, sweep=(0.3, 1.0)
    )
    prefill_decay_strategy: Decay = param("cosine", "how the share falls with depth")
    min_context_length: int = param(64, "earlier tokens below which a layer drops none", ge=0)
    layerwise_downsample_interval: int = param(1, "every so many layers tokens are dropped", ge=1)
    streamingllm_sink_len: int = param(4, "first tokens that are always kept", ge=0)
    distance_weight: float = param(1.2, "weight of the newest vote; the oldest counts 1", ge=0.0)
    gen_decay_ratio: float = param(0.1, "share of gen_compress_ratio that the deepest layer keeps", ge=0.0, le=1.0)
    gen_decay_strategy: Decay = param("cosine", "how that share falls with depth")
    gen_compress_ratio: float = param(0.9, "share of decoded tokens that the first layer keeps", ge=0.0, le=1.0)
    exceed_length_to_compress: int = param(16, "decoded tokens that are cut together", ge=1)

    @property
    def keeps_all(self) -> bool:
        """Whether no share is below 1."""
        return min(self.prefill_decay_ratio, self.gen_decay_ratio, self.gen_compress_ratio) == 1.0

    def recent(self, real: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """How many tokens beside the last are recent in prompts of these lengths: w."""
        return (real.double() * self.recent_ratio).long()

    def schedule(self, real: Int[Tensor, " batch"], depth: int) -> list[Int[Tensor, " batch"]]:
        """How many tokens of prompts of these lengths each layer reads."""
        window = self.recent(real)
        floor = (real - 1 - window).clamp(max=self.min_context_length)
        counts = [real.long()]
        for layer in range(depth - 1):
            share = decayed(self.prefill_decay_ratio, self.prefill_decay_strategy, layer, depth)
            context = counts[-1] - window - 1
            kept = (context.double() * share).long()
            drops = (context > floor) & (kept > floor) & (share < 1.0)
            drops &= layer % self.layerwise_downsample_interval == 0
            counts.append(torch.where(drops, kept + window + 1, counts[-1]))
        return counts

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """What the layer reads of the prompt."""
        return self.schedule(real, seat.count)[seat.index]

    def decoded(self, layer: int, depth: int) -> int:
        """How many of `exceed_length_to_compress` decoded tokens a layer keeps."""
        share = decayed(self.gen_decay_ratio, self.gen_decay_strategy, layer, depth)
        return max(int(self.exceed_length_to_compress * self.gen_compress_ratio * share), 1)

    def score(self, step: Step) -> Float[Tensor, "batch 1 key"]:
        """The weighted votes of a prompt's recent tokens; they and the first tokens above all."""
        window = self.recent(step.positions[:, 0, -1] + 1)
        voters = min(int(window.max()) + 1, step.query.shape[2])
        votes = torch.zeros_like(step.positions[:, :1], dtype=torch.float32)
        heads, block = step.query.shape[1], query_block(step.query)
        for skip in range(0, voters, block):
            size = min(block, voters - skip)
            age = torch.arange(skip + size - 1, skip - 1, -1, device=votes.device)
            weight = self.weight(window[:, None] - age, window[:, None]).repeat(1, heads).unsqueeze(1)
            votes += weight @ step.attention(size, skip).flatten(1, 2) / heads
        newest = step.stored - torch.arange(step.stored, device=votes.device)
        kept = (newest <= window[:, None, None] + 1) | (step.positions < self.streamingllm_sink_len)
        return votes.masked_fill(kept, float("inf"))

    def weight(self, index: Int[Tensor, "batch n"], window: Int[Tensor, "batch 1"]) -> Float[Tensor, "batch n"]:
        """The share in a score of the vote at this index of the window; 0 outside of it."""
        slope = (self.distance_weight - 1.0) * index / window.clamp(min=1)
        return ((1.0 + slope) / (window + 1)).masked_fill((index < 0) | (index > window), 0.0)

    def claimed(self, dense: DenseCache) -> float:
        """The mean share of the prompt that the layers hold."""
        counts = self.schedule(torch.tensor([dense.tokens]), dense.layers)
        return sum(int(count) for count in counts) / (dense.layers * max(dense.tokens, 1))

    def companion(self) -> Companion:
        """What shortens the forwards of the layers."""
        return Pyramid(self)


class Pyramid(Companion):
    """The tokens that go from layer to layer in one cache's first forward, and the counting of decoded ones."""

    prompt_at_once = True

    def __init__(self, method: PyramidInfer) -> None:
        self._method = method
        self._reading = 0  # tokens of the prompt that is being read; 0 at any other time
        self._seen = self._base = 0  # tokens read; those of them that do not count as decoded
        self._last: Int[Tensor, " batch"] | None = None  # position of the last token that does not
        self._window: Int[Tensor, " batch"] | None = None
        self._windows: list[int] = []
        self._index: Int[Tensor, "batch kept"] | None = None  # what the layer below has just chosen of its own tokens
        self._where: Int[Tensor, "batch kept"] | None = None  # the same, in the prompt
        self._cuts = False  # whether decoded tokens are let go in this forward

    def begin(self, cache: Any, decoder: Any) -> None:
        """Stands before each layer of the model.

        Raises:
            ModelError: a layer cannot be given fewer tokens than the one before.
        """
        layers = getattr(decoder, "layers", None)
        if cache.left_alone or layers is None or len(layers) < len(cache.layers):
            kinds = ", ".join(sorted(set(cache.left_alone.values()))) or "layers that cannot be found"
            raise ModelError(f"pyramid_infer takes models whose every layer is full attention; this one has {kinds}")
        known = weakref.ref(cache)
        for index in range(len(cache.layers)):
            hook = partial(self._enter, known, index)
            handle = layers[index].register_forward_pre_hook(hook, with_kwargs=True)
            weakref.finalize(cache, handle.remove)

    def before(self, cache: Any, tokens: Int[Tensor, "batch new"]) -> None:
        """Say what each layer is asked after its attention."""
        layers, new = cache.served(), tokens.shape[1]
        first = layers[0].seen == 0
        self._reading, self._cuts, self._index, self._where = new if first else 0, False, None, None
        if not first and layers[0].seen != self._seen:  # tokens were taken back
            self._rebase(layers)
        for layer in layers:
            layer.witness = self._choose if first else self._trim if new == 1 else _nothing
        self._count = layers[0].seen + new - self._base  # decoded tokens, the coming one counted in

    def after(
        self,
        cache: Any,
        tokens: Int[Tensor, "batch new"],
        mask: Int[Tensor, "batch seen"] | None,
        hidden: Float[Tensor, "batch kept hidden_dim"],
    ) -> None:
        """Makes every layer count the whole prompt as seen."""
        layers, first = cache.served(), bool(self._reading)
        for layer in layers:
            if first:
                layer.catch_up(layers[0])
            if self._cuts or self._where is not None:  # also in the first layer, which keeps all: all are taken back
                layer.dropped()
        self._reading, self._seen, self._index, self._where = 0, layers[0].seen, None, None
        if first or tokens.shape[1] > 1:
            self._rebase(layers)
        if first:
            assert self._last is not None
            self._window = self._method.recent(self._last + 1)
            self._windows = self._window.tolist()

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        if self._last is not None and self._window is not None:
            self._last, self._window = self._last[rows], self._window[rows]
            self._windows = self._window.tolist()

    def tensors(self) -> list[Tensor]:
        """Two numbers a row."""
        return [] if self._last is None or self._window is None else [self._last, self._window]

    def _rebase(self, layers: list[LayerCache]) -> None:
        """Everything held counts as prompt; what is decoded from now on is counted anew."""
        self._base, self._last = layers[0].seen, layers[0].store.positions[:, 0, -1].clone()
        for layer in layers:
            if layer.store.carried is not None:
                layer.store.carry(torch.zeros_like(layer.store.carried))

    def _choose(self, step: Step) -> None:
        """Chooses which of a layer's tokens the next one is given."""
        if step.layer == 0:
            self._counts = self._method.schedule(step.real.sum(dim=-1)[:, 0], step.depth)
        if step.layer + 1 == step.depth:
            return
        mine, next_one = self._counts[step.layer : step.layer + 2]
        self._comes, self._index = step.positions[:, 0].clone(), None
        if bool((next_one < mine).any()):
            self._index = best(self._method.score(step), step.positions, next_one)[:, 0]
            self._comes = picked(self._comes, self._index)
            self._where = self._index if self._where is None else picked(self._where, self._index)

    def _enter(
        self, known: Callable[[], Any], index: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hands a layer only the tokens that were chosen; what other arguments say of each token goes with them."""
        cache, where = known(), self._where
        if where is None or cache is None or not any(value is cache for value in kwargs.values()):
            return None
        cache.layers[index].comes = self._comes
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden = hidden if self._index is None else rows_of(hidden, self._index)

        def shortened(value: Any) -> Any:
            if isinstance(value, tuple | list):
                return type(value)(map(shortened, value))
            each = isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == self._reading
            return rows_of(value, where) if each else value

        kwargs = {name: shortened(value) for name, value in kwargs.items() if name != "hidden_states"}
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = where >= 0
        return (hidden, *map(shortened, args[1:])), kwargs

    def _trim(self, step: Step) -> None:
        """Adds a decoded token's votes to those for the tokens decoded before it, and cuts these when they are due."""
        method, store, last, window = self._method, step.store, self._last, self._window
        every, keep = method.exceed_length_to_compress, method.decoded(step.layer, step.depth)
        if self._count < every or keep >= every or last is None or window is None:
            return
        positions, window = step.positions[:, 0], window[:, None]
        decoded = positions >= last[:, None]  # the last token of the prompt is the first that may go
        # tokens that are cut together are voted for by those that are recent then: the count of the oldest of these
        oldest = ((positions - last[:, None]).div(every, rounding_mode="floor") + 1) * every
        weight = method.weight(self._count - oldest, window).masked_fill(~decoded, 0.0)
        votes = step.carried[:, 0] + weight * step.attention(last=1)[:, :, 0].mean(dim=1)
        store.carry(votes.unsqueeze(1))
        if not any(self._count > w and (self._count - w) % every == 0 for w in self._windows):
            return
        due = decoded & (oldest == self._count - window)
        limit = step.real.sum(dim=-1)[:, 0] - (due.sum(dim=-1) - keep).clamp(min=0)
        store.keep(best(votes.masked_fill(~due, float("inf")).unsqueeze(1), step.positions, limit))
        self._cuts = True


def decayed(ratio: float, strategy: Decay, layer: int, depth: int) -> float:
    """A ratio as it is at a layer: from 1 down towards it, or the same everywhere."""
    if strategy == "constant":
        return ratio
    return (1.0 - ratio) * (math.cos(math.pi * layer / depth) + 1.0) / 2.0 + ratio


def picked(values: Int[Tensor, "batch n"], index: Int[Tensor, "batch kept"]) -> Int[Tensor, "batch kept"]:
    """The values at `index`; where that is none, none."""
    return values.gather(1, index.clamp(min=0)).masked_fill(index < 0, PADDING)


def rows_of(values: Tensor, index: Int[Tensor, "batch kept"]) -> Tensor:
    """[batch or 1, token, ...] at each row's tokens; where there is none, what may be."""
    if len(index) == 1:
        return values.index_select(1, index[0].clamp(min=0))
    rows = torch.arange(len(index), device=index.device).clamp(max=len(values) - 1)
    return values[rows[:, None], index.clamp(min=0)]


def _nothing(step: Step) -> None:
    """A further turn is kept whole."""
