"""The laws that every registered method keeps which changes weights."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import pith
from contracts.compressors import COMPRESSORS, gpt2, llama, small, texts
from contracts.tiny import MAKERS, tiny, tokens
from pith.core import ModelError, PithWarning
from pith.weights.folder import is_pith, load_folder
from pith.weights.size import weight_bytes

every = pytest.mark.parametrize("name", COMPRESSORS)
OTHERS = ["qwen3", "gemma3", "phi3", "gpt_neox", "gpt_oss", "olmoe", "gpt2"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


@cache
def smaller(name: str, tied: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        return pith.compress(llama(tied, dtype), small(name), texts())


def copied(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def loaded(folder: Path) -> Any:
    return (load_folder(folder) if is_pith(folder) else AutoModelForCausalLM.from_pretrained(folder)).eval()


def logits(model: Any, prompt: torch.Tensor | None = None) -> torch.Tensor:
    given: torch.Tensor = model(tokens(2, 19) if prompt is None else prompt).logits
    return given


@every
@pytest.mark.parametrize("tied", [False, True])
def test_the_model_that_came_in_stays_as_it_is(name: str, tied: bool) -> None:
    model = llama(tied)
    tensors, said, given = copied(model), model.config.to_dict(), logits(model)
    learns = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    kept = {key: type(module) for key, module in model.named_modules()}
    pith.compress(model, small(name), texts())
    assert {key: type(module) for key, module in model.named_modules()} == kept
    assert {key: parameter.requires_grad for key, parameter in model.named_parameters()} == learns
    assert model.config.to_dict() == said
    now = model.state_dict()
    assert now.keys() == tensors.keys()
    assert all(torch.equal(now[key], tensor) for key, tensor in tensors.items())
    assert torch.equal(logits(model), given)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


@every
@pytest.mark.parametrize("tied", [False, True])
def test_something_changed_and_the_model_says_by_what(name: str, tied: bool) -> None:
    model, dense = smaller(name, tied), llama(tied)
    assert torch.isfinite(logits(model)).all()
    assert not torch.equal(logits(model), logits(dense))
    assert not model.training
    assert model.config.pith_recipe == [str(next(iter(pith.Recipe.parse(small(name)))))]


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_it_is_saved_and_loaded_bit_for_bit(name: str, dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    model = smaller(name, tied, dtype)
    assert model.dtype == dtype
    given = logits(model)
    model.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    assert again.dtype == dtype
    assert torch.equal(logits(again), given)
    assert again.config.to_dict()["pith_recipe"] == model.config.pith_recipe
    if is_pith(tmp_path):
        with pytest.raises(ValueError, match="pith"):
            AutoModelForCausalLM.from_pretrained(tmp_path)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_bytes_are_those_on_disk_before_and_after_a_forward(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = smaller(name, True, dtype)
    model.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    before = weight_bytes(again)
    assert weight_bytes(model) == pytest.approx(before, rel=0.01)
    logits(again)
    logits(again, tokens(1, 1))
    assert weight_bytes(again) == before
    persistent = set(again.state_dict())
    unsaved = sum(buffer.nbytes for key, buffer in again.named_buffers() if key not in persistent)
    on_disk = sum(tensor_bytes(file) for file in tmp_path.glob("*.safetensors"))
    assert before - unsaved == pytest.approx(on_disk, rel=0.01)


@every
@pytest.mark.parametrize("tied", [False, True])
def test_bytes_that_are_predicted_are_those_that_come_out(name: str, tied: bool) -> None:
    model, before = llama(tied), copied(llama(tied))
    predicted = next(iter(pith.Recipe.parse(small(name)))).predicted_bytes(model)  # type: ignore[attr-defined]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    if predicted is None:
        pytest.skip(f"{name} does not know before")
    assert predicted == pytest.approx(weight_bytes(smaller(name, tied)), rel=0.01)


@every
def test_predicting_bytes_leaves_experts_as_they_are(name: str) -> None:
    """A method that changes experts' layers looks for them in a copy."""
    model = tiny("olmoe")
    kinds = {key: type(module) for key, module in model.named_modules()}
    method = next(iter(pith.Recipe.parse(small(name))))
    try:
        predicted = method.predicted_bytes(model)  # type: ignore[attr-defined]
        made = pith.compress(model, small(name), texts(rows=2, length=16))
    except ModelError as error:
        pytest.skip(str(error))
    finally:
        assert {key: type(module) for key, module in model.named_modules()} == kinds
    assert predicted is None or predicted == pytest.approx(weight_bytes(made), rel=0.01)


