from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import pith
from contracts.compressors import llama
from pith.core import InputError, PithWarning, Recipe, StoreError
from pith.models import builtin
from pith.weights import Calibration, Source, calibration, of_tokens


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return builtin()[1]


def test_sequences_stand_at_equal_distances_over_the_text(tokenizer: object, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(map(str, range(3000))))
    found = calibration(tokenizer, text, sequences=4, length=32)
    tokens = tokenizer(text.read_text(), add_special_tokens=False, verbose=False).input_ids  # type: ignore[operator]
    begin = tokenizer("").input_ids  # type: ignore[operator]
    assert found.tokens.shape == (4, 32)
    stride = len(tokens) // 4
    for index, row in enumerate(found.tokens.tolist()):
        assert row == [*begin, *tokens[index * stride : index * stride + 32 - len(begin)]]


def test_the_text_is_the_same_every_time(tokenizer: object) -> None:
    one, other = (calibration(tokenizer, sequences=64, length=512) for _ in range(2))
    assert one.tokens.shape == (64, 512)
    assert torch.equal(one.tokens, other.tokens)
    assert len({tuple(row) for row in one.tokens.tolist()}) == 64
    assert torch.equal(Source().calibration(tokenizer).tokens, one.tokens)


def test_a_model_reads_the_text_that_fits_it(tokenizer: object) -> None:
    few = {"sequences": 4, "length": 64}
    own = calibration(tokenizer, **few).tokens
    assert torch.equal(own, calibration(tokenizer, "python", **few).tokens)
    prose = calibration(tokenizer, "prose", **few).tokens
    assert not torch.equal(own, prose)
    other = copy.deepcopy(tokenizer)
    other.init_kwargs.pop("pith_language")  # type: ignore[attr-defined]
    assert torch.equal(calibration(other, **few).tokens, prose)
    assert Source().identity(other) == Source("prose").identity(tokenizer) != Source().identity(tokenizer)


def test_batches_hold_2048_tokens_or_one_sequence() -> None:
    assert [len(batch) for batch in Calibration(torch.zeros(9, 512, dtype=torch.int64)).batches] == [4, 4, 1]
    assert [len(batch) for batch in Calibration(torch.zeros(2, 4096, dtype=torch.int64)).batches] == [1, 1]


def test_what_cannot_be_is_one_line(tokenizer: object, tmp_path: Path) -> None:
    short, binary = tmp_path / "short.txt", tmp_path / "binary"
    short.write_text("import os " * 20)
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for given, words in [
        ({"text": tmp_path / "none.txt"}, "cannot be read: there is no such file"),
        ({"text": binary}, "it is not UTF-8"),
        ({"text": short}, "allowed are at most 0 sequences of that length"),
        ({"sequences": 0}, "sequences=0 makes no sense; allowed is 1 or more"),
        ({"length": 1}, "length=1 makes no sense; allowed is 2 or more"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            calibration(tokenizer, **given)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    for rows in ([], [[]], [[1, 2], [3]]):
        with pytest.raises(InputError, match="allowed are several of one length"):
            of_tokens(rows)


def test_what_one_method_kept_no_other_finds(tmp_path: Path) -> None:
    texts = of_tokens([[1, 2, 3]], folder=tmp_path)
    rtn, other = (next(iter(Recipe.parse(text))) for text in ("rtn(bits=4)", "rtn(bits=3)"))
    mine = texts.stage(rtn, llama())
    mine.remember("half", {"found": torch.arange(6).reshape(2, 3).T})
    found = mine.recall("half")
    assert found is not None
    assert torch.equal(found["found"], torch.arange(6).reshape(2, 3).T)
    mine.remember("odd", {"byte": torch.ones(3, dtype=torch.uint8), "rest": torch.ones(5), "more": torch.ones(2)})
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (mine.recall("odd") or {}).values()), "kernels round by it"
    assert mine.recall("other") is None
    assert texts.stage(other, llama()).recall("half") is None
    assert texts.stage(rtn, llama(tied=True)).recall("half") is None
    assert replace(texts, tokens=torch.tensor([[1, 2, 4]])).stage(rtn, llama()).recall("half") is None
    assert of_tokens([[1, 2, 3]]).stage(rtn, llama()).recall("half") is None


def test_a_damaged_file_counts_as_none_with_a_word(tmp_path: Path) -> None:
    texts = of_tokens([[1, 2, 3]], folder=tmp_path).stage(next(iter(Recipe.parse("rtn()"))), llama())
    kept = {"found": torch.ones(3), "none": torch.ones(0), "one": torch.tensor(True), "half": torch.ones(2).half()}
    texts.remember("half", kept)
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    whole = file.read_bytes()
    save_file(kept, tmp_path / "without a hash")
    for damaged in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), b"", (tmp_path / "without a hash").read_bytes()):
        file.write_bytes(damaged)
        with pytest.warns(PithWarning, match=r"half\.safetensors.* is damaged; that step is done again"):
            assert texts.recall("half") is None
    file.write_bytes(whole)
    found = texts.recall("half")
    assert found is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in kept.items())


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = of_tokens([[1, 2, 3]], folder=tmp_path).stage(next(iter(Recipe.parse("rtn()"))), llama())
    texts.remember("half", {"found": torch.ones(3)})

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(sys.modules[Calibration.__module__], "save_file", full)
    with pytest.raises(StoreError, match=r"half\.safetensors cannot be written: No space left on device$"):
        texts.remember("half", {"found": torch.zeros(3)})
    assert torch.equal((texts.recall("half") or {})["found"], torch.ones(3))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["half.safetensors"]


def test_it_is_told_how_a_method_goes_on() -> None:
    told: list[tuple[str, int, int]] = []
    pith.compress(llama(), "rtn(bits=4, group_size=32)", of_tokens([[1, 2]], progress=lambda *what: told.append(what)))
    assert told[0] == ("rtn", 0, 28)
    assert told[-1] == ("rtn", 28, 28)
