"""A model with other weights is made once, kept whole or not at all, and given out with what was said of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import pith.models.smaller as room
from pith.core import InputError, ModelError, PithWarning, Recipe, StoreError
from pith.core.folders import MANIFEST
from pith.models import Loaded, load
from pith.models.smaller import folder_of, reads_texts, smaller, subject
from pith.quantization.rtn import RTN
from pith.weights import Calibration, Source
from pith.weights.size import weight_bytes

FOUR = Recipe.parse("rtn(bits=4)")


@pytest.fixture
def loaded() -> Loaded:
    return load("builtin")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each time that rtn really rounds; it warns each time."""
    times: list[int] = []
    change = RTN.change

    def counted(self: RTN, model: Any, calibration: Calibration) -> None:
        times.append(1)
        self.warn("is watched")
        change(self, model, calibration)

    monkeypatch.setattr(RTN, "change", counted)
    yield times
    room._MADE.clear()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(24)[None]).logits
    return found


def test_a_subject_has_the_models_weights_and_what_acts_later(loaded: Loaded, made: list[int]) -> None:
    assert subject(loaded, Recipe()).model is loaded.model
    later = Recipe.parse("snapkv(budget=0.25)")
    assert (subject(loaded, later).model, subject(loaded, later).recipe) == (loaded.model, later)
    with pytest.warns(PithWarning, match="is watched"):
        both = subject(loaded, Recipe.parse("snapkv(budget=0.25) + rtn(bits=4)"))
    alone = subject(loaded, FOUR)
    assert (both.model, both.recipe, alone.recipe) == (alone.model, later, None)
    assert weight_bytes(alone.model) < 0.5 * weight_bytes(loaded.model)
    assert torch.equal(logits(loaded.model), logits(load("builtin").model))


def test_the_last_few_stay_in_memory_and_warn_each_time(loaded: Loaded, made: list[int]) -> None:
    first = [smaller(loaded, FOUR)]
    for bits in (4, 3, 4, 2, 4):
        with pytest.warns(PithWarning, match="rtn: is watched"):
            first.append(smaller(loaded, Recipe.parse(f"rtn(bits={bits})")))
    assert len(made) == 3
    assert first[0] is first[1] is first[3] is first[5]
    smaller(loaded, Recipe.parse("rtn(bits=3)"))
    assert len(made) == 4, "the one that was asked for longest ago had gone"


def test_what_is_in_memory_does_not_keep_the_model_that_came_in(made: list[int]) -> None:
    own = load("builtin")
    smaller(own, FOUR)
    gone = weakref.ref(own.model)
    assert len(room._MADE) == 1
    del own
    gc.collect()
    assert gone() is None
    assert not len(room._MADE)


def test_another_process_loads_what_is_kept(loaded: Loaded, made: list[int], tmp_path: Path) -> None:
    there = replace(loaded, kept=tmp_path)
    with pytest.warns(PithWarning, match="is watched"):
        mine = logits(smaller(there, FOUR))
    room._MADE.clear()
    with pytest.warns(PithWarning, match="is watched"):
        again = smaller(there, FOUR)
    assert len(made) == 1
    assert torch.equal(logits(again), mine)
    folder = folder_of(there, FOUR)
    assert folder is not None
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
    assert torch.equal(logits(load(str(folder)).model), mine), "it is a whole model folder"


def test_a_folder_that_somebody_touched_is_made_again(loaded: Loaded, made: list[int], tmp_path: Path) -> None:
    there = replace(loaded, kept=tmp_path)
    smaller(there, FOUR)
    folder = folder_of(there, FOUR)
    assert folder is not None
    (folder / "config.json").write_text("{")
    room._MADE.clear()
    smaller(there, FOUR)
    assert len(made) == 2
    room._MADE.clear()
    smaller(there, FOUR)
    assert len(made) == 2