def tensor_bytes(file: Path) -> int:
    """The bytes of a safetensors file after its header."""
    with file.open("rb") as opened:
        (header,) = struct.unpack("<Q", opened.read(8))
        said = json.loads(opened.read(header))
    assert "__metadata__" in said
    return file.stat().st_size - 8 - header


@every
def test_it_generates_alone_and_with_a_method_of_the_cache(name: str) -> None:
    model, prompt = smaller(name), tokens(2, 40)
    mask = torch.ones_like(prompt)
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    written = model.generate(prompt, **options)
    assert written.shape == (2, 46)
    with pith.applied(model, "snapkv(budget=1.0)"):
        assert torch.equal(model.generate(prompt, **options), written)
    with pith.applied(model, "snapkv(budget=0.5, window=4)"):
        assert model.generate(prompt, **options).shape == (2, 46)


@every
def test_decoding_gives_what_reading_at_once_gives(name: str) -> None:
    model, text = smaller(name), tokens(2, 24)
    whole = logits(model, text)
    read = model(text[:, :17], use_cache=True)
    steps = [read.logits]
    for token in text[:, 17:].split(1, dim=1):
        steps.append(model(token, past_key_values=read.past_key_values).logits)
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-4)


@every
def test_a_padded_row_gives_what_it_gives_alone(name: str) -> None:
    model, rows = smaller(name), [tokens(1, length, seed=length) for length in (23, 11)]
    pad = 23 - 11
    batch = torch.cat([rows[0], torch.nn.functional.pad(rows[1], (pad, 0))])
    mask = torch.ones_like(batch)
    mask[1, :pad] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = model(batch, attention_mask=mask, position_ids=positions).logits
    assert torch.allclose(together[0], logits(model, rows[0])[0], atol=1e-4)
    assert torch.allclose(together[1, pad:], logits(model, rows[1])[0], atol=1e-4)


@every
def test_it_is_deterministic(name: str) -> None:
    torch.manual_seed(123)
    again = pith.compress(llama(), small(name), texts())
    ours = smaller(name).state_dict()
    assert again.state_dict().keys() == ours.keys()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in again.state_dict().items())


class Stopped(Exception):  # noqa: N818  (it is no error)
    """As if the user had."""


@every
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_what_was_stopped_goes_on(name: str, share: float, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pith.compress(llama(), small(name), texts(progress=lambda _, done, total: told.append((done, total))))
    if not told and not pith.methods()[name].calibrated:  # type: ignore[attr-defined]
        pytest.skip(f"{name} reads nothing and is done at once")
    assert told, "it says how it goes on"
    assert all(0 <= done <= total for done, total in told)
    left = int(len(told) * share)

    def stop(what: str, done: int, total: int) -> None:
        nonlocal left
        assert what == name
        left -= 1
        if left < 0:
            raise Stopped

    with pytest.raises(Stopped):
        pith.compress(llama(), small(name), texts(progress=stop, folder=tmp_path))
    again = pith.compress(llama(), small(name), texts(folder=tmp_path))
    ours = smaller(name).state_dict()
    assert again.state_dict().keys() == ours.keys()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in again.state_dict().items())
    assert torch.equal(logits(again), logits(smaller(name)))


@every
@pytest.mark.parametrize(("rows", "length"), [(3, 37), (1, 2)])
def test_any_calibration_will_do(name: str, rows: int, length: int) -> None:
    model = pith.compress(llama(), small(name), texts(rows, length))
    assert torch.isfinite(logits(model)).all()


@every
def test_a_method_that_reads_texts_says_so_without(name: str) -> None:
    method = next(iter(pith.Recipe.parse(small(name))))
    if method.calibrated:  # type: ignore[attr-defined]
        with pytest.raises(pith.PithError, match=f"{name} reads texts"):
            pith.compress(llama(), small(name))
    else:
        assert torch.equal(logits(pith.compress(llama(), small(name))), logits(smaller(name)))


@every
@pytest.mark.parametrize("other", OTHERS)
def test_every_architecture_is_served_or_refused_in_one_line(name: str, other: str, tmp_path: Path) -> None:
    model = gpt2() if other == "gpt2" else tiny(other)
    try:
        made = pith.compress(model, small(name), texts(rows=2, length=16))
    except ModelError as error:
        reason = str(error)
        assert "\n" not in reason
        pytest.skip(reason)
    given = logits(made)
    assert torch.isfinite(given).all()
    made.save_pretrained(tmp_path)
    assert torch.equal(logits(loaded(tmp_path)), given)
    written = made.generate(tokens(1, 9), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert written.shape == (1, 12)


def test_there_are_methods_and_architectures_to_run_over() -> None:
    assert "rtn" in COMPRESSORS
    assert set(OTHERS) - {"gpt2"} <= set(MAKERS)
