"""AWQ: channels that read large inputs are scaled up before rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import Paper, param
from pith.weights import Calibration, Grid, Stage, WeightQuantizer, is_linear, pack_linear, set_weight, walk, weight_of
from pith.weights.blocks import Reader
from pith.weights.clip import clipped, makes_logits
from pith.weights.feeds import Feed, feeds, kept, move
from pith.weights.hessian import SecondMoments

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class AWQ(WeightQuantizer):
    """Scale what reads large inputs up before it is rounded, and what gives these inputs down.

        s* = argmin_s || f(Q(W diag(s)) diag(s)^-1, x) - f(W, x) ||^2                               (equation 4)
        s  = a^r / sqrt(max a^r min a^r),   a = mean over tokens of |x|,   r = 0, 1/ratios, ... below 1 (equation 5)
        W' = clamp(W, -c max|W|, c max|W|) in every group,   c = 1, 0.95, ... 0.55                     (section 3.2)

    One s for all layers that read the same: queries, keys and values together, gate and up together, with f the whole
    attention or the whole MLP; and the last layer of each part, with f the layer itself. 1/s goes into the norm before
    them, or into the rows of the layer before: values before outputs where every query head has keys of its own, up
    before down. Then every group is cut where that makes its own part of the output better, but for queries and keys.

    It needs blocks with norms: which layers read a norm's outputs is seen as they run, and a norm that something else
    reads too, such as a router, is left out, and named. A layer with no such source is only cut and rounded.

    Deviates: 0 is always in a group's range, where the authors' code saturates groups whose weights are all of one
    sign. Clipping looks at all tokens, theirs at 512 or a few more. Between a GELU and the layer after it theirs puts
    a layer that divides; here such layers have no factors. Layers that are not in a block are rounded to nearest.
    """

    paper: ClassVar[Paper] = Paper(
        "2306.00978",
        "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
        "Ji Lin, Jiaming Tang, Haotian Tang, Shang Yang, Wei-Ming Chen, Wei-Chen Wang, Guangxuan Xiao, et al.",
        2023,
        "mit-han-lab/llm-awq",
    )

    ratios: int = param(20, "exponents that are tried, from 0 to below 1", ge=1)
    compared: int = param(8192, "tokens, at most, of which the outputs of attention and MLP are compared", ge=1)
    clip: bool = param(True, "whether the tails of groups are cut where that helps")

    def change(self, model: Any, calibration: Calibration) -> None:
        """Scales, cuts and packs block by block; every block reads what the dense ones before it give."""
        chosen = self.chosen(model)
        refused: list[str] = []
        unreached: list[str] = []
        for stage in walk(model, calibration):
            own = {name: bits for name, bits in chosen.items() if name.startswith(f"{stage.name}.")}
            found, others = feeds(stage)
            refused += others
            unreached += self._change_block(model, _Dense(stage, found, self.compared), own)
        for name, bits in chosen.items():
            if is_linear(model.get_submodule(name)):
                self.round_to_nearest(model, name, bits)
        self.warn_unreached(unreached, "they are rounded to nearest")
        if refused:
            self.warn(f"not only plain linear layers read {', '.join(refused)}: no factors go into that")

    def _change_block(self, model: Any, dense: _Dense, chosen: dict[str, int]) -> list[str]:
        """Changes one block, and names the layers that nothing reached."""
        scales = [self._scale(dense, feed, chosen) for feed in dense.feeds]
        for feed, scale in zip(dense.feeds, scales, strict=True):
            if scale is not None and feed.source is not None:
                move(feed.source, feed.readers.values(), scale)
        unreached = []
        for feed, scale in zip(dense.feeds, scales, strict=True):
            reads = dense.reads[feed]
            moments = reads.matrix if scale is None else reads.matrix / scale / scale[:, None]
            for name in (name for name in feed.readers if name in chosen):
                weight = weight_of(feed.readers[name])
                fit = self._fit(chosen[name], weight.dtype)
                if self.clip and reads.tokens and not makes_logits(name):
                    weight = clipped(weight, moments, fit, "together")
                grid = fit(weight)
                pack_linear(model, name, grid, grid.codes(weight.float()))
            unreached += [] if reads.tokens else [name for name in feed.readers if name in chosen]
        return unreached

    def _scale(self, dense: _Dense, feed: Feed, chosen: dict[str, int]) -> Float[Tensor, " in"] | None:
        """The factors of what a feed's layers read; None where nothing takes them."""
        rounded = {layer: chosen[name] for name, layer in feed.readers.items() if name in chosen}
        if feed.source is None or not feed.seen or not rounded:
            return None
        size = dense.sizes[feed] / dense.reads[feed].tokens
        least, best = torch.inf, torch.ones_like(size)
        for step in range(self.ratios):
            scale = size.pow(step / self.ratios).clamp(min=1e-4)
            scale = scale / (scale.max() * scale.min()).sqrt()
            trial = {
                layer: self._fit(bits, weight_of(layer).dtype)(weight_of(layer).float() * scale)
                .nearest(weight_of(layer).float() * scale)
                .div(scale)
                for layer, bits in rounded.items()
            }
            if (error := dense.error(feed, trial)) < least:
                least, best = error, scale
        return best

    def _fit(self, bits: int, dtype: torch.dtype) -> Callable[[Float[Tensor, "out in"]], Grid]:
        return lambda weight: self.grid(weight, bits).stored_as(dtype)


