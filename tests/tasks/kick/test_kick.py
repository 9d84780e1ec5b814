"""The suite as a whole: a broken model scores no more than a guesser, and the built-in one much more."""

from __future__ import annotations

import torch
import transformers as hf

from pith.models import Subject, builtin
from pith.tasks import parse_tasks
from pith.tasks.registry import SUITES


def test_the_suite_is_its_five_tasks() -> None:
    assert [task.name for task in parse_tasks("kick(count=10)")] == list(SUITES["kick"])


def test_a_broken_model_scores_chance() -> None:
    model, tokenizer = builtin()
    torch.manual_seed(0)
    broken = hf.LlamaForCausalLM(model.config).eval()
    for task in parse_tasks("kick(count=12)"):
        if task.name == "kick_generation":
            [task] = parse_tasks("kick_generation(count=3, words=12)")
        chance = task.calibrate(tokenizer).chance
        found = task.run(Subject(broken, tokenizer), batch_size=12)
        assert found.low <= chance, task.name


def test_a_model_that_says_nothing_scores_nothing() -> None:
    model, tokenizer = builtin()
    silent = hf.LlamaForCausalLM(model.config).eval()
    with torch.no_grad():  # whatever it reads, the next token ends the sequence
        silent.lm_head.weight = torch.nn.Parameter(torch.zeros_like(silent.lm_head.weight))
        silent.model.norm.weight.zero_()
    silent.generation_config.eos_token_id = 0  # of equal logits the first is taken
    for task in parse_tasks("kick_factoid(count=10),kick_reasoning(count=3),kick_generation(count=2, words=8)"):
        assert task.run(Subject(silent, tokenizer)).value == 0, task.name
