"""Files of every kind that Pith reads, how they are damaged, and what reads them."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from pith.cache.duo_attention import DuoAttention
from pith.core import Recipe
from pith.measure.run import Answer
from pith.models import Loaded, builtin, load, smaller
from pith.models.quiet import quiet
from pith.study import Store, read_record
from pith.study.trust import require_complete, require_trusted
from pith.tasks import Quality, parse_tasks
from pith.weights import Source

Kind = tuple[str, tuple[Path, Callable[[Path], Any]]]
"""A name, the whole file or the folder with the file, and what reads a damaged copy of it."""

JSON = (
    "null", "[]", "[1]", "{}", "0", '"x"', "1e999", "NaN", '{"a": {"a": []}}', "[" * 100_000, '{"a":' * 50_000,
    "9" * 5000,
)  # fmt: skip
"""What a file is replaced by: JSON of other types, and such that no reader takes."""


def damage(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Return a damaged content, and how it was damaged."""
    how = rng.choice(("cut", "flip", "emptied", "replaced", "mark", "binary", "doubled", "value", "removed", "zeros"))
    size = len(content)
    if how == "cut":
        return content[: rng.randrange(size)], how
    if how == "flip":
        flipped = bytearray(content)
        for _ in range(rng.choice((1, 1, 4, 64))):
            flipped[rng.randrange(min(size, rng.choice((200, size))))] ^= 1 << rng.randrange(8)
        return bytes(flipped), how
    if how == "replaced":
        found = rng.choice(JSON)
        return found.encode(), f"replaced by {found[:20]}"
    if how == "value":
        return changed_value(rng, content)
    start = rng.randrange(size)
    end = min(size, start + rng.choice((1, 16, 200)))
    made = {
        "emptied": b"",
        "mark": b"\xef\xbb\xbf" + content,
        "binary": rng.randbytes(rng.choice((1, 100, 5000))),
        "doubled": content + content,
        "removed": content[:start] + content[end:],
        "zeros": content[:start] + bytes(end - start) + content[end:],
    }
    return made[how], how


