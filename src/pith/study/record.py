"""`run.json`: how a study was made, so that it can be made again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from pith.core import MOST, InputError, ModelError, PithWarning, Recipe, write_whole
from pith.core.errors import shown
from pith.core.files import SETTINGS as SETTINGS_LIMIT
from pith.core.files import read_text
from pith.core.sources import files_of
from pith.measure.environment import environment
from pith.measure.seconds import RUNS
from pith.models import Loaded
from pith.study.grid import tasks_with
from pith.study.question import Question
from pith.tasks import Task
from pith.weights import AUTO

FILE = "run.json"
LAYOUT = 1
CALIBRATION = "calibration"

_TOLD = ("python", "torch", "transformers", "pith", "commit", "system", "processor", "cores", "threads", "device")
"""What of the environment a repetition tells the difference of."""

_Count = Annotated[int, Field(ge=1, le=MOST)]
_Path = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=4096)]
_ShortHash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Plain = str | int | float | bool | None


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
        runs: pairs of timed runs; 0 timed nothing.
        at_bytes, at_latency: what every recipe had to meet by its own parameter; the recipes stand as they were found.
    """

    length: _Count
    seed: Annotated[int, Field(ge=0, le=MOST)]
    batch_size: _Count
    dtype: str
    peak: bool = False
    runs: Annotated[int, Field(ge=0, le=MOST)] = RUNS
    at_bytes: str | None = None
    at_latency: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    calibration: _Path = AUTO
    calibration_sequences: _Count = 64
    calibration_length: Annotated[int, Field(ge=2, le=MOST)] = 512


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
    model: _Path
    recipes: Annotated[tuple[str, ...], Field(min_length=1)]
    tasks: tuple[str, ...]
    refused: dict[str, str]
    settings: Settings
    hashes: dict[str, _ShortHash]
    files: dict[_Path, _Sha256]
    environment: dict[str, _Plain]
    layout: int = LAYOUT

    def parsed(self) -> tuple[tuple[Recipe, ...], tuple[Task, ...]]:
        """Return the recipes and the tasks; nothing is opened.

        Raises:
            PithError: one of them is not known here, or the recipes do not begin with the dense model.
        """
        recipes = tuple(map(Recipe.parse, self.recipes))
        texts = list(map(str, recipes))
        if len(recipes[0]) or len(set(texts)) < len(texts):
            raise InputError(f"recipes of {FILE} must begin with 'dense' and name each recipe once")
        return recipes, tasks_with(",".join(self.tasks), {}) if self.tasks else ()

    @property
    def dtype(self) -> str:
        """The dtype in which the study was measured, which "auto" need not give on another machine."""
        return self.settings.dtype if self.settings.dtype != "auto" else str(self.environment.get("dtype", "auto"))

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
                raise InputError(f"the calibration text {shown(self.settings.calibration)} is another one: {differs}")
            what = "other weights" if name == "model" else f"another {name}"
            raise ModelError(f"{shown(question.model)} has {what}: {differs}")
        here, there = environment(loaded.model, {}), self.environment
        for name in _TOLD:
            if here.get(name) != there.get(name):
                differs = f"{name} is {here.get(name)}, in the run that is repeated {_told(there.get(name))}"
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
        environment=environment(loaded.model, {}, loaded.dtype_reason),
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
    """Return the record in a file; nothing that it names is opened.

    Raises:
        InputError: it cannot be read, is no record, holds a value that cannot be, or a newer Pith wrote it.
    """
    text = read_text(path, limit=SETTINGS_LIMIT)
    try:
        data = from_json(text)
    except ValueError as error:
        raise InputError(f"{shown(str(path))} is no {FILE}: it is not JSON ({error})") from None
    layout = data.get("layout") if isinstance(data, dict) else None
    if isinstance(layout, int) and layout > LAYOUT:
        raise InputError(
            f"{shown(str(path))} was written by a newer Pith (layout {shown(layout)}, this one reads {LAYOUT})"
        )
    try:
        return TypeAdapter(Record).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise InputError(f"{shown(str(path))} is no {FILE}: {where[:80]}: {first['msg']}") from None


def _told(value: Any) -> str:
    """Return a value of a record as a note shows it."""
    return shown(value).strip("'") if isinstance(value, str) else shown(value)
