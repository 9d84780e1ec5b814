"""The results: every file in `benchmarks/results/`, with the command that made it, as a table."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from marked import block, plain, table

from pith.core import Method, PithError, Recipe
from pith.core.parameters import Parametrised
from pith.report.words import bytes_, digits, percent, seconds

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
DECODE = "python benchmarks/cache_decode.py"
COMMANDS = {
    "cache_decode": f"{DECODE} --lengths 2048,8192 --recipe snapkv --recipe streaming_llm --recipe random_eviction "
    "--rounds 3",
    "cache_decode_16k": f"{DECODE} --lengths 16384 --recipe snapkv --recipe streaming_llm --recipe random_eviction "
    "--rounds 2",
    "cache_decode_empty": f"{DECODE} --lengths 16 --rounds 10",
    "cache_decode_evictions": f'{DECODE} --lengths 8192 --families eviction,allocation --recipe "ada_kv(pyramid_kv)" '
    "--recipe \"pyramid_infer(prefill_decay_strategy='constant', prefill_decay_ratio=0.5, recent_ratio=0.05)\" "
    "--budgets 0.25 --rounds 1",
    "cache_decode_readings": f'{DECODE} --lengths 16384 --recipe quest --recipe "recycled_attention(k=1024)" '
    '--recipe token_select --recipe "inf_llm(n_local=2048)" --budgets "" --rounds 1 --decoded 20',
    "cache_decode_storages": f'{DECODE} --lengths 16384 --recipe "kivi(bits=2)" --recipe "kivi(bits=4)" '
    '--recipe kv_cache_int8 --recipe deco_quant --recipe think --budgets "" --dtype bfloat16 --rounds 1 --decoded 20',
    "cache_table": "python benchmarks/cache_table.py --out results/cache --json benchmarks/results/cache_table.json",
    "task_calibration": "python benchmarks/task_calibration.py --length 512 --count 20 "
    "--out benchmarks/results/task_calibration.json",
    "stream_perplexity": "python benchmarks/stream_perplexity.py --tokens 20000",
    "stream_200k": "python benchmarks/stream_perplexity.py --tokens 200000 --chunk 128 --budget 512 --without dense "
    '--recipe "sir_llm(budget=512, recent_size=256)" '
    '--recipe "inf_llm(n_init=16, n_local=384, block_size=32, topk=4, exec_block_size=128)"',
}
"""What made the files that do not say it themselves (`command`)."""


@cache
def stored() -> dict[str, Any]:
    """Every file of results, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def page() -> str:
    """All results."""
    text = [
        "# All results, and the commands that made them",
        "Every figure of these pages was measured by a command of this repository. Here is each file of "
        "`benchmarks/results/` with its command; what the figures say is told in [the cache methods side by side]"
        "(cache.md). Times are ratios to the dense model, run by turns in one process: below 1 is less time.",
    ]
    for name, found in stored().items():
        command = found.get("command") or COMMANDS.get(name)
        text += [f"## `{name}.json`", block(command, "bash") if command else "", where(found), *tables(found)]
    return "\n\n".join(filter(None, text))


def where(found: dict[str, Any]) -> str:
    """The machine on which it was measured."""
    about = found.get("environment") or next((_piece(r, "environment") for r in _listed(found)), None) or {}
    words = [about.get("processor"), f"{about['cores']} cores" if "cores" in about else None]
    words += [f"{about['threads']} threads" if "threads" in about else None, about.get("dtype")]
    words += [f"{name} {about[name.lower()]}" for name in ("PyTorch", "Transformers") if name.lower() in about]
    words += [f"torch {about['torch']}" if "torch" in about else None]
    return "Measured on: " + ", ".join(str(w) for w in words if w) + "." if any(words) else ""


def tables(found: dict[str, Any]) -> list[str]:
    """What a file holds; of a shape that nobody thought of, every number that stands beside a name."""
    if "lengths" in found:
        return [
            part for length, rows in found["lengths"].items() for part in (f"{int(length):,} tokens:", decode(rows))
        ]
    if _listed(found) and "recipe" in _listed(found)[0] and _piece(_listed(found)[0], "quality"):
        return [folded(f"{len(_listed(found))} recipes", compared(_listed(found)))]
    if isinstance(found.get("rows"), dict) and all("perplexity" in row for row in found["rows"].values()):
        return [streamed(found["rows"])]
    return [anything(_listed(found))] if _listed(found) else []


def folded(title: str, text: str) -> str:
    """A text that opens when one asks for it."""
    return f'??? note "{title}"\n\n' + "\n".join(f"    {line}" for line in text.splitlines())


def decode(rows: list[dict[str, Any]]) -> str:
    """A table of `benchmarks/cache_decode.py`."""
    dense = rows[0]["prefill_bytes"]
    cells = [
        (
            "Pith without a method" if row["recipe"] == "dense" else f"`{row['recipe']}`",
            f"{row['decode_time_to_dense']:.2f}x",
            seconds(row["decode_seconds"]),
            f"{row['prefill_time_to_dense']:.2f}x",
            seconds(row["prefill_seconds"]),
            percent(row["prefill_bytes"] / dense),
        )
        for row in rows
    ]
    heads = ["recipe", "decode", "a token", "prefill", "the prompt", "bytes after the prompt"]
    return table(heads, cells, numbers=5)


