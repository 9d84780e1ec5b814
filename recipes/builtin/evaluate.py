"""Score a model folder on the retrieval tasks and on the held-out topics; prints JSON.

python recipes/builtin/evaluate.py --model FOLDER [--run DIR] [--count 200]
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from pith.tasks import generate
from pith.tasks.heldout import heldout_text

NEEDLE_LENGTHS = (256, 512, 1024, 2048, 4096)


@torch.no_grad()
def answered(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, example: generate.Example) -> bool:
    """Tell whether greedy decoding after context and question gives the answer, token for token."""
    prompt = tokenizer(example.context + example.question).input_ids
    answer = tokenizer(example.answer, add_special_tokens=False).input_ids
    # Greedy decoding meets the answer exactly when each of its tokens ranks first behind the true ones.
    ids = torch.tensor([prompt + answer])
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
    return model.lm_head(hidden).argmax(-1).tolist() == answer


def share(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, examples: Iterable[generate.Example]) -> float:
    """Share of the examples that are answered exactly."""
    results = [answered(model, tokenizer, example) for example in examples]
    return sum(results) / len(results)


def needles(tokenizer: PreTrainedTokenizerBase, length: int, count: int, keys: int) -> Iterable[generate.Example]:
    """Draw ``count`` needle examples of ``length`` tokens, depths spread evenly over 0..1."""
    rng, text = Random(length), heldout_text()

    def count_tokens(piece: str) -> int:
        return len(tokenizer(piece, verbose=False).input_ids)

    for index in range(count):
        depth = (index + 0.5) / count
        yield generate.needle(rng, text, count_tokens, length, depth, keys)


@torch.no_grad()
def losses(model: LlamaForCausalLM, ids: torch.Tensor, window: int) -> torch.Tensor:
    """Nats of each token of ``ids`` (tokens,) read in windows that all begin with the first special token."""
    bos = torch.tensor([model.config.bos_token_id])
    found = []
    for piece in ids.split(window - 1):
        hidden = model.model(input_ids=torch.cat([bos, piece])[None, :-1], use_cache=False).last_hidden_state
        found.append(functional.cross_entropy(model.lm_head(hidden[0]).float(), piece, reduction="none"))
    return torch.cat(found)


@torch.no_grad()
def windowed(model: LlamaForCausalLM, ids: torch.Tensor, window: int, first: int, skip: int = 256) -> float:
    """Mean nats of ``ids[skip:]`` (tokens,), when each token sees only the last ``window`` and the ``first`` ones."""
    position = torch.arange(len(ids))
    gap = position[:, None] - position[None, :]
    seen = (gap >= 0) & ((gap < window) | (position[None, :] < first))
    logits = model(input_ids=ids[None], attention_mask=seen[None, None], use_cache=False).logits[0]
    return functional.cross_entropy(logits[skip - 1 : -1].float(), ids[skip:]).item()


def unigram(run: Path, ids: torch.Tensor, vocabulary: int) -> float:
    """Mean nats of ``ids`` under add-one smoothed token frequencies of the training text."""
    counts = np.ones(vocabulary)
    with np.load(run / "tokens.npz") as pools:
        for name in pools.files:
            counts += np.bincount(pools[name], minlength=vocabulary)
    return float(-np.log(counts / counts.sum())[ids.numpy()].mean())


def tasks(rng: Random) -> dict[str, Callable[[], generate.Example]]:
    """Name the tasks without filler, as they are scored."""
    return {
        "lookup of 8 pairs": lambda: generate.lookup(rng, 8),
        "lookup of 32 pairs": lambda: generate.lookup(rng, 32),
        "variable tracking, 2 chains of 2": lambda: generate.variable_tracking(rng, 2, 2),
        "variable tracking, 4 chains of 4": lambda: generate.variable_tracking(rng, 4, 4),
        "copying of 12 words": lambda: generate.copying(rng, 12),
        "copying of 32 words": lambda: generate.copying(rng, 32),
    }


def main() -> None:
    """Read the command line, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder that Transformers loads")
    parser.add_argument("--run", type=Path, help="directory of the training run, for the unigram baseline")
    parser.add_argument("--count", type=int, default=200, help="examples of each retrieval score")
    parser.add_argument("--keys", type=int, default=4, help="facts among which the needle is asked")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    scores: dict[str, object] = {"count": options.count, "keys": options.keys}
    text = heldout_text()
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    nats = losses(model, ids, 2048).mean().item()
    scores["held-out perplexity"] = math.exp(nats)
    scores["held-out bits per byte"] = nats / math.log(2) * len(ids) / len(text.encode())
    if options.run:
        base = unigram(options.run, ids, len(tokenizer))
        scores["unigram perplexity"] = math.exp(base)
        scores["unigram bits per byte"] = base / math.log(2) * len(ids) / len(text.encode())
    print(json.dumps(scores, indent=1), flush=True)
    for name, draw in tasks(Random(7)).items():
        print(name, share(model, tokenizer, (draw() for _ in range(options.count))), flush=True)
    for length in NEEDLE_LENGTHS:
        examples = needles(tokenizer, length, options.count, options.keys)
        print(f"needle recall at {length}", share(model, tokenizer, examples), flush=True)
    long = torch.cat([torch.tensor([tokenizer.bos_token_id]), ids[:4000]])
    for window, first in ((len(long), 0), (256, 0), (252, 4)):
        nats = windowed(model, long, window, first)
        print(f"perplexity on 4000 tokens, window {window} and {first} first", math.exp(nats), flush=True)


if __name__ == "__main__":
    main()
