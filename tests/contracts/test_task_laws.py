"""Laws of all tasks: with any tokenizer and any parameters there is a possible score, or one line that says why not."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from contracts.odd_tokenizers import ODD
from pith.core import PithError
from pith.models import Subject
from pith.tasks import Quality, Task, tasks
from pith.tasks.registry import SUITES
from pith.tasks.text import beginning

TASKS = [name for name in tasks() if name != "lm_eval"]  # which needs the harness, and has tests of its own
SMALL = {"length": 224, "count": 2, "scored": 4, "max_new_tokens": 4, "shots": 1, "lists": 3, "words": 4, "labels": 2,
         "common": 2, "often": 4, "depth": 0.5}  # fmt: skip
PAIRS = [
    (name, odd)
    for i, name in enumerate(TASKS)
    for j, odd in enumerate(ODD)
    if (i + j) % len(ODD) in ((0,) if name in SUITES["ruler"] else (0, 3, 7))
]


@cache
def model() -> Any:
    torch.manual_seed(0)
    settings = LlamaConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=6144, max_position_embeddings=512, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(settings).eval()


tokenizer = cache(lambda name: ODD[name]())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    text, problems = folder / "text.txt", folder / "problems.jsonl"
    text.write_text("the rain is a rain. </s> Recall: the rain is\n" * 100)
    line = json.dumps({"question": "a is 1. </s> the 2?", "answer": "is 3. #### 3"})
    problems.write_text("\n".join([line] * 6))
    return {"text": str(text), "path": str(problems)}


def build(name: str, **given: Any) -> Task:
    kind = tasks()[name]
    known = {parameter.name for parameter in kind.parameters()}
    return kind.build(**{key: value for key, value in given.items() if key in known})


def outcome(name: str, tokenizer: Any, given: dict[str, Any]) -> Quality | str:
    """The score, after it is looked at; or the line that says why there is none."""
    try:
        task = build(name, **given)
        found, ends = task.run(Subject(model(), tokenizer)), task.calibrate(tokenizer)
    except PithError as error:
        found = str(error)
    if isinstance(found, str):
        assert "\n" not in found
        assert len(found) < 300
        assert name in found or "tokeniz" in found.lower()
        return found
    assert len(found.scores) == found.n
    assert all(map(math.isfinite, (*found.scores, found.value)))
    assert found.low <= found.value <= found.high
    if task.higher_is_better:
        assert all(0 <= score <= 1 for score in found.scores)
        assert ends.oracle == 1
    return found


@pytest.mark.parametrize(("name", "odd"), PAIRS)
def test_any_tokenizer(name: str, odd: str, files: dict[str, str]) -> None:
    given = tokenizer(odd)
    found = outcome(name, given, {**SMALL, **files})
    task, begin, end = build(name, **SMALL, **files), beginning(given), given.eos_token_id
    if isinstance(found, str):
        assert "too short" in found or "tokens" in found
        return
    for prompt in task.prompts(given) if hasattr(task, "prompts") else []:
        assert (*prompt.context, *prompt.question)[: len(begin)] == begin
        assert end is None or end not in (*prompt.context, *prompt.question)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("given", [{"length": 1}, {"length": 2}, {"length": 10**15}, {"count": 1, "seed": 2**70}])
def test_any_parameters(name: str, given: dict[str, int], files: dict[str, str]) -> None:
    found = outcome(name, tokenizer("appends"), {**SMALL, **files, **given})
    if isinstance(found, str):
        assert any(word in found for word in given), found
    else:
        assert found.n >= 1