def changed_value(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Return JSON with one value of another type or size; anything else with a number in it replaced."""
    others: list[Any] = [
        None,
        -1,
        0,
        1e308,
        2**70,
        float("nan"),
        "x" * 5000,
        [],
        {},
        [[]],
        {"a": 1},
        True,
        "../x",
        "\0",
    ]
    other = rng.choice(others)
    try:
        data = place = json.loads(content)
    except ValueError:
        return content.replace(rng.choice((b"0", b"1", b"2")), str(other)[:200].encode()), f"a number is {other!r:.20}"
    path = []
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        path.append(key)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.4:
            place[key] = other
            break
        place = inner
    return json.dumps(data).encode(), f"{path} is {other!r:.20}"


def copy_damaged(rng: random.Random | None, whole: Path, place: Path) -> tuple[Path, str]:
    """Copy a file, or a folder of which one file is damaged, to a place; return the path and how it was damaged.

    Without a source of chance the copy is left whole.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if whole.is_dir():
        shutil.copytree(whole, place / whole.name)
    if not rng:
        return place / whole.name if whole.is_dir() else Path(shutil.copy(whole, place)), "whole"
    if whole.is_dir():
        inside = (path for path in (place / whole.name).rglob("*") if path.is_file() and path.stat().st_size)
        target = rng.choice(sorted(inside))
    else:
        target = Path(shutil.copy(whole, place))
    content, how = damage(rng, target.read_bytes())
    target.write_bytes(content)
    return place / whole.name, f"{target.name}: {how}"


def tiny(tokenizer: Any) -> Any:
    """Return a small random model with a vocabulary of a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def kinds(folder: Path) -> list[Kind]:
    """Return every kind of file, with a whole one of each made in a folder."""
    whole = folder / "whole"
    whole.mkdir(exist_ok=True)
    tokenizer = builtin()[1]
    loaded = Loaded("tiny", tiny(tokenizer), tokenizer)
    with warnings.catch_warnings(), quiet(downloads=False):
        warnings.simplefilter("ignore")  # that packed weights of 32 columns save no time
        return [*texts(whole, tokenizer), *records(whole), *weights(whole, loaded)]


def texts(whole: Path, tokenizer: Any) -> list[Kind]:
    """Return recipes, texts, calibration texts and JSON Lines."""
    Recipe.parse("ada_kv(snapkv(budget=0.25)) + kivi").save(whole / "recipe.toml")
    (whole / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 100, encoding="utf-8")
    problems = [json.dumps({"question": f"{i} and {i}?", "answer": f"#### {2 * i}"}) for i in range(12)]
    (whole / "problems.jsonl").write_text("\n".join(problems), encoding="utf-8")

    def perplexity(path: Path) -> None:
        [task] = parse_tasks(f"perplexity(text={str(path)!r}, length=8, scored=2, count=2)")
        task.calibrate(tokenizer)

    def problem(path: Path) -> None:
        [task] = parse_tasks(f"gsm8k(path={str(path)!r}, count=2, shots=1)")
        task.calibrate(tokenizer)

    def calibration(path: Path) -> None:
        source = Source(str(path), 2, 8)
        source.identity(tokenizer)
        source.calibration(tokenizer)

    return [
        ("recipe.toml", (whole / "recipe.toml", Recipe.load)),
        ("text", (whole / "text.txt", perplexity)),
        ("calibration text", (whole / "text.txt", calibration)),
        ("JSON Lines", (whole / "problems.jsonl", problem)),
    ]


def records(whole: Path) -> list[Kind]:
    """Return the record of a study, and its database."""
    record = {
        "command": "pith compare", "model": "builtin", "recipes": ["dense", "snapkv(budget=0.25)"],
        "tasks": ["needle()"], "refused": {},
        "settings": {"length": 64, "seed": 0, "batch_size": 1, "dtype": "auto"},
        "hashes": {"model": "0" * 16, "tokenizer": "0" * 16, "heldout": "0" * 16}, "files": {},
        "environment": {"python": "3"}, "layout": 1,
    }  # fmt: skip
    (whole / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    answer = Answer(Quality(0.5, 0.25, 0.75, 2, (0.0, 1.0)), (), {})
    with Store(whole / "study") as store:
        for key in "ab":
            store.put(key, answer, {"model": "builtin"})

    def run(path: Path) -> None:
        found = read_record(path)
        recipes, tasks = found.parsed()
        require_trusted(found, recipes, tasks, model_named=False)
        require_complete(found, recipes, tasks)

    def database(path: Path) -> None:
        with Store(path, patience=1) as store:
            len(store)
            store.held(["a", "b"])
            for key in "ab":
                store.get(Answer, key, (0.0, 1.0))

    return [("run.json", (whole / "run.json", run)), ("study.sqlite", (whole / "study", database))]


def weights(whole: Path, loaded: Loaded) -> list[Kind]:
    """Return a plain model's folder, a packed one's, kept weights, and the gates of DuoAttention."""
    plain, packed, kept = whole / "plain", whole / "packed", whole / "kept"
    loaded.model.save_pretrained(plain)
    loaded.tokenizer.save_pretrained(plain)
    recipe = Recipe.parse("rtn(bits=4, group_size=16)")
    small = smaller.subject(replace(loaded, kept=kept), recipe).model
    small.save_pretrained(packed)
    loaded.tokenizer.save_pretrained(packed)
    for name in (plain, packed):  # tokenizers are Transformers' own to read, and large
        (name / "tokenizer.json").replace(whole / "tokenizer.json")
    gates = whole / "gates.safetensors"
    torch.manual_seed(0)
    save_file({"gates": torch.rand(1, 2)}, gates)

    def model(path: Path) -> None:
        shutil.copy(whole / "tokenizer.json", path)
        load(str(path))

    def given(path: Path) -> None:
        smaller._MADE.pop(loaded.model, None)  # what is in memory is not read from the folder
        smaller.subject(replace(loaded, kept=path), recipe)

    def duo(path: Path) -> None:
        DuoAttention(gates=str(path)).on(loaded.model)

    return [
        ("plain model", (plain, model)),
        ("packed model", (packed, model)),
        ("kept weights", (kept, given)),
        ("gates", (gates, duo)),
    ]
