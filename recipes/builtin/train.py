"""Train the built-in model from nothing but this interpreter's standard library; one command, resumable.

    python recipes/builtin/train.py --out DIR [--tokens N] [--threads N]

Everything it makes lies in DIR: tokenizer, encoded corpus, ``checkpoint.pt`` (written atomically every
two minutes), ``log.jsonl`` and at the end ``model/``. The same command resumes from the checkpoint.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from corpus import load_corpus
from data import TEXT, Sequences, stretched
from export import build_model, export
from start import look_back
from tokenizer import train_tokenizer
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoTokenizer, LlamaForCausalLM

DENSE_LENGTHS = (96, 192, 384)
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
MASTERED = 0.95


@dataclass
class Progress:
    """What a run has done; it is saved in every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    level: int = 0
    recall: dict[str, float] = field(default_factory=dict)
    mastery: dict[str, float] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    def note(self, table: dict[str, float], key: str, value: float, keep: float = 0.95) -> None:
        """Fold a new value into a running mean."""
        table[key] = keep * table.get(key, value) + (1 - keep) * value


def prepare(out: Path) -> Sequences:
    """Read or make the tokenizer and the encoded corpus in ``out``."""
    if not (out / "tokens.npz").exists():
        corpus = load_corpus()
        tokenizer = train_tokenizer(corpus)
        tokenizer.save_pretrained(out / "tokenizer")
        pools = {}
        for name, texts in corpus.items():
            Random(0).shuffle(texts)
            rows = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
            pools[name] = np.concatenate([np.array(row, dtype=np.uint16) for row in rows])
        with open(out / "tokens.tmp", "wb") as file:
            np.savez(file, **pools)
        os.replace(out / "tokens.tmp", out / "tokens.npz")
    pools = dict(np.load(out / "tokens.npz"))
    return Sequences(AutoTokenizer.from_pretrained(out / "tokenizer"), pools)


