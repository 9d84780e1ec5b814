"""The resident peak of a process in which one recipe reads a prompt and goes on from it; run as a program.

    python -m pith.measure.peak builtin --recipe "snapkv(budget=0.25)" --length 1024

It prints JSON. What counts is the time from when the model is loaded and was called once, so that neither loading,
which may hold a checkpoint twice, nor what is imported at the first call is taken for the recipe's.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from pathlib import Path

import torch

from pith.core import PithError, Recipe
from pith.measure.seconds import DECODED, run_once, timed_prompt
from pith.models import Subject, load

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Runs it once; a mistake is one line on stderr, and code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of pith models, a folder, a GGUF file, or a hub id")
    parser.add_argument("--recipe", default="dense", help="a recipe's text")
    parser.add_argument("--length", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the prompt")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 leaves it the choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        found = taken(args.model, Recipe.parse(args.recipe), args.length, args.seed, args.dtype)
    except PithError as error:
        sys.exit(_mistake(str(error)))
    print(json.dumps(found))


def taken(name: str, recipe: Recipe, length: int, seed: int, dtype: str) -> dict[str, int | bool]:
    """The peak in bytes, and whether it leaves out what came before the prompt.

    Raises:
        ModelError: the model cannot be loaded, or a method cannot take it.
    """
    loaded = load(name, dtype, "cpu")
    subject = Subject(loaded.model, loaded.tokenizer, recipe if len(recipe) else None)
    prompt = timed_prompt(loaded.tokenizer, length, seed)
    run_once(subject, prompt[:, :8], tokens=1)
    fresh = _reset()
    run_once(subject, prompt, DECODED)
    return {"peak": resident_peak(), "fresh": fresh}


def resident_peak() -> int:
    """The most bytes of main memory that this process ever held."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _reset() -> bool:
    """Lets the peak begin anew at what is held now; False where the system cannot."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _mistake(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
