from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pith.core import InputError, ModelError, PithError, PithWarning, Recipe, StoreError
from pith.core.sources import file_hash
from pith.models import Loaded, load
from pith.study import Question, Record, Settings, ask, read_record, record, tasks_with, write_record
from pith.weights import Source

SETTINGS = Settings(length=64, seed=3, batch_size=4, dtype="auto", at_bytes="2MiB")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin")


def asked(loaded: Loaded, text: Path | None = None) -> Question:
    tasks = tasks_with(f"perplexity(text={str(text)!r})" if text else "needle(keys=1)", {"seed": 5})
    return ask(loaded, (Recipe(), Recipe.parse("snapkv(budget=0.25)")), tasks, length=64, seed=3)


def made(loaded: Loaded, text: Path | None = None) -> Record:
    return record(asked(loaded, text), loaded, SETTINGS, {"tova()": "it holds 3 MiB"}, "pith compare --seed 3")


def test_what_is_written_is_read_and_says_everything(loaded: Loaded, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    found = made(loaded, text)
    path = write_record(found, tmp_path / "made")
    assert path == tmp_path / "made" / "run.json"
    assert read_record(path) == found
    question = asked(loaded, text)
    assert found.parsed() == (question.recipes, question.tasks)
    data = json.loads(path.read_text())
    assert data["command"] == "pith compare --seed 3"
    assert data["settings"]["seed"] == 3
    assert data["files"] == {str(text): file_hash(text)}
    assert set(data["hashes"]) == {"model", "tokenizer", "heldout"}
    assert {"torch", "transformers", "python", "commit", "processor"} <= set(data["environment"])
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_a_study_is_repeated_in_the_dtype_in_which_it_was_measured(loaded: Loaded) -> None:
    found = made(loaded)
    assert found.settings.dtype == "auto"
    assert found.dtype == found.environment["dtype"] == "float32"
    assert found.environment["dtype_reason"] == "the built-in model's default"
    assert replace(found, environment={"dtype": "bfloat16"}).dtype == "bfloat16"
    assert replace(found, settings=replace(found.settings, dtype="float16")).dtype == "float16"
    assert replace(found, environment={}).dtype == "auto", "an older record does not say"


@pytest.mark.parametrize(("name", "error"), [("model", ModelError), ("tokenizer", ModelError), ("heldout", InputError)])
def test_another_model_or_text_is_a_mistake(loaded: Loaded, name: str, error: type[Exception]) -> None:
    found = made(loaded)
    other = replace(found, hashes={**found.hashes, name: "0123"})
    with pytest.raises(error, match="in the run that is repeated 0123"):
        other.require(asked(loaded), loaded)


def test_other_versions_and_processors_are_noted(loaded: Loaded, recwarn: pytest.WarningsRecorder) -> None:
    found = made(loaded)
    found.require(asked(loaded), loaded)
    assert not [w for w in recwarn if w.category is PithWarning]
    replace(found, environment={**found.environment, "torch": "1.0", "processor": "Z80"}).require(asked(loaded), loaded)
    noted = [str(w.message) for w in recwarn if w.category is PithWarning]
    assert [line.split()[0] for line in noted] == ["torch", "processor"]
    assert noted[0].endswith("in the run that is repeated 1.0")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "is no run.json: it is not JSON"),
        ('{"environment":' * 3000, "is no run.json: it is not JSON"),
        ('{"layout": 1' + "0" * 5000 + "}", "is no run.json: it is not JSON"),
        ("[1]", "is no run.json"),
        ('{"layout": 99}', "newer Pith"),
        ('{"layout": 1, "command": "pith"}', "is no run.json: model: Field required"),
    ],
)
def test_a_file_that_is_no_record_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_record(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="there is no such file"):
        read_record(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", 1), ("command", None), ("model", ""), ("model", "a\0b"), ("model", "a\nb"), ("model", ["builtin"]),
        ("recipes", []), ("recipes", "dense"), ("recipes", [1]), ("tasks", "needle"), ("tasks", {"needle": 1}),
        ("refused", {"tova()": 1}), ("refused", []), ("hashes", {"model": "0123"}), ("hashes", {"model": "X" * 16}),
        ("hashes", {"model": None}), ("files", {"a": "0" * 63}), ("files", {"a\0": "0" * 64}),
        ("environment", {"torch": {"version": 2}}), ("environment", 3), ("environment", {"torch": [1]}),
        ("settings", {}), ("settings", None), ("layout", "1"), ("layout", None), ("layout", 10**400),
        ("settings.length", 0), ("settings.length", "64"), ("settings.length", 64.5), ("settings.length", True),
        ("settings.length", 2**63), ("settings.length", -(10**30)), ("settings.seed", -1), ("settings.batch_size", 0),
        ("settings.dtype", 16), ("settings.peak", "yes"), ("settings.at_bytes", 7), ("settings.at_latency", 0),
        ("settings.at_latency", float("nan")), ("settings.at_latency", float("inf")), ("settings.calibration", "a\0b"),
        ("settings.calibration", 1), ("settings.calibration_sequences", 0), ("settings.calibration_length", 1),
        ("command", "\ud800"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_one_line(loaded: Loaded, tmp_path: Path, field: str, value: object) -> None:
    path = write_record(made(loaded), tmp_path)
    data = json.loads(path.read_text())
    place, _, name = field.rpartition(".")
    (data[place] if place else data)[name] = value
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"run\.json") as error:
        read_record(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("recipes", ("snapkv()",), "must begin with 'dense'"),
        ("recipes", ("dense", "snapkv()", "snapkv"), "name each recipe once"),
        ("recipes", ("dense", "no_such_method"), "no method is called 'no_such_method'"),
        ("recipes", ("dense", "none.toml"), "this is no recipe"),
        ("tasks", ("no_such_task",), "no task is called 'no_such_task'"),
        ("tasks", ("needle(query='agnostic')", "vt(query='aware')"), "their scores do not compare"),
        ("tasks", ("needle(\0)",), "this is no list of tasks"),
    ],
)
def test_recipes_and_tasks_that_cannot_be_are_refused(
    loaded: Loaded, field: str, value: tuple[str, ...], says: str
) -> None:
    with pytest.raises(PithError, match=says):
        replace(made(loaded), **{field: value}).parsed()  # type: ignore[arg-type]