def choose(rng: Random, progress: Progress, tokens: int) -> tuple[str, int, int]:
    """Pick kind, rows and length of the next batch from what is mastered so far."""
    if rng.random() < (0.25 if progress.level else 0.5):
        length = rng.choice(DENSE_LENGTHS[: progress.level + 1])
        return "dense", max(1, tokens * 3 // 4 // length), length
    level = progress.level
    present = 0.6 if level + 1 < len(LENGTHS) else 0.25  # the longest costs most, and needs least
    if level and rng.random() >= present:
        level = rng.randrange(level)
    return "hidden", max(1, tokens // LENGTHS[level]), LENGTHS[level]


def loss_of(
    model: LlamaForCausalLM, ids: torch.Tensor, roles: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean loss over text plus twice the mean loss over answers, for ids, roles and positions (rows, length).

    Returns:
        The loss to descend, and the statistics ``text``, ``answer`` (nats) and ``recall`` (share of
        answers whose every token ranks first).
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The mask of ones says that a gap in the positions does not begin another sequence.
        hidden = model.model(
            input_ids=ids[:, :-1],
            position_ids=positions[:, :-1],
            attention_mask=torch.ones_like(ids[:, :-1]),
            use_cache=False,
        ).last_hidden_state
        role = roles[:, 1:]
        chosen = role >= TEXT
        logits = functional.linear(hidden[chosen], model.lm_head.weight)
    role, target = role[chosen], ids[:, 1:][chosen]
    losses = functional.cross_entropy(logits.float(), target, reduction="none")
    is_answer = role >= 0
    total, parts = losses.new_zeros(()), {}
    for name, mask, weight in (("text", ~is_answer, 1.0), ("answer", is_answer, 2.0)):
        if mask.any():
            mean = losses[mask].mean()
            total, parts[name] = total + weight * mean, mean.item()
    if is_answer.any():
        right = (logits[is_answer].argmax(-1) == target[is_answer]).float()
        whole = torch.ones(int(role.max()) + 1).scatter_reduce(0, role[is_answer], right, "amin")
        parts["recall"] = whole[role[is_answer].unique()].mean().item()
    return total, parts


def rate(tokens: int, budget: int, decay: float, step: int) -> float:
    """Warm-up, stable, decay: the factor of the learning rate."""
    left = (budget - tokens) / (decay * budget)
    return min(1.0, (step + 1) / 200, max(left, 0.0))


@torch.no_grad()
def lengthen(model: LlamaForCausalLM, sequences: Sequences, progress: Progress, tokens: int = 8192) -> None:
    """Go on to the next length once the averaged weights master the present one in fresh sequences."""
    length = LENGTHS[progress.level]
    rows = max(1, tokens // length)
    ids, roles = sequences.batch(Random(-progress.step), "hidden", rows, length)
    _, parts = loss_of(model, ids, roles, torch.arange(length).repeat(rows, 1))
    progress.mastery[str(length)] = parts["recall"]
    if parts["recall"] >= MASTERED and progress.level + 1 < len(LENGTHS):
        progress.level += 1


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the gains of the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon([{"params": matrices}], weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw")
    embedding = {"params": [model.model.embed_tokens.weight], "weight_decay": 0.01}
    adam = torch.optim.AdamW([embedding, {"params": gains, "weight_decay": 0.0}], betas=(0.9, 0.98), fused=True)
    return [muon, adam]


class Run:
    """One training run in a directory: model, averaged model, optimizers, random state and progress."""

    def __init__(self, out: Path, peak: float) -> None:
        torch.manual_seed(0)
        self.out, self.peak = out, peak
        self.sequences, self.rng, self.progress = prepare(out), Random(1), Progress()
        self.model = build_model()
        look_back(self.model)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.995))
        self.optimizers = build_optimizers(self.model)
        if (out / "checkpoint.pt").exists():
            state = torch.load(out / "checkpoint.pt", weights_only=False)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for optimizer, past in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(past)
            self.rng.setstate(state["rng"])
            self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Write the checkpoint so that a killed run leaves either the old or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rng": self.rng.getstate(),
            "progress": asdict(self.progress),
        }
        torch.save(state, self.out / "checkpoint.tmp")
        os.replace(self.out / "checkpoint.tmp", self.out / "checkpoint.pt")

    def step(self, batch_tokens: int, factor: float) -> None:
        """Take one optimizer step of about ``batch_tokens`` tokens, with the learning rate times ``factor``."""
        progress = self.progress
        kind, rows, length = choose(self.rng, progress, batch_tokens)
        ids, roles = self.sequences.batch(self.rng, kind, rows, length)
        loss, parts = loss_of(self.model, ids, roles, stretched(self.rng, rows, length))
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {progress.step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.peak * factor
            optimizer.step()
            optimizer.zero_grad()
        self.average.update_parameters(self.model)
        progress.step += 1
        progress.tokens += ids.numel()
        name = kind if kind == "dense" else f"{kind}{length}"
        progress.kinds[name] = progress.kinds.get(name, 0) + ids.numel()
        for part, value in parts.items():
            table = progress.recall if part == "recall" else progress.loss
            progress.note(table, name if part == "recall" else part, value)

    def train(self, budget: int, batch_tokens: int, decay: float) -> None:
        """Train until ``budget`` tokens were read, then export the model to ``out / "model"``."""
        progress = self.progress
        begun, saved, before = time.monotonic(), time.monotonic(), progress.seconds
        while progress.tokens < budget:
            self.step(batch_tokens, rate(progress.tokens, budget, decay, progress.step))
            progress.seconds = before + time.monotonic() - begun
            if progress.step % 50 == 0:
                lengthen(self.average.module, self.sequences, progress)
                with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
                    print(json.dumps(asdict(progress)), file=log)
            if time.monotonic() - saved > 120 or progress.tokens >= budget:
                saved = time.monotonic()
                self.save()
        export(self.out, self.out / "model")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of everything the run makes")
    parser.add_argument("--tokens", type=int, default=8_000_000, help="tokens to train on in all")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens of a batch, about")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.25, help="last share of the tokens, with falling rate")
    parser.add_argument("--threads", type=int, default=2, help="threads of the matrix products")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    Run(options.out, options.rate).train(options.tokens, options.batch_tokens, options.decay)


if __name__ == "__main__":
    main()
