"""`run.json`: how a study was made, so that it can be made again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pith.core import InputError, ModelError, PithWarning, Recipe, write_whole
from pith.core.sources import file_hash, files_of
from pith.measure.environment import environment
from pith.models import Loaded
from pith.study.question import Question
from pith.tasks import Task, parse_tasks
from pith.weights import BUILTIN

FILE = "run.json"
LAYOUT = 1
CALIBRATION = "calibration"

_TOLD = ("python", "torch", "transformers", "pith", "commit", "system", "processor", "cores", "threads", "device")
"""What of the environment a repetition tells the difference of."""


@dataclass(frozen=True)
class Settings:
    """What the user chose beside recipes and tasks.

    Attributes:
        length: tokens of the timed prompt.
        seed: of the timed prompt; tasks have their own.
        batch_size: sequences that a task reads at once.
        dtype: as for `pith.models.load`.
        peak: whether the peak of memory was looked for.
        calibration, calibration_sequences, calibration_length: the text that methods read before they change weights,
            and how much of it.
        at_bytes, at_latency: what every recipe had to meet by its own parameter; the recipes stand as they were found.
    """

    length: int
    seed: int
    batch_size: int
    dtype: str
    peak: bool = False
    at_bytes: str | None = None
    at_latency: float | None = None
    calibration: str = BUILTIN
    calibration_sequences: int = 64
    calibration_length: int = 512


@dataclass(frozen=True)
class Record:
    """How a study was made.

    Attributes:
        command: the command line.
        model: the model's name, as the user gave it.
        recipes, tasks: what was compared and by what, as texts that say everything.
        refused: recipes that were left out before anything was measured, and why.
        settings: what else the user chose.
        hashes: of the model, its tokenizer and the held-out text, and of the calibration text where a method reads it.
        files: the SHA-256 of every file that a task or a method reads.
        environment: versions, commit, processor.
        layout: of this record; a newer Pith writes a larger number.
    """

    command: str
    model: str
    recipes: tuple[str, ...]
    tasks: tuple[str, ...]
    refused: dict[str, str]
    settings: Settings
    hashes: dict[str, str]
    files: dict[str, str]
    environment: dict[str, Any]
    layout: int = LAYOUT

    def parsed(self) -> tuple[tuple[Recipe, ...], tuple[Task, ...]]:
        """The recipes and the tasks.

        Raises:
            PithError: one of them is not known here.
        """
        tasks = [task for text in self.tasks for task in parse_tasks(text)]
        return tuple(map(Recipe.parse, self.recipes)), tuple(tasks)

    def require_files(self) -> None:
        """Makes sure that the files are those that the study was made with.

        Raises:
            InputError: one of them is missing, or holds something else.
        """
        for path, wanted in self.files.items():
            if not Path(path).is_file():
                raise InputError(f"{path} is not there, and the run that is repeated reads it")
            if file_hash(path) != wanted:
                raise InputError(f"{path} is not what it was in the run that is repeated: its hash differs")

    def require(self, question: Question, loaded: Loaded) -> None:
        """Makes sure that the model and the held-out text are those of the study, and notes what else differs.

        Raises:
            ModelError: the model or its tokenizer is another one.
            InputError: the held-out text or the calibration text is another one.
        """
        for name, wanted in self.hashes.items():
            found = {**question.settings, CALIBRATION: question.calibration.get("text")}.get(name)
            if found == wanted:
                continue
            differs = f"its hash is {found}, in the run that is repeated {wanted}"
            if name == "heldout":
                python = self.environment.get("python")
                raise InputError(f"the held-out text comes with Python, and it was that of Python {python}: {differs}")
            if name == CALIBRATION:
                raise InputError(f"the calibration text {self.settings.calibration!r} is another one: {differs}")
            raise ModelError(f"{self.model!r} has another {name}: {differs}".replace("another model", "other weights"))
        here, there = environment(loaded.model, {}), self.environment
        for name in _TOLD:
            if here.get(name) != there.get(name):
                differs = f"{name} is {here.get(name)}, in the run that is repeated {there.get(name)}"
                warnings.warn(differs, PithWarning, stacklevel=2)


def record(question: Question, loaded: Loaded, settings: Settings, refused: Mapping[str, str], command: str) -> Record:
    """The record of a study that is about to be made.

    Args:
        question: what is asked.
        loaded: the model.
        settings: what else the user chose.
        refused: recipes that were left out before, and why.
        command: the command line.
    """
    files: dict[str, str] = {}
    for value in (*(method for recipe in question.recipes for method in recipe), *question.tasks):
        files |= files_of(value)
    hashes = {name: question.settings[name] for name in ("model", "tokenizer", "heldout")}
    if question.calibration:
        hashes[CALIBRATION] = question.calibration["text"]
    return Record(
        command=command,
        model=question.model,
        recipes=tuple(map(str, question.recipes)),
        tasks=tuple(map(str, question.tasks)),
        refused=dict(refused),
        settings=settings,
        hashes=hashes,
        files=files,
        environment=environment(loaded.model, {}),
    )


def write_record(found: Record, directory: str | Path) -> Path:
    """Writes `run.json` into a folder, whole or not at all, and returns its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = Path(directory) / FILE
    text = json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n"
    return write_whole(path, text.encode())


def read_record(path: str | Path) -> Record:
    """The record in a file.

    Raises:
        InputError: it cannot be read, is no record, or a newer Pith wrote it.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path} is no {FILE}: {error}") from None
    layout = data.get("layout") if isinstance(data, dict) else None
    if isinstance(layout, int) and layout > LAYOUT:
        raise InputError(f"{path} was written by a newer Pith (layout {layout}, this one reads {LAYOUT})")
    try:
        return TypeAdapter(Record).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise InputError(f"{path} is no {FILE}: {where}: {first['msg']}") from None