class _Dense:
    """A block as it was: what its layers read, and what its parts give.

    Attributes:
        stage: the block with its inputs.
        feeds: its layers by what they read.
        reads: the second moments of what each feed's layers read.
        sizes: the sums of its absolute values.
    """

    def __init__(self, stage: Stage, found: list[Feed], compared: int) -> None:
        self.stage, self.feeds = stage, found
        tokens = sum(states.shape[:2].numel() for states in stage.inputs)
        every = -(-tokens // compared)  # of so many batches one is compared
        widths = {feed: weight_of(next(iter(feed.readers.values()))).shape[1] for feed in found}
        self.reads = {feed: SecondMoments(width, stage.inputs[0].device) for feed, width in widths.items()}
        self.sizes = {feed: torch.zeros(width, device=stage.inputs[0].device) for feed, width in widths.items()}
        self._calls: dict[nn.Module, list[tuple[Call, Tensor]]] = {
            feed.inspected: [] for feed in found if feed.source is not None and not is_linear(feed.inspected)
        }
        with ExitStack() as hooks:
            for module in self._calls:
                hooks.callback(module.register_forward_hook(self._recorder(every), with_kwargs=True).remove)
            outputs = stage.observe({next(iter(feed.readers.values())): self._reader(feed) for feed in found})
        stage.hand_on(outputs)

    def error(self, feed: Feed, weights: Mapping[nn.Module, Float[Tensor, "out in"]]) -> float:
        """The mean squared change of what the inspected part gives with other weights."""
        reads = self.reads[feed]
        if is_linear(feed.inspected):
            rest = weights[feed.inspected] - weight_of(feed.inspected).float()
            return float(((rest @ reads.matrix) * rest).sum()) / (reads.tokens * len(rest))
        total = count = 0.0
        with kept(weights):
            for layer, weight in weights.items():
                set_weight(layer, weight)
            for (args, kwargs), before in self._calls[feed.inspected]:
                after = _first(feed.inspected(*args, **kwargs))
                total += float((after - before).float().square().sum())
                count += before.numel()
        return total / count

    def _recorder(self, every: int) -> Callable[..., None]:
        seen: Counter[nn.Module] = Counter()

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if seen[module] % every == 0:
                self._calls[module].append(((args, kwargs), _first(output)))
            seen[module] += 1

        return hook

    def _reader(self, feed: Feed) -> Reader:
        def read(rows: Float[Tensor, "token in"]) -> None:
            self.reads[feed].add(rows)
            self.sizes[feed] += rows.abs().float().sum(0)

        return read


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
