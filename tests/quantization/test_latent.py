"""How a matrix becomes codes of latents, and weights again."""

from __future__ import annotations

import itertools

import pytest
import torch

from pith.quantization import latent
from pith.quantization.latent import Decoder


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_table_is_the_decoder_for_every_pair_of_latents() -> None:
    decoder = Decoder(drawn(4, 2), drawn(4, 8, seed=1), drawn(8, seed=2), drawn(8, 2, seed=3))
    table = decoder.table()
    for left, own in itertools.product(range(4), repeat=2):
        read = torch.cat([decoder.latents[left], decoder.latents[own]])
        expected = decoder.latents[own] + torch.sin(read @ decoder.mix + decoder.phase) @ decoder.out
        assert torch.allclose(table[left, own], expected, atol=1e-6)


def test_codes_are_the_best_of_all_sequences() -> None:
    table, targets, scales = drawn(3, 3, 2), drawn(4, 5, 2, seed=1), drawn(4, 5, 2, seed=2).abs()
    found = latent.cheapest_codes(targets, scales, table)
    for row in range(len(targets)):
        costs = {}
        for codes in itertools.product(range(3), repeat=5):
            made = torch.stack([table[left, own] for left, own in zip((0, *codes), codes, strict=False)])
            costs[codes] = float((scales[row] * (made - targets[row])).square().sum())
        assert tuple(found[row].tolist()) == min(costs, key=costs.__getitem__)
        made = latent.decoded(found[row : row + 1], table)[0]
        assert float((scales[row] * (made - targets[row])).square().sum()) == pytest.approx(
            min(costs.values()), rel=1e-4
        )


@pytest.mark.parametrize(("out", "run"), [(6, 2), (7, 2), (5, 1)])
def test_vectors_are_runs_of_rows(out: int, run: int) -> None:
    weight = drawn(out, 3)
    parts = latent.vectors(weight, run)
    assert parts.shape == (-(-out // run), 3, run)
    assert torch.equal(parts[0, 1], weight[:run, 1])
    assert torch.equal(latent.from_vectors(parts, out), weight)


@pytest.mark.parametrize("shape", [(64, 64), (3, 50), (300, 70)])
def test_scales_are_nearly_the_largest_weights_of_blocks(shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    scales = latent.fit_scales(weight)
    assert scales.steps.dtype == torch.uint8
    spread = scales.spread(*shape).flatten()
    for block in range(len(scales.steps)):
        inside = slice(block * latent.BLOCK, (block + 1) * latent.BLOCK)
        largest = weight.flatten()[inside].abs().max()
        assert (spread[inside] == spread[inside][0]).all()
        assert abs(spread[inside][0] - largest) <= scales.tops.max() / 255 / 2 + 1e-6
    assert (latent.fit_scales(torch.zeros(8, 16)).spread(8, 16) > 0).all()


def test_an_order_puts_every_column_where_its_neighbours_are_alike() -> None:
    weight = drawn(100, 40)
    order = latent.column_order(weight)
    assert order.shape == (2, 40)
    assert all(sorted(row.tolist()) == list(range(40)) for row in order)
    turned = latent.reordered(weight, order)
    assert torch.equal(turned[:64], weight[:64, order[0]])
    assert torch.equal(turned[64:], weight[64:, order[1]])
    for at in (17, 25, 38):  # the nearest of those left to the mean of 16 placed ones
        mean = weight[:64, order[0, at - 17 : at - 1]].mean(1, keepdim=True)
        left = order[0, at:]
        assert left[(weight[:64, left] - mean).norm(dim=0).argmin()] == order[0, at]


def test_centres_are_means_of_what_is_nearest_to_them() -> None:
    points = drawn(200, 2)
    centres = latent.k_means(points, 5, 60, torch.Generator().manual_seed(0))
    nearest = torch.cdist(points, centres).argmin(1)
    for index in range(5):
        assert torch.allclose(points[nearest == index].mean(0), centres[index], atol=1e-4)


@torch.no_grad()
def test_learning_makes_a_decoder_better_than_its_codebook() -> None:
    targets, scales = drawn(32, 64, 2), torch.ones(32, 64, 2)

    def error(rounds: int) -> float:
        decoder = latent.fit_decoder(targets, scales, 16, (16, rounds, 20), torch.Generator().manual_seed(0))
        table = decoder.table()
        return float((latent.decoded(latent.cheapest_codes(targets, scales, table), table) - targets).square().mean())

    codebook = latent.k_means(targets.reshape(-1, 2), 16, 20, torch.Generator().manual_seed(0))
    plain = torch.cdist(targets.reshape(-1, 2), codebook).amin(1).square().mean() / 2
    assert error(6) < 0.97 * float(plain)
    assert error(6) < error(1)
