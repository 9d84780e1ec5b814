"""DecoQuant: few bits for a large factor of the cache, whose range is narrow, and all bits for a tiny one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from pith.attention.bits import pack, planes, unpack
from pith.attention.storage import Context, Packed, Part, Storage
from pith.core import DenseCache, InputError, Paper, param

FEW = 64
"""Queries (a group's heads counted) up to which products are taken with the codes; more are worth decoding for."""


@dataclass(frozen=True, kw_only=True)
class DecoQuant(Storage):
    """Factor a block of keys, or of values, into a large matrix in few bits and a small one in full precision.

        M as (T J, I), its I columns neighbouring channels = U S V^T        T tokens, J I channels of all heads together
        T_L = U sqrt(S)      T_S = sqrt(S) V^T      M = T_L T_S          (section 3.2; a matrix product operator)
        s = max |T_L of a token| / (2^(bits-1) - 1)     code = round(T_L / s)     M' = code s T_S

    A prompt is a block of its own. New pairs are stored whole until `block` of them have gathered. Decoding multiplies
    with the codes: T_S is folded into queries and into sums.

    Deviates: the paper's decoding rule has no released code, so a block becomes due when it is full, and blocks are
    independent. Keys are factored as they are stored, rotated; the authors' language-model path takes them before
    their rotation. Padding is left out of the factors. The decomposition is computed from the triangular factor of M,
    which has the same singular values and right vectors. Where heads keep different numbers of pairs, each head's part
    of a token has a scale of its own.
    """

    paper: ClassVar[Paper] = Paper(
        "2405.12591",
        "Unlocking Data-free Low-bit Quantization with Matrix Decomposition for KV Cache Compression",
        "Peiyu Liu, Ze-Feng Gao, Wayne Xin Zhao, Yipeng Ma, Tao Wang, Ji-Rong Wen",
        2024,
        "lpyhdzx/DecoQuant_code",
    )

    bits: Literal[2, 4, 8] = param(4, "bits of a number of the large factor", sweep=(2, 4, 8))
    inner: int = param(16, "I, neighbouring channels that the small factor mixes; it divides the size of a head", ge=1)
    block: int = param(1000, "decoded tokens that are factored together; until then they are stored whole", ge=1)

    def due(self, part: Part, held: int, prefill: bool) -> int:
        """A prompt whole, and decoded tokens by the block."""
        return held if prefill else held - held % self.block

    def encode(self, x: Float[Tensor, "batch kv_head token dim"], part: Part, context: Context) -> Packed:
        """Codes, a scale for each token, and the small factor of all of them.

        Raises:
            InputError: `inner` does not divide the size of a head.
        """
        if x.shape[3] % self.inner:
            raise InputError(
                f"{self.name}: inner is {self.inner} and heads have the size {x.shape[3]}; allowed are its divisors"
            )
        matrix = x.float()
        if context.real is not None:
            matrix = matrix.masked_fill(~context.real[:, :, : x.shape[2], None], 0)
        small, inverse = self.factor(matrix)
        large = self._each(x.float(), inverse)
        most = 2 ** (self.bits - 1) - 1
        scale = (large.abs().amax(dim=(1, 3), keepdim=True).clamp(min=1e-5) / most).to(x.dtype)
        code = (large / scale.float()).round().clamp(-most, most) + 2 ** (self.bits - 1)
        factor = rearrange(small.to(x.dtype), "b i c -> b 1 1 (i c)")
        return Packed(
            {"code": pack(code.to(torch.uint8), self.bits), "scale": scale}, {"small": factor}, x.shape[2], part
        )

    def factor(
        self, x: Float[Tensor, "batch kv_head token dim"]
    ) -> tuple[Float[Tensor, "batch inner inner"], Float[Tensor, "batch inner inner"]]:
        """T_S, and what turns M into T_L."""
        matrix = rearrange(x, "b h token (j i) -> b (token h j) i", i=self.inner)
        if matrix.shape[1] < self.inner:
            matrix = torch.nn.functional.pad(matrix, (0, 0, 0, self.inner - matrix.shape[1]))
        triangle = torch.linalg.qr(matrix, mode="r").R
        _, sizes, right = torch.linalg.svd(triangle)
        root = sizes.sqrt()
        # directions in which there is nothing have no part in T_L either
        inverse = torch.where(sizes > sizes[:, :1] * 1e-7, 1 / root, 0)
        return root.unsqueeze(2) * right, right.transpose(1, 2) * inverse.unsqueeze(1)

    def decode(self, packed: Packed) -> Float[Tensor, "batch kv_head token dim"]:
        """(code scale) T_S."""
        scale = packed.tokens["scale"]
        codes = unpack(packed.tokens["code"], self.bits).to(torch.int16) - 2 ** (self.bits - 1)
        large, small = codes.to(scale.dtype) * scale, self._small(packed)
        if small.shape[1] * small.shape[2] == 1:
            return self._each(large, small[:, 0, 0])
        if packed.size > 1:
            small = small.repeat_interleave(packed.size, dim=2)[:, :, : packed.count]
        blocks = rearrange(large, "b h t (j i) -> b h t j i", i=self.inner)
        restored: Tensor = rearrange(blocks @ small, "b h t j i -> b h t (j i)")
        return restored

    def dot(
        self, query: Float[Tensor, "batch kv_head query dim"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query token"]:
        """((q T_S^T) code) scale."""
        if query.shape[2] > FEW or not _is_shared(packed):
            return super().dot(query, packed)
        parts = []
        for piece in _by_group(packed):
            q = self._each(query.float(), self._small(piece)[:, 0, 0].float().transpose(1, 2))
            asked = q.chunk(8 // self.bits, dim=-1)
            products = -(2 ** (self.bits - 1)) * q.sum(dim=-1, keepdim=True)
            for plane, x in enumerate(planes(piece.tokens["code"], self.bits)):
                products = products + (asked[plane] * 2.0 ** -(self.bits * plane)) @ x.transpose(-1, -2)
            parts.append(products * piece.tokens["scale"].float().transpose(-1, -2))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query token"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query dim"]:
        """((w scale) code) T_S."""
        if weights.shape[2] > FEW or not _is_shared(packed):
            return super().mix(weights, packed)
        parts, begin = [], 0
        for piece in _by_group(packed):
            scale = piece.tokens["scale"].transpose(-1, -2).float().contiguous()
            w = weights[..., begin : begin + piece.count].float() * scale
            sums = [w @ x * 2.0 ** -(self.bits * p) for p, x in enumerate(planes(piece.tokens["code"], self.bits))]
            large = torch.cat(sums, dim=-1) - 2 ** (self.bits - 1) * w.sum(dim=-1, keepdim=True)
            parts.append(self._each(large, self._small(piece)[:, 0, 0].float()))
            begin += piece.count
        total: Tensor = torch.stack(parts).sum(dim=0)
        return total

    def claimed(self, dense: DenseCache) -> float:
        """The codes, a scale a token, and the small factors."""
        width = dense.token_bytes / (2 * dense.layers * dense.number_bytes)  # numbers of a token's keys in one layer
        return self.bits / (8 * dense.number_bytes) + 1 / width + self.inner**2 / (width * max(dense.tokens, 1))

    def _small(self, packed: Packed) -> Float[Tensor, "batch heads group inner inner"]:
        return rearrange(packed.groups["small"], "b h g (i c) -> b h g i c", i=self.inner)

    def _each(
        self, x: Float[Tensor, "batch kv_head token dim"], matrix: Float[Tensor, "batch inner inner"]
    ) -> Float[Tensor, "batch kv_head token dim"]:
        """Every run of `inner` channels times the matrix."""
        runs = rearrange(x, "b h t (j i) -> b (h t j) i", i=self.inner) @ matrix
        return rearrange(runs, "b (h t j) i -> b h t (j i)", h=x.shape[1], t=x.shape[2])


def _is_shared(packed: Packed) -> bool:
    """Whether tokens that stand together share a small factor, over all heads."""
    small = packed.groups["small"]
    return small.shape[1] == 1 and (packed.size > 1 or packed.count == 1)


def _by_group(packed: Packed) -> Iterator[Packed]:
    """The tokens of each small factor."""
    for group, start in enumerate(range(0, packed.count, packed.size)):
        count = min(packed.size, packed.count - start)
        tokens = {name: t.narrow(2, start, count) for name, t in packed.tokens.items()}
        groups = {name: t.narrow(2, group, 1) for name, t in packed.groups.items()}
        yield Packed(tokens, groups, count, packed.part)
