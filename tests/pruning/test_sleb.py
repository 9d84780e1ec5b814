"""SLEB against brute force, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import pith
from contracts.drawn import drawn, drawn_tokens
from pith.core import ModelError, ParameterError
from pith.pruning.sleb import SLEB
from pith.weights import Calibration, blocks, compress
from pith.weights.calibration import of_tokens
from pith.weights.size import weight_bytes


def texts(rows: int = 3, length: int = 16, **more: Any) -> Calibration:
    return of_tokens(drawn_tokens(rows, length, seed=9).tolist(), **more)


def naive_loss(model: Any, kept: list[int], calibration: Calibration) -> float:
    """The loss of a forward written by hand through these blocks only."""
    total = 0.0
    for text in calibration.tokens:
        states = model.model.embed_tokens(text[None])
        angles = model.model.rotary_emb(states, torch.arange(len(text))[None])
        for index in kept:
            states = model.model.layers[index](states, position_embeddings=angles)
        logits = model.lm_head(model.model.norm(states))[0]
        total += len(text) * float(F.cross_entropy(logits[:-1], text[1:]))
    return total


def kept_of(model: Any, smaller: Any) -> list[int]:
    """Which blocks of a model a smaller one has."""
    own = [block.mlp.up_proj.weight.data_ptr() for block in blocks(model)]
    return [own.index(block.mlp.up_proj.weight.data_ptr()) for block in blocks(smaller)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("early", "late"), [(1, 1), (0, 0), (2, 0)])
@torch.no_grad()
def test_its_set_is_that_of_greedy_brute_force(seed: int, early: int, late: int) -> None:
    model, calibration = drawn(seed), texts()
    alive = list(range(6))
    for _ in range(3):
        seats = range(early, len(alive) - late)
        losses = [naive_loss(model, alive[:seat] + alive[seat + 1 :], calibration) for seat in seats]
        del alive[early + min(range(len(losses)), key=losses.__getitem__)]
    assert kept_of(model, SLEB(drop=3, early=early, late=late).compress(model, calibration)) == alive


@torch.no_grad()
def test_one_block_is_the_best_of_all_sets_of_five() -> None:
    model, calibration = drawn(4), texts()
    best = min(itertools.combinations(range(6), 5), key=lambda kept: naive_loss(model, list(kept), calibration))
    assert kept_of(model, SLEB(drop=1, early=0, late=0).compress(model, calibration)) == list(best)


@torch.no_grad()
def test_removal_gives_the_logits_of_passing_by_and_a_plain_model(tmp_path: Path) -> None:
    model, calibration = drawn(0), texts()
    smaller = SLEB(drop=2).compress(model, calibration)
    assert type(smaller) is type(model)
    assert smaller.config.num_hidden_layers == len(blocks(smaller)) == 4
    assert [block.self_attn.layer_idx for block in blocks(smaller)] == [0, 1, 2, 3]
    loss = naive_loss(model, kept_of(model, smaller), calibration)
    assert naive_loss(smaller, [0, 1, 2, 3], calibration) == loss
    assert SLEB(drop=2).predicted_bytes(model) == weight_bytes(smaller)
    assert model.config.num_hidden_layers == 6


def test_a_share_is_rounded_up_and_zero_removes_nothing() -> None:
    model, calibration = drawn(0), texts()
    assert len(blocks(SLEB(drop=0.2).compress(model, calibration))) == 4
    assert len(blocks(SLEB(drop=0).compress(model, calibration))) == 6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match=r"5 of 6 blocks .* the first 1 and the last 1 stay; allowed are at most 4"):
        SLEB(drop=5).compress(drawn(0), texts())
    with pytest.raises(ParameterError, match=r"drop=1\.5 is not allowed"):
        SLEB(drop=1.5).compress(drawn(0), texts())


class _Halt(Exception):  # noqa: N818
    pass


def test_a_stopped_search_goes_on_where_it_was(tmp_path: Path) -> None:
    model, begun = drawn(1), []

    def stop(what: str, done: int, total: int) -> None:
        begun.append((what, done, total))
        if len(begun) == 7:
            raise _Halt

    many = texts(rows=300)  # of 128 a batch
    whole = SLEB(drop=2).compress(model, many)
    with pytest.raises(_Halt):
        SLEB(drop=2).compress(model, texts(rows=300, folder=tmp_path, progress=stop))
    told: list[int] = []
    again = texts(rows=300, folder=tmp_path, progress=lambda what, done, total: told.append(done))
    assert kept_of(model, SLEB(drop=2).compress(model, again)) == kept_of(model, whole)
    assert told == [3, 2, 3]  # the first round is known, and two batches of the second


def test_packed_layers_may_be_in_the_blocks() -> None:
    model, calibration = drawn(2), texts()
    dense = compress(model, "sleb(drop=1)", calibration)
    packed = compress(model, "rtn(bits=8) + sleb(drop=1)", calibration)
    assert len(blocks(packed)) == 5
    with torch.no_grad():
        tokens = drawn_tokens(1, 12, 0)
        apart = (packed(tokens).logits - dense(tokens).logits).norm() / dense(tokens).logits.norm()
    assert apart < 0.1
    with pith.applied(packed, "snapkv(budget=0.5)"):
        assert packed.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (1, 15)
