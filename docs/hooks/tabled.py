"""Tables of what the benchmarks and commands wrote as JSON, each form in its own way."""

from __future__ import annotations

from typing import Any

from marked import plain, table

from pith.measure.measurement import tells
from pith.report.words import bytes_, digits, percent, seconds


def tables(found: dict[str, Any]) -> list[str]:
    """What a file holds; of a form that nobody thought of, every number that stands beside a name."""
    if "lengths" in found:
        parts = ((f"{int(length):,} tokens:", decode(rows)) for length, rows in found["lengths"].items())
        return [text for part in parts for text in part]
    if "predictions" in found:
        return advised(found)
    if "sought" in found:
        return [sought(found["sought"]), *tables(found["study"])]
    rows = listed(found)
    if rows and "recipe" in rows[0] and piece(rows[0], "quality"):
        return [folded(f"{len(rows)} recipes", compared(rows)) if len(rows) > LONG else compared(rows)]
    if isinstance(found.get("rows"), dict) and all("perplexity" in row for row in found["rows"].values()):
        return [streamed(found["rows"])]
    return [anything(rows)] if rows else []


LONG = 20
"""A table of more rows opens when one asks for it."""


def advised(found: dict[str, Any]) -> list[str]:
    """Tables of `pith advise --json`: the predictions, and what they were when they were measured."""
    advice = found["predictions"]
    rows = [(one["recipe"], cost) for one in (advice["dense"], *advice["predicted"]) for cost in one["forecasts"]]
    forecast = table(
        ["recipe", "tokens", "bytes", "prefill", "to dense", "decode", "to dense"],
        [
            (
                f"`{recipe}`",
                f"{cost['length']:,}" + ("" if cost["timed"] else " *"),
                bytes_(cost["bytes"]),
                seconds(cost["prefill"]),
                f"{cost['prefill_ratio']:.2f}x",
                seconds(cost["decode"]),
                f"{cost['decode_ratio']:.2f}x",
            )
            for recipe, cost in rows
        ],
        numbers=6,
    )
    machine = advice["machine"]
    said = (
        f"This machine copies {bytes_(machine['copy'])} a second; {advice['layers']} of {advice['of']} layers ran, in "
    )
    text = [said + f"{seconds(advice['seconds'])}. A length marked * was not timed.", folded("Predictions", forecast)]
    if checked := found.get("verified"):
        errors = {name.replace("_", " "): percent(abs(error)) for name, error in checked["median_error"].items()}
        text += [
            "Predicted → measured (error of the prediction); the median error is "
            + ", ".join(f"{error} of {name}" for name, error in errors.items())
            + ".",
            verified(checked["rows"]),
        ]
    return text


def verified(rows: list[dict[str, Any]]) -> str:
    """Predictions beside measurements."""
    words = {"bytes": bytes_, "prefill": seconds, "decode": seconds, "decode_ratio": "{:.2f}x".format}
    cells = [
        (
            f"`{row['recipe']}`",
            f"{row['measured']['length']:,}",
            *(
                f"{said(row['predicted'][name])} → {said(row['measured'][name])} ({row['error'][name]:+.0%})"
                for name, said in words.items()
            ),
        )
        for row in rows
    ]
    return table(["recipe", "tokens", "bytes", "prefill", "decode", "decode ratio"], cells, numbers=5)


def sought(found: dict[str, Any]) -> str:
    """What `pith fit --json` found, in words."""
    limits = [f"memory at most {bytes_(found['memory'])}"] if found["memory"] is not None else []
    limits.append(f"quality at least {percent(found['quality'])}")
    limits += [f"a decoded token at most {found['latency']}x"] if found["latency"] is not None else []
    outcome = (
        f"`{found['found']}` meets them" if found["found"] else f"none meets them; `{found['nearest']}` is nearest"
    )
    return (
        f"Limits: {', '.join(limits)}; the dense model takes {bytes_(found['dense_memory'])}. "
        f"Of {len(found['tried'])} recipes tried {outcome}{': ' + found['misses'] if found['misses'] else ''}. "
        "Measured afresh:"
    )


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
    scored = {task: quality["value"] for task, quality in piece(rows[0], "quality").items()}
    weighed = any(row.get("weights_share", 1) != 1 for row in rows)
    weights = ["weights held"] if weighed else []
    heads = ["recipe", *map(short, scored), *weights, "cache held" if weighed else "bytes held", "claimed"]
    timed = bool(piece(rows[0], "speed"))
    heads += ["prefill", "decode"] * timed
    cells = []
    for row in rows:
        held, speed = piece(row, "bytes"), piece(row, "speed")
        scores = [f"{score(q['value'])} <small>{span(q)}</small>" for q in piece(row, "quality").values()]
        shares = [percent(row["weights_share"])] if weighed else []
        shares += [percent(held["prefill"] / held["dense_prefill"]), percent(held["claimed"])]
        times = []
        if timed:
            noisy = "" if tells(speed["decode_ratio"], speed["spread"]) else "~"
            times = [f"{speed['prefill_ratio']:.2f}x", f"{noisy}{speed['decode_ratio']:.2f}x"]
        cells.append((f"`{named(row)}`", *scores, *shares, *times))
    return table(heads, cells, numbers=len(heads) - 1)


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


def listed(found: Any) -> list[dict[str, Any]]:
    """The rows of a file: its first list of tables, or its tables by name."""
    values = list(found.values()) if isinstance(found, dict) else [found]
    tabled = (v for v in values if isinstance(v, list) and v and all(isinstance(row, dict) for row in v))
    named = (v for v in values if isinstance(v, dict) and v and all(isinstance(row, dict) for row in v.values()))
    return next(tabled, None) or [{"name": f"`{n}`", **row} for n, row in next(named, {}).items()]


def piece(row: dict[str, Any], name: str) -> Any:
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
