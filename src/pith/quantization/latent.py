"""A matrix as codes of latents that a small decoder turns into weights: how it is learned, coded and decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

BLOCK, BLOCKS = 64, 256
"""Weights that share a scale, and scales that share a maximum."""

STRIP, WINDOW = 64, 16
"""Rows whose columns are put in one order, and the placed columns whose mean the next one has to be near."""

_LEARNED_FROM = 16384
"""Vectors from which a decoder is learned; a matrix that has more gives rows at equal distances."""

_AT_ONCE = 64
"""Rows of codes for which the cheapest sequence is looked for together; what is held grows with it."""


@dataclass(frozen=True)
class Decoder:
    """Latents and the network that reads two of them: that of the vector itself and that of the one to its left.

        vector = latent + out^T sin(mix^T [left latent, latent] + phase)

    Attributes:
        latents: of every code: [code, run].
        mix: [2 run, hidden].
        phase: [hidden].
        out: [hidden, run].
    """

    latents: Float[Tensor, "code run"]
    mix: Float[Tensor, "two_run hidden"]
    phase: Float[Tensor, " hidden"]
    out: Float[Tensor, "hidden run"]

    def table(self) -> Float[Tensor, "left code run"]:
        """The vector of every code beside every left neighbour, in float32."""
        latents, mix, phase, out = (tensor.float() for tensor in self.tensors())
        count = len(latents)
        left, own = latents[:, None].expand(-1, count, -1), latents[None].expand(count, -1, -1)
        return own + torch.sin(torch.cat([left, own], dim=-1) @ mix + phase) @ out

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Its parts."""
        return self.latents, self.mix, self.phase, self.out

    def stored_as(self, dtype: torch.dtype) -> Decoder:
        """The decoder with numbers that a dtype can hold."""
        return Decoder(*(tensor.detach().to(dtype) for tensor in self.tensors()))


@dataclass(frozen=True)
class Scales:
    """One scale for every `BLOCK` weights of a matrix read row by row, in a byte.

        scale = offset + step / 255 top

    Attributes:
        steps: [block].
        tops: the largest of every `BLOCKS` scales, less the offset.
        offset: the least scale, [1].
    """

    steps: UInt8[Tensor, " block"]
    tops: Float[Tensor, " superblock"]
    offset: Float[Tensor, 1]

    def spread(self, out: int, inputs: int) -> Float[Tensor, "out in"]:
        """The scale of every weight."""
        tops = self.tops.float().repeat_interleave(BLOCKS)[: len(self.steps)]
        each = self.offset.float() + self.steps.float() / 255 * tops
        return each.repeat_interleave(BLOCK)[: out * inputs].view(out, inputs)


def fit_scales(weight: Float[Tensor, "out in"]) -> Scales:
    """The largest absolute weight of every block, rounded as it is stored; none is 0."""
    flat = weight.flatten().abs()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK).amax(-1)
    offset = blocks.amin()
    rest = blocks - offset
    tops = torch.nn.functional.pad(rest, (0, -len(rest) % BLOCKS)).view(-1, BLOCKS).amax(-1)
    each = tops.repeat_interleave(BLOCKS)[: len(rest)].clamp(min=torch.finfo(torch.float32).tiny)
    steps = (rest / each * 255).round().to(torch.uint8)
    return Scales(steps, tops, offset[None].clamp(min=1e-8))


def vectors(weight: Float[Tensor, "out in"], run: int) -> Float[Tensor, "row input run"]:
    """Runs of vertically neighbouring weights; rows are filled up with zeros to a whole run."""
    filled = torch.nn.functional.pad(weight, (0, 0, 0, -weight.shape[0] % run))
    return torch.unflatten(filled, 0, (-1, run)).transpose(1, 2)


def from_vectors(parts: Float[Tensor, "row input run"], out: int) -> Float[Tensor, "out in"]:
    """What `vectors` cut."""
    return parts.transpose(1, 2).flatten(0, 1)[:out]


