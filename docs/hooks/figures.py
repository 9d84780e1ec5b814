"""The results: every file in `benchmarks/results/`, with the command that made it, as a table."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from marked import block
from tabled import compared, listed, named, piece, tables

from pith.core import Method, PithError, Recipe
from pith.core.parameters import Parametrised

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
    "cache_smollm2": "python benchmarks/cache_table.py --model smollm2 --length 512 --count 16 --no-times "
    "--out results/smollm2 --json benchmarks/results/cache_smollm2.json",
    "compare_smollm2": 'pith compare smollm2 --count 12 --length 1024 --recipe "snapkv(budget=0.25)" --recipe '
    '"tova(budget=0.25)" --recipe "kvzip(budget=0.25)" --recipe "kivi(bits=4)" --tasks '
    "needle,lookup,passkey,perplexity --out smollm2 --json > benchmarks/results/compare_smollm2.json",
    "cache_table": "python benchmarks/cache_table.py --out results/cache --json benchmarks/results/cache_table.json",
    "weights_table": "python benchmarks/weights_table.py --out results/weights "
    "--json benchmarks/results/weights_table.json",
    "weights_trained": "python benchmarks/weights_table.py --trained --out results/trained "
    "--json benchmarks/results/weights_trained.json",
    "task_calibration": "python benchmarks/task_calibration.py --length 512 --count 20 "
    "--out benchmarks/results/task_calibration.json",
    "task_wording": "for run in 'needle,passkey,lookup,many_labels plain,chat' "
    "'niah_single_1,niah_multikey_1 plain'; do "
    "set -- $run; python benchmarks/task_wording.py smollm2 --tasks $1 --columns $2 "
    "--out benchmarks/results/task_wording.json; done",
    "stream_perplexity": "python benchmarks/stream_perplexity.py --tokens 20000",
    "stream_200k": "python benchmarks/stream_perplexity.py --tokens 200000 --chunk 128 --budget 512 --without dense "
    '--recipe "sir_llm(budget=512, recent_size=256)" '
    '--recipe "inf_llm(n_init=16, n_local=384, block_size=32, topk=4, exec_block_size=128)"',
}
"""What made the files that do not say it themselves (`command`)."""


EARLIER = frozenset(
    [
        "cache_table",
        "weights_table",
        "advise_llama",
        "advise_builtin",
        "advise_llama_extrapolated",
        "fit_builtin",
        "cache_decode",
        "cache_decode_16k",
        "cache_decode_evictions",
        "compare_smollm2",
    ]
)
"""Files that were measured when `snapkv` pooled 5 keys where nothing else was said, and not 7."""

THEN = "When this was measured, `snapkv` pooled 5 keys by default (`kernel=5`), also within other methods."

BUILTIN = "the built-in model"
TABLES = {
    "cache_smollm2": ("cache", "SmolLM2-135M-Instruct", 512),
    "cache_table": ("cache", BUILTIN, 1024),
    "weights_table": ("weights", BUILTIN, 512),
    "weights_trained": ("weights", BUILTIN, 512),
}
"""Which page tells of a table of all methods, the model, and the tokens of its prompts."""


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
        "(cache.md) and in [the weight methods side by side](weights.md). Times are ratios to the dense model, run by "
        "turns in one process: below 1 is less time; "
        "~ was too noisy to tell.",
    ]
    for name, found in stored().items():
        command = found.get("command") or COMMANDS.get(name)
        then = THEN if name in EARLIER else ""
        text += [f"## `{name}.json`", block(command, "bash") if command else "", where(found), then, *tables(found)]
    return "\n\n".join(filter(None, text))


def where(found: dict[str, Any]) -> str:
    """The machine on which it was measured."""
    about = (
        found.get("environment")
        or found.get("predictions", {}).get("environment")
        or next((piece(r, "environment") for r in listed(found.get("study", found))), None)
        or {}
    )
    words = [about.get("processor"), f"{about['cores']} cores" if "cores" in about else None]
    words += [f"{about['threads']} threads" if "threads" in about else None, about.get("dtype")]
    words += [f"{name} {about[name.lower()]}" for name in ("PyTorch", "Transformers") if name.lower() in about]
    words += [f"torch {about['torch']}" if "torch" in about else None]
    return "Measured on: " + ", ".join(str(w) for w in words if w) + "." if any(words) else ""


def measured(name: str) -> list[str]:
    """A section for a method's card: its rows of the tables of all methods, beside the dense model."""
    text: list[str] = []
    for table, (page, model, length) in TABLES.items():
        rows = stored().get(table, {}).get("rows", [])
        if own := [row for row in rows if name in within(row["recipe"])]:
            text += [
                f"On {model} with a prompt of {length} tokens; times, where they stand, are ratios to the dense model. "
                f"[All methods side by side](../{page}.md), with the command and how to read it.",
                THEN if table in EARLIER and any("snapkv" in within(row["recipe"]) for row in own) else "",
                compared([rows[0], *own]),
            ]
    return ["## What was measured", *filter(None, text)] if text else []


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


def _names(method: Parametrised) -> set[str]:
    inner = [getattr(method, p.name) for p in method.parameters()]
    return {method.name}.union(*(_names(value) for value in inner if isinstance(value, Method)))