def streamed(rows: dict[str, dict[str, Any]]) -> str:
    """A table of `benchmarks/stream_perplexity.py`."""
    cells = [(f"`{n}`", bytes_(r["bytes"]), ", ".join(f"{p:.3g}" for p in r["perplexity"])) for n, r in rows.items()]
    return table(["cache", "most bytes held", "perplexity of each fifth"], cells)


def compared(rows: list[dict[str, Any]]) -> str:
    """A table of `pith compare --json`."""
    scored = {task: quality["value"] for task, quality in _piece(rows[0], "quality").items()}
    heads = ["recipe", *map(short, scored), "bytes held", "claimed", "prefill", "decode"]
    cells = []
    for row in rows:
        held, speed = _piece(row, "bytes"), _piece(row, "speed")
        scores = [f"{score(q['value'])} <small>{span(q)}</small>" for q in _piece(row, "quality").values()]
        shares = [percent(held["prefill"] / held["dense_prefill"]), percent(held["claimed"])]
        times = [f"{speed['prefill_ratio']:.2f}x", f"{speed['decode_ratio']:.2f}x"]
        cells.append((f"`{named(row)}`", *scores, *shares, *times))
    return table(heads, cells, numbers=len(heads) - 1)


def measured(name: str) -> list[str]:
    """A section for a method's card: its rows of the table of all cache methods, beside the dense model."""
    rows = stored().get("cache_table", {}).get("rows", [])
    own = [row for row in rows if name in within(row["recipe"])]
    if not own:
        return []
    return [
        "## What was measured",
        "On the built-in model with a prompt of 1024 tokens; times are ratios to the dense model. "
        "[All methods side by side](../cache.md), with the command and how to read it.",
        compared([rows[0], *own]),
    ]


def rows_of(recipes: list[str]) -> str:
    """Some rows of the table of all cache methods; a recipe that it lacks is a mistake in the page."""
    rows = {named(row): row for row in stored()["cache_table"]["rows"]}
    return compared([rows[recipe] for recipe in recipes])


@cache
def within(recipe: str) -> set[str]:
    """The names of the methods in a recipe, those in other methods too; none where it is no recipe any more."""
    try:
        return {name for method in Recipe.parse(recipe) for name in _names(method)}
    except PithError:
        return set()


def anything(rows: list[dict[str, Any]]) -> str:
    """A table of whatever stands beside each other in every row."""
    flat = [_flat(row) for row in rows]
    heads = [name for name in flat[0] if all(name in row for row in flat)]
    cells = [[plain(str(row[h])) if isinstance(row[h], str) else _number(row[h]) for h in heads] for row in flat]
    return table([h.replace("_", " ") for h in heads], cells)


def named(row: dict[str, Any]) -> str:
    """A recipe as people call it: with its budget, be it the default."""
    return str(row.get("label") or row["recipe"])


def span(quality: dict[str, float]) -> str:
    """A score's 95 % interval."""
    return f"{score(quality['low'])}\u2013{score(quality['high'])}"


def score(value: float) -> str:
    """A score as people read it: shares with two digits."""
    return f"{value:.2f}" if 0 <= value <= 1 else digits(value)


def short(task: str) -> str:
    """A task as a column's heading: without brackets where nothing is in them."""
    return f"`{task.removesuffix('()')}`"


def _names(method: Parametrised) -> set[str]:
    inner = [getattr(method, p.name) for p in method.parameters()]
    return {method.name}.union(*(_names(value) for value in inner if isinstance(value, Method)))


def _listed(found: Any) -> list[dict[str, Any]]:
    """The rows of a file: its first list of tables, or its tables by name."""
    values = list(found.values()) if isinstance(found, dict) else [found]
    tabled = (v for v in values if isinstance(v, list) and v and all(isinstance(row, dict) for row in v))
    named = (v for v in values if isinstance(v, dict) and v and all(isinstance(row, dict) for row in v.values()))
    return next(tabled, None) or [{"name": f"`{n}`", **row} for n, row in next(named, {}).items()]


def _piece(row: dict[str, Any], name: str) -> Any:
    """A piece of a measurement, as it lies in files of either form."""
    if name == "quality" and "answers" in row:
        return {task: answer["quality"] for task, answer in row["answers"].items()}
    return row.get(name) or row.get("costs", {}).get(name)


def _flat(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
            found[before + name] = f"{score(value['value'])} ({span(value)})"
        elif isinstance(value, dict):
            found |= _flat(value, f"{before}{name} ")
        elif value is None or isinstance(value, str | int | float):
            found[before + name] = value
    return found


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, bool | int) else score(value)