def column_order(weight: Float[Tensor, "out in"]) -> Int[Tensor, "strip in"]:
    """For every strip of rows the columns in an order in which neighbours are alike.

    The first columns keep their places; each that follows is the one, of those left, that is nearest to the mean of the
    `WINDOW` that were placed before the last one, as in the authors' code.
    """
    filled = torch.nn.functional.pad(weight.float(), (0, 0, 0, -weight.shape[0] % STRIP))
    strips = torch.unflatten(filled, 0, (-1, STRIP))
    count, _, inputs = strips.shape
    kept = min(WINDOW + 1, inputs)
    order = torch.arange(inputs, device=weight.device).repeat(count, 1)
    placed = torch.zeros(count, inputs, dtype=torch.bool, device=weight.device)
    placed[:, :kept] = True
    squares = strips.square().sum(1)
    for at in range(kept, inputs):
        latest = order[:, at - WINDOW - 1 : at - 1, None].transpose(1, 2).expand(-1, strips.shape[1], -1)
        mean = strips.gather(2, latest).mean(-1, keepdim=True)
        distance = squares - 2 * (mean * strips).sum(1)  # less the square of the mean, which is the same for all
        order[:, at] = distance.masked_fill(placed, torch.inf).argmin(1)
        placed.scatter_(1, order[:, at : at + 1], True)
    return order


def reordered(weight: Float[Tensor, "out in"], order: Int[Tensor, "strip in"]) -> Float[Tensor, "out in"]:
    """Every strip with its columns in an order."""
    rows = order.long().repeat_interleave(STRIP, dim=0)[: weight.shape[0]]
    return weight.gather(1, rows)


def k_means(
    points: Float[Tensor, "point run"], count: int, steps: int, generator: torch.Generator
) -> Float[Tensor, "count run"]:
    """Centres of points; one that lost all its points stays where it is.

    The first ones are points drawn at random, those far from the ones drawn before more often (k-means++).
    """
    drawn = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = torch.full((len(points),), torch.inf, device=points.device)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[drawn[-1]]).square().sum(1))
        chances = distance.cpu() + torch.finfo(torch.float32).tiny
        drawn.append(int(torch.multinomial(chances, 1, generator=generator)))
    centres = points[drawn]
    for _ in range(steps):
        nearest = torch.cdist(points, centres).argmin(1)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def cheapest_codes(
    targets: Float[Tensor, "row input run"],
    scales: Float[Tensor, "row input run"],
    table: Float[Tensor, "left code run"],
) -> Int[Tensor, "row input"]:
    """Of every row the sequence of codes whose vectors are nearest to the targets (the Viterbi algorithm).

    minimise over codes  sum_j |scale_j (table[code_(j-1), code_j] - target_j)|^2,    code before the first: 0
    """
    count, _, run = table.shape
    flat = table.reshape(-1, run)
    against = torch.cat([-2 * flat, flat**2], dim=1).T.contiguous()
    weights = scales.square()
    read = torch.cat([weights * targets, weights], dim=-1)
    return torch.cat([_cheapest(part, against, count) for part in torch.split(read, _AT_ONCE)])


def _cheapest(
    read: Float[Tensor, "row input two_run"], against: Float[Tensor, "two_run pair"], count: int
) -> Int[Tensor, "row input"]:
    rows, inputs, _ = read.shape
    # what the cheapest way to each code costs; the ways themselves are found again on the way back
    costs = torch.empty(inputs, rows, count, device=read.device)
    costs[0] = (read[:, 0] @ against).view(rows, count, count)[:, 0]
    for at in range(1, inputs):
        step = (read[:, at] @ against).view(rows, count, count)
        costs[at] = step.add_(costs[at - 1, :, :, None]).amin(1)
    codes = torch.empty(rows, inputs, dtype=torch.long, device=read.device)
    codes[:, -1] = costs[-1].argmin(1)
    by_code = against.view(-1, count, count).permute(2, 1, 0)  # [code, left, two_run]
    for at in range(inputs - 1, 0, -1):
        step = (by_code[codes[:, at]] @ read[:, at, :, None]).squeeze(-1)
        codes[:, at - 1] = (costs[at - 1] + step).argmin(1)
    return codes