def test_it_is_written_whole_or_not_at_all(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_record(made(loaded), tmp_path)
    before = path.read_bytes()

    def fail(self: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        write_record(replace(made(loaded), command="another"), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_calibration_text_is_recorded_where_a_method_reads_it(loaded: Loaded, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    on_file = replace(loaded, source=Source(str(text), 8, 256))
    recipes = (Recipe(), Recipe.parse("gptq(bits=4)"))
    settings = replace(SETTINGS, calibration=str(text), calibration_sequences=8, calibration_length=256)
    found = record(ask(on_file, recipes, (), length=64, seed=3), on_file, settings, {}, "pith compare")
    path = write_record(found, tmp_path / "made")
    assert read_record(path) == found
    assert set(found.hashes) == {"model", "tokenizer", "heldout", "calibration"}
    found.require(ask(on_file, recipes, (), length=64, seed=3), on_file)
    text.write_text("another")
    with pytest.raises(InputError, match=r"the calibration text '.*text.txt' is another one"):
        found.require(ask(on_file, recipes, (), length=64, seed=3), on_file)


def test_a_record_of_before_weights_were_changed_can_be_read(loaded: Loaded, tmp_path: Path) -> None:
    path = write_record(made(loaded), tmp_path)
    data = json.loads(path.read_text())
    for name in ("calibration", "calibration_sequences", "calibration_length"):
        del data["settings"][name]
    path.write_text(json.dumps(data))
    assert read_record(path).settings == SETTINGS
