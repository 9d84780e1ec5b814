"""Bytes and speed of smaller weights, against dense Transformers in float32 and in bfloat16.

A randomly initialised Llama with four blocks of Llama-3.2-1B's shape (hidden 2048, 32 query and 8 key-value heads of
64, MLP 8192; 4096 words, tied), or the built-in model, is compressed; then all subjects take turns in one process: each
reads a prompt and decodes. Medians, and medians of the ratios to the two dense models of the same round, are written as
JSON.

    python benchmarks/weights.py --out benchmarks/results/weights_2048.json
    python benchmarks/weights.py --model builtin --out benchmarks/results/weights_builtin.json
    python benchmarks/weights.py --recipe "gptq(bits=3)" --dtypes bfloat16

With --llama-cpp the same weights are written as GGUF in q8_0 and q4_0, and llama-cpp-python (with gguf; neither is
needed for anything else) takes its turns too; with --gguf so does Transformers on GGUF weights that stay packed, where
it can.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gguf_peer import packed_models
from llama_cpp_peer import peers
from pith.core import PithWarning, Recipe
from pith.measure import weight_bytes
from pith.measure.environment import environment
from pith.models import builtin
from pith.weights import Calibration, calibration, compress, stand_ins
from pith.weights.packed import PackedLinear

RECIPES = ("rtn(bits=8)", "rtn(bits=4)", "rtn(bits=3)", "rtn(bits=2)")
STRUCTURED = (
    "inheritune(keep=0.5)",
    "sleb(drop=1)",
    "magnitude_channels(sparsity=0.25)",
    "magnitude_channels(sparsity=0.5)",
)
DENSE = ("float32", "bfloat16")
Runner = Callable[[torch.Tensor, int], dict[str, float]]


def shape() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def run(model: Any, prompt: torch.Tensor, decoded: int) -> dict[str, float]:
    """Seconds of the prompt and of each decoded token."""
    begin = time.perf_counter()
    found = model(prompt, use_cache=True, logits_to_keep=1)
    read = time.perf_counter()
    steps = []
    for _ in range(decoded):
        before = time.perf_counter()
        token = found.logits[:, -1:].argmax(-1)
        found = model(token, past_key_values=found.past_key_values, use_cache=True)
        steps.append(time.perf_counter() - before)
    return {"prefill_seconds": read - begin, "decode_seconds": statistics.median(steps)}


def of_blocks(model: Any) -> tuple[int, int]:
    """Numbers in the blocks' weights, those of packed layers as many as they stand for; and the bytes they take."""
    blocks = model.model.layers
    packed = [layer for layer in stand_ins(blocks).values() if isinstance(layer, PackedLinear)]
    coded = sum(buffer.numel() for layer in packed for buffer in layer.buffers())
    others = sum(tensor.numel() for tensor in (*blocks.parameters(), *blocks.buffers())) - coded
    return others + sum(layer.in_features * layer.out_features for layer in packed), weight_bytes(blocks)


def subjects(
    model: Any, recipes: list[str], dtypes: list[str], texts: Calibration
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """The models by name, with their bytes before any forward."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for dtype in dict.fromkeys([*DENSE, *dtypes]):
        dense = model.to(getattr(torch, dtype))
        dense = type(model)(model.config).to(dense.dtype).eval()
        dense.load_state_dict(model.state_dict())
        if dtype in DENSE:
            found[f"dense {dtype}"] = (dense, {})
        for recipe in recipes if dtype in dtypes else ():
            found[f"{recipe} {dtype}"] = (compress(dense, Recipe.parse(recipe), texts), {})
            print(f"made {recipe} in {dtype}", flush=True)
    whole = of_blocks(found["dense bfloat16"][0])[0]
    for one, said in found.values():
        numbers, held = of_blocks(one)
        said |= {"bytes_at_rest": weight_bytes(one), "block_bytes": held, "block_numbers_share": numbers / whole}
    return found


def measure(runners: dict[str, Runner], prompt: torch.Tensor, rounds: int, decoded: int) -> list[dict[str, Any]]:
    """Medians of each subject, and medians of its ratios to the dense runs of the same round."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in runners}
    for index in range(rounds + 1):  # the first round warms up
        for name in runners if index % 2 else reversed(runners):
            got = runners[name](prompt, decoded)
            if index:
                runs[name].append(got)
        print(f"round {index} of {rounds}", flush=True)
    rows = []
    for name, mine in runs.items():
        row: dict[str, Any] = {"subject": name}
        for key in mine[0]:
            row[key] = statistics.median(one[key] for one in mine)
            for dense in DENSE:
                ratios = [one[key] / other[key] for one, other in zip(mine, runs[f"dense {dense}"], strict=True)]
                row[f"{key.removesuffix('_seconds')}_to_{dense}"] = statistics.median(ratios)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("random", "builtin"), default="random", help="random is the Llama shape")
    parser.add_argument("--recipe", action="append", help="a recipe; may be given several times")
    parser.add_argument("--dtypes", default="bfloat16", help="in which the recipes run, such as float32,bfloat16")
    parser.add_argument("--length", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--decoded", type=int, default=16, help="decoded tokens in each run")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds that count")
    parser.add_argument("--llama-cpp", action="store_true", help="time llama-cpp-python on the same weights too")
    parser.add_argument("--gguf", action="store_true", help="time Transformers on packed GGUF weights too")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    warnings.simplefilter("ignore", PithWarning)
    tokenizer = builtin()[1]
    model = shape() if args.model == "random" else builtin()[0]
    texts = calibration(tokenizer, sequences=8, length=256)
    found = subjects(model, args.recipe or [*RECIPES, *STRUCTURED], args.dtypes.split(","), texts)
    prompt = torch.randint(3, 4096, (1, args.length), generator=torch.Generator().manual_seed(0))
    runners: dict[str, Runner] = {
        name: lambda prompt, decoded, one=one: run(one, prompt, decoded) for name, (one, _) in found.items()
    }
    absent: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        if args.llama_cpp:
            runners |= peers(found["dense float32"][0], Path(folder))
        if args.gguf:
            packed, absent = packed_models(found["dense float32"][0], Path(folder))
            runners |= {
                name: lambda prompt, decoded, one=one: run(one, prompt, decoded) for name, one in packed.items()
            }
        rows = measure(runners, prompt, args.rounds, args.decoded)
    for row in rows:
        if row["subject"] in found:
            one, said = found[row["subject"]]
            row |= said | {"bytes_after_forwards": weight_bytes(one)}
    dense = {row["subject"]: row for row in rows}["dense bfloat16"]
    print(f"\n{'':46} bytes/bf16  of blocks  decode ms  x bf16  x f32   prefill x bf16")
    for row in rows:
        shares = [row.get(key, 0) / dense[key] for key in ("bytes_after_forwards", "block_bytes")]
        print(
            f"{row['subject']:46} {shares[0]:9.3f} {shares[1]:10.3f} {row['decode_seconds'] * 1e3:10.2f} "
            f"{row['decode_to_bfloat16']:7.2f} {row['decode_to_float32']:6.2f} {row['prefill_to_bfloat16']:11.2f}"
        )
    for name, reason in absent.items():
        print(f"{name} is not timed: {reason}")
    if args.out:
        settings = {"length": args.length, "decoded": args.decoded, "rounds": args.rounds}
        command = f"python {shlex.join(sys.argv)}"
        said = {"command": command, "environment": environment(model, settings), "rows": rows}
        said |= {"absent": absent} if absent else {}
        args.out.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