def decoded(codes: Int[Tensor, "row input"], table: Float[Tensor, "left code run"]) -> Float[Tensor, "row input run"]:
    """The vectors that sequences of codes stand for."""
    left = torch.nn.functional.pad(codes[:, :-1], (1, 0))
    return table.flatten(0, 1)[left * table.shape[1] + codes]


def fit_decoder(
    targets: Float[Tensor, "row input run"],
    scales: Float[Tensor, "row input run"],
    codes: int,
    size: tuple[int, int, int],
    generator: torch.Generator,
) -> Decoder:
    """A decoder for such vectors: codes are chosen for the decoder, and the decoder is learned for the codes, in turn.

    It begins as a codebook of centres with a small network beside it; where that brought nothing, it is the codebook.

    Args:
        targets: the vectors, in units of their scales.
        scales: of each weight.
        codes: how many there are.
        size: hidden numbers of the network, rounds, and steps of Adam in each.
        generator: of all that is random.
    """
    hidden, rounds, steps = size
    run, stride = targets.shape[-1], max(targets.shape[0] * targets.shape[1] // _LEARNED_FROM, 1)
    targets, scales = targets[::stride], scales[::stride]
    scales = scales / scales.square().mean().sqrt()
    spacing = 0.8 * codes ** (-1 / run)  # what the network adds at first is of the size of what it can mend
    centres = k_means(targets.reshape(-1, run), codes, 20, generator)
    with torch.enable_grad():
        decoder = Decoder(
            centres.clone().requires_grad_(),
            (6.0 * torch.randn(2 * run, hidden, generator=generator)).to(targets).requires_grad_(),
            torch.randn(hidden, generator=generator).to(targets).requires_grad_(),
            (spacing / hidden**0.5 * torch.randn(hidden, run, generator=generator)).to(targets).requires_grad_(),
        )
        optimizer = torch.optim.Adam(decoder.tensors(), lr=0.01)
        for turn in range(rounds):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - 0.95 * turn / rounds)
            chosen = cheapest_codes(targets, scales, decoder.table().detach())
            weights, means = _wanted(targets, scales, chosen, codes)
            for _ in range(steps):
                loss = (weights * (decoder.table().flatten(0, 1) - means).square()).sum()
                gradients = torch.autograd.grad(loss, decoder.tensors())
                for tensor, gradient in zip(decoder.tensors(), gradients, strict=True):
                    tensor.grad = gradient
                optimizer.step()
    learned = decoder.stored_as(torch.float32)
    codebook = Decoder(centres, learned.mix, learned.phase, torch.zeros_like(learned.out))
    return min(learned, codebook, key=lambda one: _error(targets, scales, one.table()))


def _error(
    targets: Float[Tensor, "row input run"],
    scales: Float[Tensor, "row input run"],
    table: Float[Tensor, "left code run"],
) -> float:
    made = decoded(cheapest_codes(targets, scales, table), table)
    return float((scales * (made - targets)).square().sum())


def _wanted(
    targets: Float[Tensor, "row input run"],
    scales: Float[Tensor, "row input run"],
    chosen: Int[Tensor, "row input"],
    codes: int,
) -> tuple[Float[Tensor, "pair run"], Float[Tensor, "pair run"]]:
    """For every code beside every left neighbour: how much it weighs, and the mean of the vectors that chose it."""
    pairs = (torch.nn.functional.pad(chosen[:, :-1], (1, 0)) * codes + chosen).flatten()
    weights, run = scales.square().flatten(0, 1), targets.shape[-1]
    total = torch.zeros(codes**2, run, device=targets.device).index_add_(0, pairs, weights)
    sums = torch.zeros_like(total).index_add_(0, pairs, weights * targets.flatten(0, 1))
    return total / total.sum(), sums / total.clamp(min=torch.finfo(torch.float32).tiny)
