"""One measurement says truly what a recipe does."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
import transformers as hf

from pith.core import InputError, PithWarning, Recipe
from pith.core.notes import noted
from pith.measure import Costs, from_json, measure, to_json
from pith.measure.machine import copy_bandwidth
from pith.models import Loaded, Subject, load
from pith.models.smaller import smaller
from pith.quantization.rtn import RTN
from pith.tasks import Needle, Perplexity
from pith.weights.size import weight_bytes

builtin = cache(lambda: load("builtin"))
TASKS = (Needle(length=128, count=2), Perplexity(length=24, scored=3, count=2))


def test_a_recipe() -> None:
    told: list[tuple[str, int, int]] = []
    recipe = Recipe.parse("snapkv(budget=0.25, window=8)")
    found = measure(builtin(), recipe, TASKS, length=128, runs=2, seed=5, progress=lambda *done: told.append(done))
    assert (found.model, found.recipe, found.notes) == ("builtin", str(recipe), ())
    assert found.bytes.tokens == 128
    assert found.bytes.claimed == 0.25
    assert found.bytes.measured == pytest.approx(0.25, rel=0.05)
    assert found.bytes.decoded > found.bytes.prefill
    config = builtin().model.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert (found.bytes.dense_prefill, found.bytes.dense_decoded) == (128 * token, 160 * token)
    assert 2 <= found.speed.runs <= 8  # noise asks for more pairs
    assert found.speed.decode > 0
    bandwidth = found.costs.bandwidth
    assert bandwidth is not None
    # every weight, for the table is the head too, and what the cache held after the prompt
    assert bandwidth.read == found.costs.memory.weights + found.bytes.prefill
    assert bandwidth.achieved == pytest.approx(bandwidth.read / found.speed.decode)
    assert bandwidth.copy == copy_bandwidth("cpu")
    assert list(found.quality) == [str(task) for task in TASKS]
    subject = Subject(builtin().model, builtin().tokenizer, recipe)
    assert found.quality[str(TASKS[1])].scores == pytest.approx(TASKS[1].run(subject).scores, abs=1e-5)
    assert (found.environment["seed"], found.environment["length"], found.environment["runs"]) == (5, 128, 2)
    assert [what for what, done, total in told if done == total] == ["speed", *map(str, TASKS)]
    assert from_json(Costs, to_json(found.costs)) == found.costs


def test_the_dense_model_is_plain_transformers() -> None:
    found = measure(builtin(), Recipe(), length=64, runs=1)
    assert (found.recipe, found.bytes.claimed, found.bytes.measured) == ("dense", 1.0, 1.0)
    assert found.bytes.decoded == found.bytes.dense_decoded
    assert found.speed.spread == 0.0
    assert found.quality == {}


def test_layers_that_are_left_alone_are_noted_once() -> None:
    torch.manual_seed(0)
    config = hf.Gemma3TextConfig(
        vocab_size=4096,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    loaded = Loaded("small", hf.Gemma3ForCausalLM(config).eval(), builtin().tokenizer)
    found = measure(loaded, Recipe.parse("snapkv(budget=0.5, window=4)"), TASKS[1:], length=64, runs=1)
    assert len(found.notes) == 1
    assert "1 of 2 layers" in found.notes[0]
    assert measure(loaded, Recipe(), length=64, runs=1).notes == ()


def test_warnings_of_others_go_on() -> None:
    def warned() -> list[str]:
        with noted() as notes:
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            for text in ("left alone", "left alone", "slow"):
                warnings.warn(text, PithWarning, stacklevel=1)
        return notes

    with pytest.warns(DeprecationWarning, match="old"):
        notes = warned()
    assert notes == ["left alone", "slow"]


@pytest.mark.parametrize(("name", "least"), [("length", 1), ("batch_size", 1), ("runs", 0)])
def test_numbers_that_make_no_sense(name: str, least: int) -> None:
    with pytest.raises(InputError, match=f"{name}={least - 1} makes no sense; allowed is {least} or more"):
        measure(builtin(), Recipe(), TASKS[1:], **{"length": 64, name: least - 1})


def test_without_runs_the_bytes_are_those_of_timed_ones_and_nothing_is_timed() -> None:
    recipe = Recipe.parse("snapkv(budget=0.25)")
    timed, untimed = (measure(builtin(), recipe, length=128, runs=runs).costs for runs in (1, 0))
    assert (untimed.bytes, untimed.memory) == (timed.bytes, timed.memory)
    assert untimed.speed is None
    assert untimed.bandwidth is None
    again = from_json(Costs, to_json(untimed))
    assert again.speed is None


def test_a_prompt_past_the_models_positions() -> None:
    with pytest.raises(InputError, match=r"a timed prompt of 4090 tokens and 32 decoded ones takes 4122 tokens"):
        measure(builtin(), Recipe(), length=4090)


def test_a_recipe_that_changes_weights() -> None:
    """Bytes are those of its own model, the dense one is the one that came in, and what was said is noted each time."""
    recipe = Recipe.parse("rtn(bits=4) + snapkv(budget=0.25, window=8)")
    told: list[str] = []
    found = measure(builtin(), recipe, TASKS[1:], length=128, runs=1, progress=lambda what, *_: told.append(what))
    mine = smaller(builtin(), recipe)
    memory, bandwidth = found.costs.memory, found.costs.bandwidth
    assert memory.weights == weight_bytes(mine) < 0.5 * weight_bytes(builtin().model)
    assert memory.dense_weights == weight_bytes(builtin().model)
    assert memory.share == memory.weights / memory.dense_weights
    assert found.bytes.measured == pytest.approx(0.25, rel=0.05)
    assert found.bytes.claimed == 0.25
    assert bandwidth is not None
    assert bandwidth.read == memory.weights + found.bytes.prefill
    scores = TASKS[1].run(Subject(mine, builtin().tokenizer, recipe.rest)).scores
    assert found.quality[str(TASKS[1])].scores == pytest.approx(scores, abs=1e-5)
    assert told[0] == "rtn"
    assert measure(builtin(), Recipe.parse("snapkv"), length=64, runs=1).costs.memory.share == 1.0


def test_the_cache_of_a_model_with_fewer_blocks_is_what_it_claims() -> None:
    found = measure(builtin(), Recipe.parse("inheritune(keep=2) + snapkv(budget=0.5, window=8)"), length=128, runs=1)
    assert found.bytes.claimed == 0.25
    assert found.bytes.measured == pytest.approx(0.25, rel=0.05)


def test_notes_of_changing_weights_stand_beside_every_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RTN, "change", lambda self, model, calibration: self.warn("nothing was done"))
    found = measure(load("builtin"), Recipe.parse("rtn(bits=8)"), TASKS[1:], length=64, runs=1)
    assert found.costs.notes == found.answers[str(TASKS[1])].notes == ("rtn: nothing was done",)


def test_results_of_before_weights_were_changed_can_be_read() -> None:
    text = to_json(measure(builtin(), Recipe(), length=64, runs=1).costs).replace(', "dense_weights": null', "")
    assert "dense_weights" not in text
    assert from_json(Costs, text).memory.share == 1.0
