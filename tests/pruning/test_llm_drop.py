"""LLM-Drop drops what hardly turns the hidden states, and what is left is the model without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import pith
from contracts.drawn import drawn, drawn_tokens
from pith.core import ModelError
from pith.pruning.llm_drop import LLMDrop
from pith.weights import Calibration, blocks
from pith.weights.calibration import of_tokens
from pith.weights.folder import load_folder
from pith.weights.size import weight_bytes
from pith.weights.structure import is_dropped

PARTS: tuple[Literal["attention", "mlp", "joint"], ...] = ("attention", "mlp", "joint")


def texts(rows: int = 5, length: int = 16, **more: Any) -> Calibration:
    return of_tokens(drawn_tokens(rows, length, seed=3).tolist(), **more)


def naive_forward(model: Any, tokens: torch.Tensor, without: set[tuple[str, int]]) -> tuple[torch.Tensor, Any]:
    """Logits without parts, and of every part 1 - the mean cosine of what it adds to and the sum."""
    states = model.model.embed_tokens(tokens)
    angles = model.model.rotary_emb(states, torch.arange(tokens.shape[1])[None])
    turned: dict[tuple[str, int], float] = {}
    for index, block in enumerate(model.model.layers):
        begin = states
        if ("attention", index) not in without:
            added = block.self_attn(block.input_layernorm(states), position_embeddings=angles, attention_mask=None)[0]
            turned["attention", index] = cosine(states, states + added)
            states = states + added
        if ("mlp", index) not in without:
            added = block.mlp(block.post_attention_layernorm(states))
            turned["mlp", index] = cosine(states, states + added)
            states = states + added
        turned["block", index] = cosine(begin, states)
    return model.lm_head(model.model.norm(states)), turned


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    total = 0.0
    for a, b in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True):
        total += float(a @ b) / float(a.norm() * b.norm())
    return 1 - total / x.flatten(0, 1).shape[0]


@pytest.mark.parametrize("part", [*PARTS, "block"])
@torch.no_grad()
def test_importance_is_the_papers(part: Literal["attention", "mlp", "joint", "block"]) -> None:
    model, calibration = drawn(0, scale=0.15), texts()
    turned = naive_forward(model, calibration.tokens, set())[1]
    kinds = ("attention", "mlp") if part == "joint" else (part,)
    expected = [turned[kind, index] for kind in kinds for index in range(6)]
    assert LLMDrop(part=part).importance(model, calibration).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_the_least_important_go_and_the_rest_computes_as_before(
    part: Literal["attention", "mlp", "joint"], tmp_path: Path
) -> None:
    model, calibration = drawn(1, scale=0.15), texts()
    turned = naive_forward(model, calibration.tokens, set())[1]
    kinds = ("attention", "mlp") if part == "joint" else (part,)
    least = sorted((key for key in turned if key[0] in kinds), key=lambda key: turned[key])[:3]
    smaller = LLMDrop(drop=3, part=part).compress(model, calibration)
    gone = {(kind, i) for i, b in enumerate(blocks(smaller)) for kind in ("attention", "mlp") if is_dropped(b, kind)}
    assert gone == set(least)
    tokens = drawn_tokens(2, 12, 5)
    logits = smaller(tokens).logits
    assert torch.allclose(logits, naive_forward(model, tokens, gone)[0], atol=1e-5)
    if part != "joint":
        assert LLMDrop(drop=3, part=part).predicted_bytes(model) == weight_bytes(smaller)
    smaller.save_pretrained(tmp_path)
    assert torch.equal(load_folder(tmp_path)(tokens).logits, logits)


@torch.no_grad()
def test_a_planted_part_that_does_nothing_goes_first() -> None:
    for part, name in (("attention", "self_attn.o_proj"), ("mlp", "mlp.down_proj")):
        model = drawn(2)
        blocks(model)[1].get_submodule(name).weight.zero_()
        smaller = LLMDrop(drop=1, part="joint").compress(model, texts())
        assert is_dropped(blocks(smaller)[1], part)
        tokens = drawn_tokens(2, 9, 0)
        assert torch.allclose(smaller(tokens).logits, model(tokens).logits, atol=1e-6)


@torch.no_grad()
def test_dropped_attention_keeps_no_keys_and_values() -> None:
    smaller = LLMDrop(drop=2).compress(drawn(3), texts())
    tokens = drawn_tokens(2, 12, 5)
    cache = smaller(tokens, use_cache=True).past_key_values
    assert sorted(layer.get_seq_length() for layer in cache.layers) == [0, 0, 12, 12, 12, 12]
    assert cache.get_seq_length() == 12
    with pith.applied(smaller, "snapkv(budget=0.5, window=2)"):
        cache = smaller(tokens, use_cache=True).past_key_values
    assert sum(tensor.numel() for layer in cache.served() if layer.keys is not None for tensor in (layer.keys,)) == (
        4 * 2 * 4 * 6 * 8  # layers, rows, heads, half of the tokens, head_dim
    )


def test_whole_blocks_leave_a_plain_model() -> None:
    model = drawn(0)
    smaller = LLMDrop(drop=2, part="block").compress(model, texts())
    assert type(smaller) is type(model)
    assert len(blocks(smaller)) == smaller.config.num_hidden_layers == 4
    assert LLMDrop(drop=2, part="block").predicted_bytes(model) == weight_bytes(smaller)


def test_again_it_drops_of_what_is_left() -> None:
    model = drawn(0)
    twice = LLMDrop(drop=1).compress(LLMDrop(drop=1).compress(model, texts()), texts())
    assert sum(is_dropped(block, "attention") for block in blocks(twice)) == 2


@pytest.mark.parametrize(("part", "most"), [("attention", 6), ("block", 5), ("joint", 12)])
def test_what_cannot_be_is_refused(part: Literal["attention", "joint", "block"], most: int) -> None:
    with pytest.raises(ModelError, match=rf"13 parts of {12 if part == 'joint' else 6} .* at most {most}"):
        LLMDrop(drop=13, part=part).compress(drawn(0), texts())


class _Halt(Exception):  # noqa: N818
    pass


def test_a_stopped_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise _Halt

    model = drawn(1)
    whole = LLMDrop().importance(model, texts(300))
    stage = texts(300, folder=tmp_path, progress=stop)
    with pytest.raises(_Halt):
        LLMDrop().importance(model, stage)
    told: list[int] = []
    again = texts(300, folder=tmp_path, progress=lambda what, done, total: told.append(done))
    assert torch.equal(LLMDrop().importance(model, again), whole)
    assert told == [2, 3]
