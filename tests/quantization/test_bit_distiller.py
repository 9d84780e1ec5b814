"""BitDistiller: its loss and its gamma written naively, what training does, and going on after a stop."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.core import Patterns, PithWarning
from pith.quantization.bit_distiller import BitDistiller, cakld, confidence, sampled, straight_through
from pith.quantization.rtn import RTN
from pith.weights import Calibration, fit_grid, stand_ins
from pith.weights.packed import PackedLinear

TEXTS = Calibration(tokens(8, 24))


def compressed(method: BitDistiller, name: str = "llama_gqa", texts: Calibration = TEXTS) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        return method.compress(tiny(name), texts)


def small(**values: Any) -> BitDistiller:
    return BitDistiller(**{"bits": 2, "group_size": 16, "steps": 4, "prompt": 4, **values})


def divergence(model: Any) -> float:
    """KL(dense || model) of the texts."""
    return cakld(model(TEXTS.tokens).logits, tiny("llama_gqa")(TEXTS.tokens).logits, 0.0).mean().item()


def test_the_loss_is_the_weighted_sum_of_both_divergences() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    for gamma in (0.0, 0.3, 1.0):
        for row in range(2):
            for token in range(3):
                s, t = student[row, token].softmax(-1), teacher[row, token].softmax(-1)
                reverse, forward = (s * (s / t).log()).sum(), (t * (t / s).log()).sum()
                expected = gamma * reverse + (1 - gamma) * forward
                assert torch.allclose(cakld(student, teacher, gamma)[row, token], expected, atol=1e-6)


@torch.no_grad()
def test_gamma_is_the_probability_of_the_texts() -> None:
    model, texts = tiny("llama_gqa"), TEXTS.tokens[:3]
    likely = model(texts).logits.softmax(-1)
    expected = sum(float(likely[r, i, texts[r, i + 1]]) for r in range(3) for i in range(23)) / (3 * 23)
    assert abs(confidence(model, texts, 2) - expected) < 1e-6


@torch.no_grad()
def test_samples_are_the_models_own() -> None:
    """They begin as the prompts do, and where it is cold are what greedy decoding gives."""
    model, prompt = tiny("llama_gqa"), TEXTS.tokens[:3, :5]
    cold = sampled(model, prompt, 16, 1e-5, torch.Generator().manual_seed(0))
    assert cold.shape == (3, 16)
    assert torch.equal(cold[:, :5], prompt)
    assert torch.equal(cold[:, 5:], model(cold).logits[:, 4:-1].argmax(-1))
    warm = [sampled(model, prompt, 16, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(warm[0], warm[1])
    assert not torch.equal(warm[0], warm[2])


def test_gradients_pass_the_rounding_and_reach_the_scale() -> None:
    """Inner weights get what came back; with the scale held, so do the outermost."""
    weight = torch.tensor([[-1.0, -0.4, 0.1, 0.7, 2.0]], requires_grad=True)
    values = straight_through(weight, fit_grid(weight, 2, 0))
    assert torch.equal(values, fit_grid(weight.detach(), 2, 0).nearest(weight.detach()))
    values.sum().backward()
    assert weight.grad is not None
    scale, steps = 1.0, weight.detach()  # 3 / 3, and zero = 1
    by_scale = ((steps / scale).round() - steps / scale).sum() / 3  # d values / d scale, scale = (max - min) / 3
    expected = torch.ones(1, 5)
    expected[0, 0] -= by_scale
    expected[0, -1] += by_scale
    assert torch.allclose(weight.grad, expected, atol=1e-6)


def test_cutting_alone_is_better_than_rounding_and_training_better_still() -> None:
    plain = divergence(RTN(bits=2, group_size=16).compress(tiny("llama_gqa")))
    cut = divergence(compressed(small(steps=0)))
    trained = divergence(compressed(small(steps=40, texts="calibration", learning_rate=3e-3)))
    assert trained < 0.7 * cut
    assert cut < plain


def test_codes_are_those_of_the_last_forward() -> None:
    """Without a step that moves anything: the dense weights, cut or not, on their grids."""
    still = compressed(small(steps=2, learning_rate=0.0))
    cut = compressed(small(steps=0))
    assert torch.equal(still(tokens(2, 9)).logits, cut(tokens(2, 9)).logits)
    assert all(isinstance(layer, PackedLinear) for layer in stand_ins(still).values())
    moved = compressed(small(steps=2))
    assert not torch.equal(moved(tokens(2, 9)).logits, cut(tokens(2, 9)).logits)


@pytest.mark.parametrize("texts", ["sampled", "calibration"])
def test_the_same_every_time_and_other_with_another_seed(texts: str) -> None:
    logits = [compressed(small(texts=texts, seed=seed, batch=3))(tokens(2, 9)).logits for seed in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize(("what", "after"), [(2, 1), (20, 13)])
def test_it_goes_on_where_it_was_stopped(tmp_path: Any, what: int, after: int) -> None:
    """While cutting (2 blocks) and while training (20 steps)."""

    class Stop(Exception):  # noqa: N818
        pass

    seen: list[int] = []

    def stop(name: str, done: int, total: int) -> None:
        seen.append(done)
        if total == what and done == after:
            raise Stop

    method = small(steps=20)
    with pytest.raises(Stop):
        compressed(method, texts=Calibration(TEXTS.tokens, stop, tmp_path))
    seen.clear()
    resumed = compressed(method, texts=Calibration(TEXTS.tokens, lambda *told: seen.append(told[1]), tmp_path))
    assert torch.equal(resumed(tokens(2, 9)).logits, compressed(method)(tokens(2, 9)).logits)
    assert (11 not in seen) is (what == 20)  # of 20 steps 12 were kept


def test_the_original_stays_and_embeddings_stay_tied() -> None:
    model = tiny("gemma3")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    smaller = compressed(small(), "gemma3")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert smaller.lm_head.weight is smaller.model.embed_tokens.weight
    assert not torch.equal(smaller.lm_head.weight, model.lm_head.weight)
    norm = smaller.model.layers[0].input_layernorm.weight
    assert norm.requires_grad
    assert not torch.equal(norm, model.model.layers[0].input_layernorm.weight)


@pytest.mark.parametrize("name", ["llama_mha", "qwen3", "phi3", "gpt_neox", "olmoe", "mistral_sliding"])
def test_other_architectures(name: str) -> None:
    smaller = compressed(small(steps=2, bits=Patterns({"*.down_proj": 8, "*": 3})), name)
    assert smaller(tokens(2, 9)).logits.isfinite().all()
    assert not any(hasattr(module, "parametrizations") for module in smaller.modules())


def test_in_bfloat16_the_codes_are_chosen_for_stored_scales() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        smaller = small().compress(tiny("llama_gqa", torch.bfloat16), TEXTS)
    assert smaller(tokens(2, 9)).logits.dtype == torch.bfloat16
    assert smaller(tokens(2, 9)).logits.isfinite().all()
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.bfloat16}


def test_an_output_layer_tied_to_the_embedding_is_rounded_at_the_end() -> None:
    smaller = compressed(small(steps=2, skip="", bits=3), "gemma3")
    embedding, output = smaller.model.embed_tokens.weight, smaller.lm_head
    assert isinstance(output, PackedLinear)
    assert torch.allclose(output.dense(), fit_grid(embedding, 3, 16).nearest(embedding), atol=1e-5)
