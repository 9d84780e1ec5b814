"""FLAP against its equations written naively, and the promise that what never varies can go for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pith
from contracts.drawn import drawn, drawn_tokens
from contracts.tiny import tiny
from pith.core import ModelError
from pith.pruning.flap import FLAP, costs, moments, ranked_together
from pith.weights import Calibration, blocks, parts
from pith.weights.calibration import of_tokens
from pith.weights.dropped import Dropped
from pith.weights.folder import load_folder
from pith.weights.narrow import Narrow
from pith.weights.size import weight_bytes

GROUPED = {"num_hidden_layers": 3, "num_key_value_heads": 2}


def texts(rows: int = 6, length: int = 16, **more: Any) -> Calibration:
    return of_tokens(drawn_tokens(rows, length, seed=3).tolist(), **more)


def inputs_of(model: Any, calibration: Calibration) -> dict[tuple[str, int], torch.Tensor]:
    """Everything that o_proj and down_proj read: [token, in]."""
    read: dict[tuple[str, int], list[torch.Tensor]] = {}
    handles = [
        linear.register_forward_pre_hook(
            lambda m, args, key=key: read.setdefault(key, []).append(args[0].flatten(0, 1))
        )
        for index, block in enumerate(blocks(model))
        for key, linear in ((("attention", index), parts(block).o), (("mlp", index), parts(block).down))
    ]
    model(calibration.tokens)
    for handle in handles:
        handle.remove()
    return {key: torch.cat(rows) for key, rows in read.items()}


@torch.no_grad()
def test_moments_are_those_of_all_tokens() -> None:
    model, calibration = drawn(0, **GROUPED), texts(rows=300)  # three batches
    read = moments(model, calibration)
    for key, rows in inputs_of(model, calibration).items():
        assert torch.allclose(read[key].mean.float(), rows.mean(0), atol=1e-5)
        assert torch.allclose(read[key].variance.float(), rows.var(0), rtol=1e-4)
        assert torch.allclose(read[key].square.float(), rows.square().mean(0), rtol=1e-4)


@pytest.mark.parametrize("metric", ["wifv", "ifv", "wifn"])
@torch.no_grad()
def test_scores_are_the_papers(metric: Any) -> None:
    model, calibration = drawn(0, **GROUPED), texts()
    scores = FLAP(metric=metric).scores(model, moments(model, calibration))
    for (kind, index), rows in inputs_of(model, calibration).items():
        linear = parts(blocks(model)[index]).o if kind == "attention" else parts(blocks(model)[index]).down
        raw = []
        for j in range(rows.shape[1]):
            column, weight = rows[:, j].double(), linear.weight[:, j].double()
            fluctuation = float(((column - column.mean()) ** 2).sum() / (len(column) - 1))
            norm = float(weight.abs().mean() * column.square().mean().sqrt())
            raw.append({"wifv": fluctuation * float(weight.square().sum()), "ifv": fluctuation, "wifn": norm}[metric])
        mean = sum(raw) / len(raw)
        std = (sum((one - mean) ** 2 for one in raw) / (len(raw) - 1)) ** 0.5
        standard = [(one - mean) / std for one in raw]
        if kind == "attention":  # two key-value heads, each read by two query heads of 8
            standard = [sum(standard[16 * head : 16 * head + 16]) / 16 for head in range(2)]
        assert scores[kind][index].tolist() == pytest.approx(standard, rel=1e-3, abs=1e-4)


def test_the_search_keeps_the_best_for_their_price() -> None:
    price = {"attention": [4.0, 4.0], "mlp": [1.0, 1.0]}
    scores = {
        "attention": [torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.4])],
        "mlp": [torch.tensor([0.8, 0.2, 0.7]), torch.tensor([0.05, 0.6, 0.3])],
    }
    everything = 4 * 4 + 6
    for sparsity in (0.0, 0.1, 0.2, 0.35, 0.5, 0.8):
        kept = ranked_together(scores, price, sparsity)
        ranking = sorted(
            ((float(one), price[kind][0]) for kind in scores for row in scores[kind] for one in row), reverse=True
        )
        spent = [sum(cost for _, cost in ranking[: count + 1]) for count in range(len(ranking))]
        count = min(range(len(spent)), key=lambda c: abs(spent[c] - (1 - sparsity) * everything)) + 1
        least = ranking[count - 1][0]
        for kind, rows in scores.items():
            for row, mask in zip(rows, kept[kind], strict=True):
                assert mask.tolist() == [float(one) >= least for one in row]


@pytest.mark.parametrize("shape", [{}, GROUPED, {**GROUPED, "attention_bias": True, "mlp_bias": True}])
@torch.no_grad()
def test_what_never_varies_goes_for_nothing(shape: dict[str, Any]) -> None:
    """Channels that always give one value, and a head that does, are removed with no loss: the bias gives it."""
    model, calibration = drawn(5, **shape), texts()
    for block, channels in zip(blocks(model), ([1, 7], [], [40]), strict=False):
        found = parts(block)
        found.gate.weight[channels] = found.up.weight[channels] = 0
        if found.gate.bias is not None:
            found.gate.bias[channels] = found.up.bias[channels] = 2
    found = parts(blocks(model)[1])
    found.v.weight[8:16] = 0  # the second key-value head
    scores = FLAP().scores(model, moments(model, calibration))
    price = costs(model)
    sparsity = (3 * price["mlp"][0] + price["attention"][0]) / sum(
        len(one) * price[kind][0] for kind in scores for one in scores[kind]
    )
    # of one ranking those go that score lowest: what never varies, once nothing that does scores as low
    for kind, planted in (("attention", {1: [1]}), ("mlp", {0: [1, 7], 2: [40]})):
        for index, one in enumerate(scores[kind]):
            assert all(one[dead] == one.min() for dead in planted.get(index, []))
            lifted = one + 100
            lifted[planted.get(index, [])] = -1
            scores[kind][index] = lifted
    smaller = _with(scores, sparsity).compress(model, calibration)
    widths = [parts(block).up.weight.shape[0] for block in blocks(smaller)]
    assert widths[:3] == [46, 48, 47]
    assert parts(blocks(smaller)[1]).k.weight.shape[0] == parts(blocks(model)[1]).k.weight.shape[0] - 8
    tokens = drawn_tokens(3, 14, 8)
    assert torch.allclose(smaller(tokens).logits, model(tokens).logits, atol=2e-5)


def _with(scores: Any, sparsity: float) -> FLAP:
    """A FLAP that scores so."""

    class Planted(FLAP):
        def scores(self, model: Any, read: Any) -> Any:
            return scores

    return Planted(sparsity=sparsity)


@torch.no_grad()
def test_outputs_keep_their_mean() -> None:
    """What o_proj and down_proj of the first block give is on average what it was."""
    model, calibration = drawn(1, num_hidden_layers=1), texts()
    smaller = FLAP(sparsity=0.4).compress(model, calibration)
    assert isinstance(blocks(smaller)[0].mlp, Narrow)
    given: list[torch.Tensor] = []
    for one in (model, smaller):
        one.model.layers[0].self_attn.register_forward_hook(lambda m, args, output: given.append(output[0]))
        one(calibration.tokens)
    before, after = (states.mean((0, 1)) for states in given)
    assert torch.allclose(before, after, atol=1e-5)
    assert not torch.equal(given[0], given[1])


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.6])
@torch.no_grad()
def test_the_share_is_removed_and_the_model_is_loaded_again(sparsity: float, tmp_path: Path) -> None:
    model, calibration = drawn(2, **GROUPED), texts()
    smaller = FLAP(sparsity=sparsity).compress(model, calibration)
    inside = sum(weight_bytes(block) for block in blocks(model))
    removed = (weight_bytes(model) - weight_bytes(smaller)) / inside
    assert removed == pytest.approx(sparsity, abs=0.06)  # a head is a twelfth, and biases come
    tokens = drawn_tokens(2, 12, 5)
    logits = smaller(tokens).logits
    smaller.save_pretrained(tmp_path)
    back = load_folder(tmp_path)
    assert torch.equal(back(tokens).logits, logits)
    assert weight_bytes(back) == weight_bytes(smaller)
    with pith.applied(back, "snapkv(budget=0.5)"):
        assert back.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (2, 15)


@torch.no_grad()
def test_a_layer_that_loses_every_head_keeps_their_mean() -> None:
    model, calibration = drawn(3, **GROUPED), texts()
    read = moments(model, calibration)
    scores = FLAP().scores(model, read)
    scores["attention"][0] -= 100
    price = costs(model)
    everything = sum(len(one) * price[kind][0] for kind in scores for one in scores[kind])
    smaller = _with(scores, 2 * price["attention"][0] / everything).compress(model, calibration)
    first = blocks(smaller)[0].self_attn
    assert isinstance(first, Dropped)
    expected = parts(blocks(model)[0]).o.weight @ read["attention", 0].mean.float()
    assert torch.allclose(first.bias, expected, atol=1e-5)
    tokens = drawn_tokens(2, 12, 5)
    states = model.model.embed_tokens(tokens) + expected
    first_mlp = states + model.model.layers[0].mlp(model.model.layers[0].post_attention_layernorm(states))
    seen: list[torch.Tensor] = []
    smaller.model.layers[0].register_forward_hook(lambda m, args, output: seen.append(output))
    smaller(tokens)
    assert torch.allclose(seen[0], first_mlp, atol=1e-5)


@torch.no_grad()
def test_equal_shares_leave_a_plain_model_where_the_configuration_has_biases(tmp_path: Path) -> None:
    model, calibration = drawn(4, **GROUPED), texts()
    smaller = FLAP(sparsity=0.5, adaptive=False).compress(model, calibration)
    assert type(smaller) is type(model)
    config = smaller.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 1, 24)
    assert (config.attention_bias, config.mlp_bias, config.head_dim) == (True, True, 8)
    assert parts(blocks(smaller)[0]).o.bias.any()
    assert not parts(blocks(smaller)[0]).q.bias.any()
    tokens = drawn_tokens(2, 12, 5)
    smaller.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path)(tokens).logits, smaller(tokens).logits)


def test_zero_changes_nothing_and_packing_may_follow() -> None:
    model, calibration = drawn(0, **GROUPED), texts()
    same = FLAP(sparsity=0.0).compress(model, calibration)
    assert type(same) is type(model)
    assert weight_bytes(same) == weight_bytes(model)
    packed = pith.compress(model, "flap(sparsity=0.3) + rtn(bits=8)", calibration)
    assert weight_bytes(packed) < 0.6 * weight_bytes(model)


@pytest.mark.parametrize("name", ["phi3", "gpt_neox", "olmoe", "qwen3_next"])
def test_other_blocks_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="allowed are blocks of the Llama kind"):
        FLAP().compress(tiny(name), texts())


@pytest.mark.parametrize("name", ["qwen3", "mistral_sliding", "gemma3"])
@torch.no_grad()
def test_blocks_of_the_llama_kind(name: str, tmp_path: Path) -> None:
    smaller = FLAP(sparsity=0.3).compress(tiny(name), texts())
    tokens = drawn_tokens(2, 12, 5)
    logits = smaller(tokens).logits
    smaller.save_pretrained(tmp_path)
    assert torch.equal(load_folder(tmp_path)(tokens).logits, logits)


class _Halt(Exception):  # noqa: N818
    pass


def test_a_stopped_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise _Halt

    model = drawn(1, **GROUPED)
    whole = FLAP(sparsity=0.3).compress(model, texts(300))
    with pytest.raises(_Halt):
        FLAP(sparsity=0.3).compress(model, texts(300, folder=tmp_path, progress=stop))
    told: list[int] = []
    again = texts(300, folder=tmp_path, progress=lambda what, done, total: told.append(done))
    resumed = FLAP(sparsity=0.3).compress(model, again)
    assert told == [2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)
