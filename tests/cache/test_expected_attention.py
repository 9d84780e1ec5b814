"""Expected Attention against its equation, written naively, with a model's own rotation."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.steps import step as made
from contracts.test_eviction_laws import all_real, read_and_decode
from contracts.tiny import tiny, tokens
from pith.attention import Step
from pith.attention.rotary import Rotor
from pith.attention.self_check import check
from pith.cache.expected_attention import ExpectedAttention
from pith.core import ModelError, Recipe

DIM = 16


def turn(dim: int, place: int) -> torch.Tensor:
    """A rotation as a matrix: channel i and i + dim / 2 by the angle place * 10000^(-2 i / dim); others stay."""
    matrix = torch.eye(DIM, dtype=torch.float64)
    for i in range(dim // 2):
        angle, other = place * 10000 ** (-2 * i / dim), i + dim // 2
        matrix[i, i] = matrix[other, other] = math.cos(angle)
        matrix[other, i], matrix[i, other] = math.sin(angle), -math.sin(angle)
    return matrix


def naive(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, method: ExpectedAttention, rotary_dim: int
) -> list[float]:
    """The scores of one key-value head behind the sinks; `query` [group, token, dim] before rotation."""
    length, first = len(keys), method.n_sink
    places = range(length, length + method.n_future_positions)
    average = sum(turn(rotary_dim, place) for place in places) / len(places)
    heads = []
    for asked in query.double():
        mean = asked[first:].mean(dim=0)
        spread = sum((q - mean)[:, None] * (q - mean)[None, :] for q in asked[first:]) / (length - first)
        mean, spread = average @ mean, average @ spread @ average.T
        z = [float(k @ mean) / math.sqrt(DIM) for k in keys[first:].double()]
        if method.use_covariance:
            z = [x + float(k @ spread @ k) / (2 * DIM) for x, k in zip(z, keys[first:].double(), strict=True)]
        total = sum(math.exp(x) for x in z)
        heads.append([math.exp(x) / total for x in z])
    merge = {"mean": lambda xs: sum(xs) / len(xs), "max": max, "sum": sum}[method.group]
    shares = [merge(xs) for xs in zip(*heads, strict=True)]
    if not method.use_vnorm:
        return shares
    return [(p + method.epsilon) * float(v.norm()) for p, v in zip(shares, values[first:], strict=True)]


def prompt(name: str, kv_heads: int, length: int, empty: int) -> tuple[Step, torch.Tensor]:
    """A step of two rows, the second of which begins with padding, and its queries before their rotation."""
    torch.manual_seed(0)
    model = tiny(name)
    rotor = Rotor(check(model).of(0), torch.zeros(2, 1, dtype=torch.long))
    positions = torch.stack([torch.arange(length), (torch.arange(length) - empty).clamp(min=-1)])[:, None].int()
    query = torch.randn(2, 4, length, DIM) + torch.randn(1, 4, 1, DIM)
    query[1, :, :empty] = 9.0
    keys, values = torch.randn(2, kv_heads, length, DIM), torch.randn(2, kv_heads, length, DIM)
    keys[1, :, :empty] = 9.0
    rotated = rotor.rotate(query, rotor.text(positions))
    return made(rotated, keys, values, positions, rotor=rotor), query


@pytest.mark.parametrize(("name", "kv_heads", "rotary_dim"), [("llama_gqa", 2, 16), ("gpt_neox", 4, 4)])
@pytest.mark.parametrize(
    "method",
    [
        ExpectedAttention(n_future_positions=20),
        ExpectedAttention(n_future_positions=1, n_sink=0, epsilon=0.1, group="max"),
        ExpectedAttention(n_future_positions=64, n_sink=3, use_covariance=False, use_vnorm=False),
    ],
    ids=["default", "max", "mean_only"],
)
@pytest.mark.parametrize("empty", [0, 6])
def test_scores_are_the_papers(
    name: str, kv_heads: int, rotary_dim: int, method: ExpectedAttention, empty: int
) -> None:
    s, query = prompt(name, kv_heads, 23, empty)
    scores = method.score(s)
    for row, start in ((0, 0), (1, empty)):
        first = start + method.n_sink
        for head in range(kv_heads):
            asked = query[row].unflatten(0, (kv_heads, -1))[head, :, start:]
            expected = naive(asked, s.keys[row, head, start:], s.values[row, head, start:], method, rotary_dim)
            assert scores[row, head, first:].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert scores[row, head, start:first].isinf().all()


@pytest.mark.parametrize("length", [1, 3, 4, 5])
def test_prompts_no_longer_than_the_sinks(length: int) -> None:
    s, _ = prompt("llama_gqa", 2, length, 0)
    scores = ExpectedAttention().score(s)
    assert not scores.isnan().any()
    assert scores[..., :4].isinf().all()


def test_a_later_turn_is_scored_by_its_own_queries() -> None:
    """The same pairs and the same queries get the same scores, whatever was read before them."""
    whole, query = prompt("llama_gqa", 2, 40, 0)
    assert whole.rotor is not None
    later = made(whole.query[:, :, 30:], whole.keys, whole.values, whole.positions, rotor=whole.rotor)
    mean, covariance = ExpectedAttention().statistics(later)
    assert (mean - query[:, :, 30:].mean(dim=2)).abs().max() < 1e-4
    centred = query[:, :, 30:] - query[:, :, 30:].mean(dim=2, keepdim=True)
    assert (covariance - centred.transpose(-1, -2) @ centred / 10).abs().max() < 1e-4
    assert not ExpectedAttention().score(later).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_keep_what_future_queries_like_the_prompts_take_most_from(dtype: torch.dtype) -> None:
    """Four heavily asked-for keys among forty are kept, without a single query being asked about them twice."""
    s, query = prompt("llama_mha", 4, 40, 0)
    keys = s.keys.clone()
    average = torch.stack([turn(16, place) for place in range(40, 41)]).mean(dim=0).float()
    wanted = [9, 17, 22, 35]
    keys[:, :, wanted] = 3 * (query.mean(dim=2, keepdim=True) @ average.T)
    method = ExpectedAttention(n_future_positions=1, use_covariance=False, use_vnorm=False)
    alike = made(s.query.to(dtype), keys.to(dtype), s.values.to(dtype), s.positions, rotor=s.rotor)
    best = method.score(alike)[..., 4:].topk(4).indices + 4
    assert (best.sort(dim=-1).values == torch.tensor(wanted)).float().mean() > 0.9


def test_with_heads_of_their_own_budget_as_in_the_authors_benchmarks() -> None:
    model, prompt_tokens = tiny("llama_gqa"), tokens(1, 400)
    recipe = Recipe.parse("ada_kv(expected_attention(budget=0.25, epsilon=0.01))")
    logits, cache = read_and_decode(model, recipe, prompt_tokens, all_real(prompt_tokens), tokens(1, 4))
    assert torch.isfinite(logits).all()
    counts = (cache.layers[1].store.positions >= 0).sum(dim=-1)
    assert counts.sum() == pytest.approx(2 * 104, abs=2)


def test_a_model_without_rotation_is_refused() -> None:
    import transformers as hf

    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="GPT2LMHeadModel has no rotary embedding"):
        Recipe([ExpectedAttention()]).cache(model)
