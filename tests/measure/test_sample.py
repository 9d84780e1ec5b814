"""A few layers stand for all of a model's."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import COMMON, MAKERS, hybrid, tiny, tokens
from pith.core import PithWarning, Recipe
from pith.measure import cache_bytes
from pith.measure.sample import Sample, _weights
from pith.measure.seconds import run_once
from pith.models import Subject


def deep(layers: int, **more: object) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    shape = {**COMMON, "num_hidden_layers": layers, "hidden_size": 32, "num_attention_heads": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**shape, num_key_value_heads=2, head_dim=16, **more)).eval()


def test_the_first_the_third_the_middle_and_the_last_stand_for_those_between() -> None:
    weights = _weights([("", 5)] * 12, whole=False)
    assert list(weights) == [0, 2, 6, 11]
    assert sum(weights.values()) == pytest.approx(12)
    # a cost that is linear from chosen layer to chosen layer is summed exactly
    cost = [0, 5, 10, 12, 14, 16, 18, 17, 16, 15, 14, 13]
    assert sum(weight * cost[index] for index, weight in weights.items()) == pytest.approx(sum(cost))


def test_kinds_of_layers_stand_for_themselves() -> None:
    kinds = [("full" if index % 6 == 5 else "sliding", 5) for index in range(24)]
    weights = _weights(kinds, whole=False)
    assert [i for i in weights if kinds[i][0] == "full"] == [5, 11, 17, 23], "four are few enough"
    assert sum(w for i, w in weights.items() if kinds[i][0] == "sliding") == pytest.approx(20)
    assert len(weights) == 8


def test_few_layers_are_taken_whole() -> None:
    assert Sample(deep(4)).whole
    assert Sample(deep(12), whole=True).whole
    assert Sample(deep(4)).stands_for == dict.fromkeys(range(4), 1.0)


@pytest.mark.parametrize("recipe", ["dense", "snapkv(budget=0.25, window=4)", "kivi(group_size=8, residual_length=8)"])
def test_bytes_are_those_of_the_whole_model(recipe: str) -> None:
    model, prompt = deep(12), tokens(1, 64)
    subject = Subject(model, None, None if recipe == "dense" else Recipe.parse(recipe))
    sample, whole = Sample(model).run(subject, prompt, 4), run_once(subject, prompt, 4)
    assert sample.prefill_bytes == whole.prefill_bytes
    assert sample.decoded_bytes == whole.decoded_bytes
    assert sample.prefill > 0
    assert sample.decode > 0


def test_methods_see_the_depth_that_the_model_has() -> None:
    # 12 layers get budgets from much to little; chosen layers lie on that line, which the sum follows
    model, prompt = deep(12), tokens(1, 96)
    subject = Subject(model, None, Recipe.parse("pyramid_kv(snapkv(budget=0.5, window=4))"))
    sample, whole = Sample(model).run(subject, prompt, 1), run_once(subject, prompt, 1)
    assert sample.prefill_bytes == pytest.approx(whole.prefill_bytes, rel=0.02)


def test_only_chosen_layers_compute_and_all_is_as_before_on_exit() -> None:
    model, prompt = deep(12), tokens(1, 16)
    with torch.no_grad():
        before = model(prompt).logits
    entered: list[int] = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: entered.append(index))
    Sample(model).run(Subject(model, None), prompt, 1)
    assert entered == [0, 2, 6, 11] * 2
    with torch.no_grad():
        assert torch.equal(model(prompt).logits, before)
    assert all("forward" not in vars(layer) for layer in model.model.layers)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.model.layers)


def test_seconds_are_scaled_from_the_chosen_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that every layer moves by its index + 1, and the head by 100."""
    clock = [0.0]
    model = deep(12)
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: clock.__setitem__(0, clock[0] + index + 1))
    model.lm_head.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 100))
    for module in ("sample", "seconds"):
        monkeypatch.setattr(f"pith.measure.{module}.now", lambda device: clock[0])
    run = Sample(model).run(Subject(model, None), tokens(1, 16), 3)
    assert run.prefill == pytest.approx(100 + sum(range(1, 13)))
    assert run.decode == pytest.approx(100 + sum(range(1, 13)))


@pytest.mark.parametrize("name", MAKERS)
def test_every_architecture(name: str) -> None:
    model = tiny(name)
    run = Sample(model).run(Subject(model, None), tokens(2, 24), 2)
    with torch.no_grad():
        assert run.prefill_bytes == cache_bytes(model(tokens(2, 24), use_cache=True).past_key_values)


def test_sliding_and_full_layers_of_a_deep_model() -> None:
    torch.manual_seed(0)
    types = ["full_attention" if index % 6 == 5 else "sliding_attention" for index in range(12)]
    shape = {**COMMON, "num_hidden_layers": 12, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8}
    model = hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**shape, layer_types=types)).eval()
    sample, subject = Sample(model), Subject(model, None)
    assert not sample.whole
    run, whole = (how.run(subject, tokens(1, 48), 3) for how in (sample, Sample(model, whole=True)))
    # a window counts its tokens in eight bytes, also where its layer was left out
    assert run.prefill_bytes == pytest.approx(whole.prefill_bytes, abs=8 * 12)
    assert run.decoded_bytes == pytest.approx(whole.decoded_bytes, abs=8 * 12)


def test_a_hybrid_keeps_its_kinds_apart() -> None:
    torch.manual_seed(0)
    types = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(12)]
    model = hybrid(types).eval()
    subject = Subject(model, None, Recipe.parse("snapkv(budget=0.25, window=4)"))
    sample = Sample(model)
    assert [i for i in sample.stands_for if types[i] == "full_attention"] == [3, 7, 11]
    with pytest.warns(PithWarning, match="9 of 12 layers"):
        run, whole = (how.run(subject, tokens(1, 48), 2) for how in (sample, Sample(model, whole=True)))
    assert run.prefill_bytes == whole.prefill_bytes
