from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from pith.core import InputError
from pith.core.sources import file_hash
from pith.models import Loaded, builtin
from pith.study import Record, Settings
from pith.study.here import Here
from pith.study.trust import is_path, require_complete, require_own_files, require_trusted

HASHES = {"model": "0" * 16, "tokenizer": "1" * 16, "heldout": "2" * 16}


def made(recipe: str = "snapkv()", task: str = "needle()", **changes: object) -> Record:
    settings = Settings(length=64, seed=3, batch_size=4, dtype="auto")
    found = Record("pith compare", "builtin", ("dense", recipe), (task,), {}, settings, HASHES, {}, {})
    return replace(found, **changes)  # type: ignore[arg-type]


def refusal(record: Record, model_named: bool = False) -> str:
    recipes, tasks = record.parsed()
    with pytest.raises(InputError) as error:
        require_trusted(record, recipes, tasks, model_named=model_named)
    assert len(str(error.value)) < 300
    return str(error.value)


def trusted(record: Record, model_named: bool = False) -> None:
    require_trusted(record, *record.parsed(), model_named=model_named)


def complete(record: Record) -> None:
    require_complete(record, *record.parsed())


def test_a_record_that_names_no_file_is_repeated() -> None:
    trusted(made())
    trusted(made(model="Qwen/Qwen3-0.6B"))
    assert "./Qwen" in refusal(made(model="./Qwen"))
    trusted(made(task="lm_eval(task='arc_easy')"))


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("perplexity(text='a.txt')", "perplexity(text='a.txt')"),
        ("bits_per_byte(text='/proc/kmsg')", "bits_per_byte(text='/proc/kmsg')"),
        ("gsm8k(path='a.jsonl')", "gsm8k(path='a.jsonl')"),
    ],
)
def test_files_that_tasks_name_are_not_opened(task: str, names: str) -> None:
    line = refusal(made(task=task))
    assert names in line
    assert "--trust-files" in line
    assert "run code" not in line


def test_task_files_that_can_run_code_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit")
    line = refusal(made(task=f"lm_eval(task='evil', include={str(tmp_path)!r})"))
    assert "files in it can run code" in line
    assert "--trust-files" in line


@pytest.mark.parametrize("recipe", ["duo_attention(gates='gates.safetensors')"])
def test_files_that_methods_name_are_not_opened(recipe: str) -> None:
    assert "duo_attention(gates='gates.safetensors'), which is not opened" in refusal(made(recipe))


def test_a_calibration_text_is_not_opened() -> None:
    settings = replace(made().settings, calibration="/dev/zero")
    assert "the calibration text '/dev/zero', which is not opened" in refusal(made(settings=settings))


@pytest.mark.parametrize("model", ["./model", "../a", "/etc", "~/model", "a/b/c", "a\\b", "model dir", "x\0"])
def test_a_models_folder_is_named_by_the_user(model: str) -> None:
    assert "name the model in the command as well" in refusal(made(model=model))
    trusted(made(model=model), model_named=True)


def test_a_folder_here_is_a_path_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_path("someone/model")
    assert not is_path("builtin")
    (tmp_path / "someone" / "model").mkdir(parents=True)
    assert is_path("someone/model")
    (tmp_path / "builtin").mkdir()
    assert not is_path("builtin")


@pytest.mark.parametrize("name", HASHES)
def test_a_hash_that_is_missing_is_refused(name: str) -> None:
    hashes = {key: value for key, value in HASHES.items() if key != name}
    with pytest.raises(InputError, match=rf"run\.json is incomplete: it has no hash of the {name}; allowed are"):
        complete(made(hashes=hashes))


def test_hashes_are_those_that_a_record_has() -> None:
    complete(made())
    with pytest.raises(InputError, match="a hash of 'moon', which nothing has"):
        complete(made(hashes={**HASHES, "moon": "0" * 16}))
    with pytest.raises(InputError, match="no hash of the calibration"):
        complete(made("gptq(bits=4)"))
    with pytest.raises(InputError, match="a hash of 'calibration', which nothing has"):
        complete(made(hashes={**HASHES, "calibration": "0" * 16}))
    complete(made("gptq(bits=4)", hashes={**HASHES, "calibration": "0" * 16}))


def test_files_are_those_that_tasks_and_methods_read(tmp_path: Path) -> None:
    text, gates = tmp_path / "text.txt", tmp_path / "gates.safetensors"
    text.write_text("one")
    save_file({"gates": zeros(1, 1)}, gates)
    names = {"recipe": f"duo_attention(gates={str(gates)!r})", "task": f"perplexity(text={str(text)!r})"}
    files = {str(path): file_hash(path) for path in (text, gates)}
    complete(made(**names, files=files))
    for left in (text, gates):
        with pytest.raises(InputError, match=f"it has no hash of '.*{left.name}', which is read"):
            complete(made(**names, files={k: v for k, v in files.items() if k != str(left)}))
    with pytest.raises(InputError, match="a hash of '/proc/kmsg', which is not among the files"):
        complete(made(**names, files={**files, "/proc/kmsg": "0" * 64}))
    text.write_text("another")
    with pytest.raises(InputError, match=r"text\.txt' is not what it was"):
        complete(made(**names, files=files))
    text.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        complete(made(**names, files=files))


def test_task_files_that_came_since_are_found(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("task: mine")
    task = f"lm_eval(task='mine', include={str(tmp_path)!r})"
    files = {str(path): file_hash(path) for path in tmp_path.iterdir()}
    complete(made(task=task, files=files))
    (tmp_path / "more.py").write_text("1")
    with pytest.raises(InputError, match=r"no hash of '.*more\.py'"):
        complete(made(task=task, files=files))


@pytest.mark.parametrize("name", ["study.sqlite", "report.html", "charts", "weights"])
def test_a_folder_whose_files_are_links_is_refused(tmp_path: Path, name: str) -> None:
    require_own_files(tmp_path)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link to elsewhere; name another folder by --out"):
        require_own_files(tmp_path)


def test_names_of_pith_s_are_not_paths_and_gguf_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert [is_path(name) for name in ("smollm2", "./smollm2", "model.gguf")] == [False, True, True]
    loaded = Loaded("model.gguf", *builtin())
    assert Here(loaded, length=1, batch_size=1, seed=0).elsewhere().name == str(tmp_path / "model.gguf")
    named = replace(loaded, name="smollm2")
    assert Here(named, length=1, batch_size=1, seed=0).elsewhere().name == "smollm2"
