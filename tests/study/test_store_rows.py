from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.measure import Answer, Costs, to_json
from pith.study import Store
from study.fakes import measurement
from study.filled import ANSWER, DENSE, NEEDLE, PERPLEXITY, filled


def test_a_row_that_is_no_measurement_is_said_and_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE pith_piece SET result = '{}'")
    database.close()
    with Store(tmp_path) as store, pytest.raises(StoreError, match="damaged"):
        store.get(Costs, "key")
    with Store(tmp_path) as store:
        assert len(store) == 1


COSTS_THAT_CANNOT_BE = [
    ("bytes.prefill", -1), ("bytes.dense_prefill", 0), ("bytes.decoded", 2**63), ("bytes.prefill", 10**400),
    ("bytes.tokens", 0), ("bytes.claimed", "nan"), ("bytes.claimed", -0.5), ("bytes.prefill", None),
    ("bytes.prefill", [1]), ("speed.decode", "nan"), ("speed.decode", "inf"), ("speed.prefill", -1.0),
    ("speed.decode_ratio", 0), ("speed.spread", "nan"), ("speed.runs", 0), ("speed.runs", "many"),
    ("memory.weights", -5), ("memory.peak", -1), ("bandwidth.copy", 0), ("bandwidth.achieved", "-inf"),
    ("notes", 3), ("notes", [3]), ("environment", []), ("bytes", None), ("speed", {}),
]  # fmt: skip
ANSWERS_THAT_CANNOT_BE = [
    ("scores", [1.5] + [0.0] * 99), ("scores", [-0.1] + [0.0] * 99), ("scores", ["nan"] + [0.0] * 99), ("scores", []),
    ("scores", [1.0]), ("n", 0), ("n", -100), ("n", 2**70), ("depths", [0.5]), ("depths", [2.0] * 100),
    ("curve", [[1]]), ("value", None), ("value", "many"),
]  # fmt: skip


def stored(directory: Path, key: str, text: str) -> None:
    path = filled(directory)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO pith_piece VALUES (?, '', '', ?)", (key, text))


@pytest.mark.parametrize(("field", "value"), COSTS_THAT_CANNOT_BE)
def test_costs_that_cannot_be_are_damage(tmp_path: Path, field: str, value: object) -> None:
    data = json.loads(to_json(DENSE))
    place, _, name = field.rpartition(".")
    (data[place] if place else data)[name] = value
    stored(tmp_path, "odd", json.dumps(data))
    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match=r"is damaged \(.*it was left as it is") as error:
            store.get(Costs, "odd")
        assert len(str(error.value)) < 300
        assert store.get(Costs, "key") == DENSE


@pytest.mark.parametrize(("field", "value"), ANSWERS_THAT_CANNOT_BE)
def test_answers_that_cannot_be_are_damage(tmp_path: Path, field: str, value: object) -> None:
    data = json.loads(to_json(measurement(Recipe()).answers[str(NEEDLE)]))
    data["quality"][field] = value
    stored(tmp_path, "odd", json.dumps(data))
    with Store(tmp_path) as store, pytest.raises(StoreError, match="is damaged"):
        store.get(Answer, "odd", NEEDLE.bounds)


@pytest.mark.parametrize("text", ["", "null", "[]", "no json", '{"quality":' * 5000, "9" * 5000])
def test_a_row_that_is_no_piece_is_damage(tmp_path: Path, text: str) -> None:
    stored(tmp_path, "odd", text)
    with Store(tmp_path) as store:
        for kind in (Costs, Answer):
            with pytest.raises(StoreError, match="is damaged"):
                store.get(kind, "odd")


def test_scores_lie_within_what_their_task_can_give(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("key", ANSWER, {})
        assert store.get(Answer, "key", PERPLEXITY.bounds) == ANSWER
        with pytest.raises(StoreError, match="a score outside of 0 to 1"):
            store.get(Answer, "key", NEEDLE.bounds)
