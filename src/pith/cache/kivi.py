"""KIVI: keys in two bits by channel, values in two bits by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pith.attention.bits import factors, pack, planes, unpack
from pith.attention.storage import Context, Packed, Part, Storage
from pith.core import DenseCache, Paper, ParameterError, param

FEW = 64
"""Queries (a group's heads counted) up to which products are taken with the codes; more are worth decoding for."""


@dataclass(frozen=True, kw_only=True)
class KIVI(Storage):
    """Store keys and values in 2 or 4 bits a number, with a scale and a minimum for each group of numbers.

        s = (max - min) / (2^bits - 1)      code = round((x - min) / s)      x' = code s + min
        keys:   a group is `group_size` tokens of one channel
        values: a group is `group_size` channels of one token                               (section 3, algorithm 1)

    A prompt attends to exact pairs. Then, of n tokens, the keys of the first n - (n mod R) are packed and the values of
    all but the last R, R = residual_length; while decoding keys follow R at a time, and values one at a time. Nothing
    is packed twice. Decoding multiplies with the codes: the scales are folded into queries' products and weights.

    Deviates: bits are the same for keys and values (the paper's tables too; the authors' code can tell them apart).
    Codes lie in bytes along the channels, in an order of Pith's own; the authors' words run along the tokens for keys.
    Products with codes are summed in float32. A group of equal numbers has the codes 0, where the authors divide by
    zero. In a padded batch groups begin at slots, so a short row's groups begin at other tokens than alone; padding
    does not widen them. Heads smaller than a group are one group.
    """

    paper: ClassVar[Paper] = Paper(
        "2402.02750",
        "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
        "Zirui Liu, Jiayi Yuan, Hongye Jin, Shaochen Zhong, Zhaozhuo Xu, Vladimir Braverman, Beidi Chen, Xia Hu",
        2024,
        "jy-yuan/KIVI",
    )

    bits: Literal[2, 4] = param(2, "bits of a code; the authors advise 4 for models with grouped queries", sweep=(2, 4))
    group_size: int = param(32, "numbers that share a scale and a minimum", ge=1, sweep=(64, 32, 16))
    residual_length: int = param(
        128, "newest tokens in full precision, in multiples of group_size", ge=1, sweep=(32, 64, 128)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.residual_length % self.group_size:
            raise ParameterError(
                f"kivi: residual_length is {self.residual_length}; allowed are multiples of group_size "
                f"({self.group_size})"
            )

    def due(self, part: Part, held: int, prefill: bool) -> int:
        """Keys in multiples of the residual, values all but the residual."""
        if part == "keys":
            return held - held % self.residual_length
        return max(held - self.residual_length, 0)

    def encode(self, x: Float[Tensor, "batch kv_head token dim"], part: Part, context: Context) -> Packed:
        """Codes, and scales and minima in the dtype of `x`."""
        if part == "values":
            grouped = _grouped(x, self.group_size, dim=3)
            low, scale = self._range(grouped.amin(dim=4), grouped.amax(dim=4))
            code = self._codes(x, self._by_channel(low, x), self._by_channel(scale, x))
            return Packed({"code": code, "scale": scale, "minimum": low}, {}, 1, part)
        lowest = highest = x
        if context.real is not None:
            pads = ~context.real[:, :, : x.shape[2], None]
            lowest, highest = x.masked_fill(pads, float("inf")), x.masked_fill(pads, float("-inf"))
        lows, highs = (_grouped(t, self.group_size, dim=2) for t in (lowest, highest))
        low, scale = self._range(lows.amin(dim=3), highs.amax(dim=3))
        code = self._codes(
            x, _by_token(low, x.shape[2], self.group_size), _by_token(scale, x.shape[2], self.group_size)
        )
        return Packed({"code": code}, {"scale": scale, "minimum": low}, self.group_size, part)

    def decode(self, packed: Packed) -> Float[Tensor, "batch kv_head token dim"]:
        """code * scale + minimum."""
        if packed.part == "values":
            scale, low = packed.tokens["scale"], packed.tokens["minimum"]
            code = unpack(packed.tokens["code"], self.bits).to(scale.dtype)
            return code * self._by_channel(scale, code) + self._by_channel(low, code)
        scale, low = packed.groups["scale"], packed.groups["minimum"]
        code = unpack(packed.tokens["code"], self.bits).to(scale.dtype)
        return code * _by_token(scale, packed.count, packed.size) + _by_token(low, packed.count, packed.size)

    def dot(
        self, query: Float[Tensor, "batch kv_head query dim"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query token"]:
        """sum_c q_c (s_c code_c) + sum_c q_c min_c, the second once for each group."""
        count, size = packed.count, packed.size
        if query.shape[2] > FEW or count % size:
            return super().dot(query, packed)
        rows, each, factor = query.shape[0] * query.shape[1], 8 // self.bits, factors(self.bits, query.device)
        code, scale, low = (
            t.flatten(0, 1) for t in (packed.tokens["code"], packed.groups["scale"], packed.groups["minimum"])
        )
        q = query.float().flatten(0, 1)
        logits = (q @ low.float().transpose(1, 2)).repeat_interleave(size, dim=2)
        steps = (scale.float().view(rows, -1, 1, each, code.shape[2]) * factor[:, None]).unbind(3)
        asked = q.chunk(each, dim=2)
        for plane, x in enumerate(planes(code, self.bits)):
            x.view(rows, -1, size, code.shape[2]).mul_(steps[plane])
            logits.baddbmm_(asked[plane], x.transpose(1, 2))
        return logits.view(*query.shape[:3], -1)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query token"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query dim"]:
        """sum_t (w_t s_t) code_t + sum_t w_t min_t, for each group of channels."""
        if weights.shape[2] > FEW:
            return super().mix(weights, packed)
        w, code = weights.float().flatten(0, 1), packed.tokens["code"].flatten(0, 1)
        # turned over once: products with a strided scale would cost more than those with the codes
        scale, low = (
            packed.tokens[name].flatten(0, 1).transpose(-1, -2).float().contiguous() for name in ("scale", "minimum")
        )
        groups, which = self._groups(code.shape[2])
        scaled = w.unsqueeze(1) * scale.unsqueeze(2)
        out = []
        for plane, x in enumerate(planes(code, self.bits)):
            first, last = groups[plane]
            sums = scaled[:, first : last + 1].flatten(1, 2) @ x
            if last > first:
                own = which[plane].to(code.device).view(1, 1, 1, -1)
                sums = sums.view(len(w), -1, w.shape[1], code.shape[2]).take_along_dim(own, dim=1).squeeze(1)
            out.append(sums * 2.0 ** -(self.bits * plane))
        mixed = torch.cat(out, dim=2)
        mixed += (w @ low.transpose(1, 2)).repeat_interleave(self.group_size, dim=2)[..., : mixed.shape[2]]
        return mixed.view(*weights.shape[:3], -1)

    def claimed(self, dense: DenseCache) -> float:
        """Codes, and two statistics a group, each a number as the model has it; what is left as it is counts whole."""
        share = self.bits / (8 * dense.number_bytes) + 2 / self.group_size
        packed = self.due("keys", dense.tokens, True) + self.due("values", dense.tokens, True)
        return 1 - (1 - share) * packed / (2 * max(dense.tokens, 1))

    def _groups(self, width: int) -> tuple[list[tuple[int, int]], Int[Tensor, "plane width"]]:
        """The first and last group of channels in each plane, and which of these each of its channels is in."""
        group = torch.arange(width * 8 // self.bits).view(-1, width) // self.group_size
        return [(int(one[0]), int(one[-1])) for one in group], group - group[:, :1]

    def _range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The minimum and the scale of groups; a group of padding alone has zeros."""
        scale = (high - low) / (2**self.bits - 1)
        nothing = low > high
        return low.masked_fill(nothing, 0), scale.masked_fill(nothing, 0)

    def _codes(self, x: Tensor, low: Tensor, scale: Tensor) -> UInt8[Tensor, "batch kv_head token width"]:
        code = (x - low) / scale.masked_fill(scale == 0, 1)
        return pack(code.clamp(0, 2**self.bits - 1).round().to(torch.uint8), self.bits)

    def _by_channel(self, statistic: Tensor, like: Tensor) -> Tensor:
        """A statistic of groups of channels, for each channel."""
        return statistic.repeat_interleave(self.group_size, dim=-1)[..., : like.shape[-1]]


def _by_token(statistic: Tensor, tokens: int, size: int) -> Tensor:
    """A statistic of groups of tokens, for each token."""
    return statistic if size == 1 else statistic.repeat_interleave(size, dim=2)[:, :, :tokens]


def _grouped(x: Tensor, size: int, dim: int) -> Tensor:
    """Axis `dim` as groups; the last one is filled up with its last entry, which leaves its range as it is."""
    missing = -x.shape[dim] % size
    if missing:
        last = x.narrow(dim, x.shape[dim] - 1, 1)
        x = torch.cat([x, last.expand(*(missing if d == dim else -1 for d in range(x.ndim)))], dim=dim)
    return x.reshape(*x.shape[:dim], -1, size, *x.shape[dim + 1 :])