@pytest.mark.parametrize("name", ["pith.safetensors", "notes.json", "generation_config.json", "tokenizer.json"])
def test_changed_bytes_of_kept_weights_are_never_used(
    loaded: Loaded, made: list[int], tmp_path: Path, name: str
) -> None:
    there = replace(loaded, kept=tmp_path)
    right, folder = logits(smaller(there, FOUR)), folder_of(there, FOUR)
    assert folder is not None
    for damage in (lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], lambda whole: b"5", lambda _: b""):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        room._MADE.clear()
        with pytest.warns(PithWarning, match=f"kept weights are made again: {name} of"):
            assert torch.equal(logits(smaller(there, FOUR)), right)
    assert len(made) == 4
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_a_folder_without_hashes_is_moved_away_and_made_again(loaded: Loaded, made: list[int], tmp_path: Path) -> None:
    there = replace(loaded, kept=tmp_path)
    smaller(there, FOUR)
    folder = folder_of(there, FOUR)
    assert folder is not None
    (folder / MANIFEST).unlink()
    (folder / "mine").write_text("mine")
    room._MADE.clear()
    with pytest.warns(PithWarning, match="kept weights are made again: pith-manifest.json .* is missing"):
        smaller(there, FOUR)
    assert len(made) == 2
    assert (folder / MANIFEST).is_file()
    [mine] = tmp_path.rglob("mine")
    assert mine.read_text() == "mine"


def test_a_full_disk_is_one_line_and_leaves_nothing(
    loaded: Loaded, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("pith.weights.folder.save_file", full)
    with pytest.raises(StoreError, match=r"cannot be written: No space left on device$"):
        smaller(replace(loaded, kept=tmp_path), FOUR)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_was_stopped_leaves_nothing_that_is_taken_for_whole(
    loaded: Loaded, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(loaded, kept=tmp_path)

    def stopped(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smaller(there, FOUR, stopped)
    folder = folder_of(there, FOUR)
    assert folder is not None
    assert not folder.exists()
    told: list[tuple[str, int, int]] = []
    smaller(there, FOUR, lambda *done: told.append(done))
    assert folder.is_dir()
    assert told[-1] == ("rtn", 28, 28)


def test_the_folder_depends_on_all_that_the_model_does(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, gptq = replace(loaded, kept=tmp_path), Recipe.parse("gptq(bits=4)")
    assert folder_of(loaded, gptq) is None
    text = tmp_path / "text.txt"
    text.write_text("one")
    on_file = replace(there, source=Source(str(text)))
    shorter = replace(there, source=Source(length=256))
    names = [folder_of(there, gptq), folder_of(there, FOUR), folder_of(on_file, gptq), folder_of(shorter, gptq)]
    text.write_text("another")
    names.append(folder_of(on_file, gptq))
    assert len(set(names)) == 5
    assert folder_of(shorter, FOUR) == folder_of(there, FOUR), "it reads no texts"
    assert folder_of(there, Recipe.parse("snapkv + rtn(bits=4)")) == folder_of(there, FOUR)
    monkeypatch.setattr(room, "code_of", lambda *_: "edited")
    assert folder_of(there, FOUR) not in names


def test_what_cannot_be_is_one_line(loaded: Loaded, tmp_path: Path) -> None:
    assert (reads_texts(FOUR), reads_texts(Recipe.parse("gptq + snapkv"))) == (False, True)
    with pytest.raises(InputError, match=r"a calibration sequence of 5000 tokens takes 5000 tokens"):
        smaller(replace(loaded, source=Source(length=5000)), Recipe.parse("gptq"))
    with pytest.raises(InputError, match="cannot be read"):
        smaller(replace(loaded, source=Source("/no/such/text")), Recipe.parse("gptq"))
    with pytest.raises(ModelError, match="no plain linear layer"):
        smaller(loaded, Recipe.parse("rtn(skip='*')"))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        smaller(replace(loaded, kept=file), FOUR)
