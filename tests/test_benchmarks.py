"""The benchmarks run, on almost nothing; their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pith.models import load

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *options: str) -> None:
    subprocess.run([sys.executable, str(BENCHMARKS / script), *options], check=True, capture_output=True, timeout=300)


def test_cache_decode(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ["--lengths", "64", "--recipe", "snapkv", "--budgets", "0.25", "--rounds", "1", "--decoded", "2"]
    run("cache_decode.py", *options, "--out", str(out))
    rows = {row["recipe"]: row for row in json.loads(out.read_text())["lengths"]["64"]}
    assert set(rows) == {"dense Transformers", "dense", "snapkv(budget=0.25)"}
    assert rows["dense Transformers"]["decode_time_to_dense"] == 1.0
    assert rows["snapkv(budget=0.25)"]["prefill_bytes"] < 0.27 * rows["dense"]["prefill_bytes"]


def test_stream_perplexity(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    run("stream_perplexity.py", "--tokens", "250", "--budget", "16", "--parts", "2", "--chunk", "3", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert all(len(row["perplexity"]) == 2 for row in rows.values())
    assert rows["streaming_llm"]["bytes"] < 0.5 * rows["dense"]["bytes"]


def test_cache_table(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = [
        "--recipe",
        "kivi(bits=4)",
        "--recipe",
        "snapkv(budget=0.5)",
        "--length",
        "96",
        "--tasks",
        "needle(count=2)",
    ]
    run("cache_table.py", *options, "--out", str(tmp_path / "study"), "--json", str(out))
    assert [row["recipe"] for row in json.loads(out.read_text())["rows"]] == [
        "dense",
        "kivi(bits=4)",
        "snapkv()",
    ]


def test_task_calibration(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ["--tasks", "lookup(length=64),vt", "--length", "150", "--count", "2", "--out", str(out)]
    run("task_calibration.py", *options)
    rows = json.loads(out.read_text())["rows"]
    assert set(rows) == {"lookup", "vt"}
    assert all(row["oracle"] == 1.0 and row["chance"] < 0.2 for row in rows.values())
    assert rows["lookup"]["aware"] == rows["lookup"]["agnostic"]


def test_task_wording(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    for tasks, columns in (("lookup(pairs=2)", "plain,pith"), ("passkey", "plain")):
        options = ["--tasks", tasks, "--columns", columns, "--length", "96", "--count", "2", "--out", str(out)]
        run("task_wording.py", "builtin", *options)
    rows = json.loads(out.read_text())["rows"]
    assert [*rows] == ["lookup", "passkey"]
    assert [*rows["lookup"]] == ["metric", "plain", "pith"]
    assert rows["lookup"]["pith"]["value"] == 1.0
    assert rows["lookup"]["plain"]["chance"] == 0.5


def test_the_shape_can_be_saved_for_other_commands(tmp_path: Path) -> None:
    run("cache_decode.py", "--save", str(tmp_path / "llama"))
    loaded = load(str(tmp_path / "llama"))
    assert loaded.model.config.num_hidden_layers == 8
    assert loaded.tokenizer("import os").input_ids


def test_weights(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ["--model", "builtin", "--recipe", "rtn(bits=4)", "--rounds", "1", "--decoded", "2", "--length", "32"]
    run("weights.py", *options, "--gguf", "--out", str(out))
    found = json.loads(out.read_text())
    rows = {row["subject"]: row for row in found["rows"]}
    assert set(found["absent"]) == {"Transformers GGUF q8_0", "Transformers GGUF q4_0"}
    assert all("and not llama" in reason for reason in found["absent"].values())
    assert set(rows) == {"dense float32", "dense bfloat16", "rtn(bits=4) bfloat16"}
    packed, dense = rows["rtn(bits=4) bfloat16"], rows["dense bfloat16"]
    assert packed["bytes_at_rest"] == packed["bytes_after_forwards"] < 0.5 * dense["bytes_at_rest"]
    assert packed["block_bytes"] < 0.27 * dense["block_bytes"]


def test_dtypes(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    run("dtypes.py", "--length", "8", "--tokens", "1", "--rounds", "1", "--out", str(out))
    data = json.loads(out.read_text())
    whole = data["whole_model"]
    assert data["ratios"]["prefill"] == whole["bfloat16"]["prefill"] / whole["float32"]["prefill"] > 0
    assert data["products"]["prompt_ratio"] > 0
