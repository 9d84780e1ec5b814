"""Find the gates of DuoAttention for a model that reads the tasks' language, such as the built-in one.

python recipes/duo_attention/fit.py --model builtin --out src/pith/models/builtin/duo_attention.safetensors
"""

import argparse
import os
import re
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from pith.cache.duo_attention import DuoAttention, read_gates, retrieval_heads
from pith.models import load
from pith.tasks import generate

FACT = re.compile(r" ([a-z]+) is (\d{4})\.")
KEYS = 10


def haystack() -> str:
    """Modules of Python's standard library: text that no task measures on."""
    folder = Path(os.__file__).parent
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))


def example(tokenizer: Any, text: str, rng: Random, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A text with facts at random places, all of them asked and answered at its end, which is labelled."""

    def count_tokens(piece: str) -> int:
        return len(tokenizer(piece, verbose=False).input_ids)

    context = generate.needle(rng, text, count_tokens, length, rng.random(), KEYS).context
    facts = FACT.findall(context)
    rng.shuffle(facts)
    asked = "".join(f"{generate.recall(key)} {value}" for key, value in facts)
    before = tokenizer(context, verbose=False).input_ids
    behind = tokenizer(asked, add_special_tokens=False, verbose=False).input_ids
    tokens = torch.tensor([before + behind])
    labelled = torch.zeros_like(tokens, dtype=torch.bool)
    labelled[:, len(before) :] = True
    return tokens, labelled


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--out", default="duo_attention.safetensors")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--shortest", type=int, default=512, help="tokens of the shortest texts")
    parser.add_argument("--longest", type=int, default=1536, help="tokens of the longest texts")
    parser.add_argument("--sink-size", type=int, default=64)
    parser.add_argument("--recent-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loaded, rng, text = load(options.model, dtype="float32"), Random(options.seed), haystack()
    lengths = [rng.randint(options.shortest, options.longest) for _ in range(options.steps)]
    data = [example(loaded.tokenizer, text, rng, length) for length in lengths]
    method = DuoAttention(sink_size=options.sink_size, recent_size=options.recent_size)
    start = time.monotonic()
    method = method.fit(loaded.model, data, options.out)
    gates = read_gates(method.gates)
    print(f"{options.steps} steps in {time.monotonic() - start:.0f} seconds; gates, a line for each layer:")
    for alphas, full in zip(gates, retrieval_heads(gates, method.sparsity), strict=True):
        print("  ".join(f"{alpha:.2f}{'*' if kept else ' '}" for alpha, kept in zip(alphas, full, strict=True)))


if __name__ == "__main__":
    main()
