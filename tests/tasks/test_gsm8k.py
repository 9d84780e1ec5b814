"""GSM8K: which number counts, what is read, and files that will not do."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from pith.core import InputError, Recipe
from pith.models import Subject, builtin
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.gsm8k import GSM8K, number_of

ANSWERS = [3, 12, 7, 12, 1500, 40, 3, 3, 9, 100]
REAL = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_train.jsonl"

loaded = cache(builtin)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of ten problems, of unequal lengths."""
    found = tmp_path / "problems.jsonl"
    rows = [
        {
            "question": f"Anna has {i} apples{', many of them red' * i}. How many?",
            "answer": f"So {i} it is.\n#### {n:,}",
        }
        for i, n in enumerate(ANSWERS)
    ]
    found.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(found)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("#### 42", "42"),
        ("It is 6 * 7 = 42.\n#### 42", "42"),
        ("####42", "42"),
        ("#### 42.", "42"),
        ("#### $42", "42"),
        ("#### $1,234.50.", "1234.50"),
        ("#### 57,500 dollars", "57500"),
        ("#### 1,000,000", "1000000"),
        ("#### -3", "-3"),
        ("#### -$3", "-3"),
        ("#### $-3", "-3"),
        ("#### 70%", "70"),
        ("#### .5", ".5"),
        ("#### 42 and then 7", "42"),
        ("#### 42\n\n#### 43", "42"),
        ("So she has 12 apples, and he has 1,500.", "1500"),
        ("The answer is $18.", "18"),
        ("He runs 5-3 = 2 miles", "2"),
        ("from 10-20", "20"),
        ("a loss of -7", "-7"),
        ("3, 4 or 5,6", "6"),
        ("#### none, but 8", "8"),
        ("no number at all", None),
        ("", None),
    ],
)
def test_the_number_that_counts(reply: str, number: str | None) -> None:
    assert number_of(reply) == number


@pytest.mark.parametrize(("reply", "number"), [("The answer is 42", None), ("so 41\n#### 42", "42"), ("####", None)])
def test_strictly_only_the_marked_number_counts(reply: str, number: str | None) -> None:
    assert number_of(reply, flexible=False) == number


def test_problems_are_drawn_by_the_seed_and_never_twice(path: str) -> None:
    task = GSM8K(path=path, shots=3, count=5)
    examples, problems = task.problems()
    assert len(set(examples + problems)) == 8
    assert task.problems() == (examples, problems)
    assert replace(task, count=2).problems() == (examples, problems[:2])
    assert replace(task, seed=1).problems() != (examples, problems)
    assert [p.number for p in replace(task, shots=0, count=10).problems()[1]] != [str(n) for n in ANSWERS]


def test_what_is_read(path: str) -> None:
    tokenizer = loaded()[1]
    task = GSM8K(path=path, shots=2, count=3)
    (first, second), (asked, *_) = task.problems()
    prompt = task.prompts(tokenizer)[0]
    assert tokenizer.decode(prompt.context + prompt.question, skip_special_tokens=True) == (
        f"Question: {first.question}\nAnswer: {first.answer}\n\n"
        f"Question: {second.question}\nAnswer: {second.answer}\n\n"
        f"Question: {asked.question}\nAnswer:"
    )
    alone = replace(task, shots=0).prompts(tokenizer)
    assert all(tokenizer.decode(p.context + p.question).count("Question:") == 1 for p in alone)


class Student:
    """Stands in for a model: it knows the answers of a file, says them as it is told to, and goes on asking."""

    def __init__(self, tokenizer: Any, path: str, wording: str) -> None:
        self.tokenizer, self.wording = tokenizer, wording
        self.config, self.device = LlamaConfig(max_position_embeddings=4096), torch.device("cpu")
        rows = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
        self.known = {row["question"]: row["answer"].partition("#### ")[2] for row in rows}

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        replies = []
        for row in input_ids:
            text = self.tokenizer.decode(row, skip_special_tokens=True)
            question = re.findall(r"Question: (.*)\nAnswer:", text)[-1]
            reply = self.wording.format(self.known[question]) + "\n\nQuestion: What is 1 + 1?\nAnswer: #### 2"
            replies.append(self.tokenizer(reply, add_special_tokens=False).input_ids)
        longest = max(map(len, replies))
        padded = [reply + [self.tokenizer.pad_token_id] * (longest - len(reply)) for reply in replies]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)


@pytest.mark.parametrize(
    ("wording", "flexible", "expected"),
    [
        (" Well.\n#### {}", True, 1.0),
        (" Well.\n#### {}", False, 1.0),
        (" It is ${}.", True, 1.0),
        (" It is ${}.", False, 0.0),
        (" It is {} or 99.", True, 0.0),
    ],
)
def test_who_knows_the_answers_is_right(path: str, wording: str, flexible: bool, expected: float) -> None:
    tokenizer = loaded()[1]
    told: list[tuple[int, int]] = []
    task = GSM8K(path=path, shots=2, count=5, flexible=flexible)
    student = Subject(Student(tokenizer, path, wording), tokenizer)
    found = task.run(student, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert (found.value, found.n, found.scores) == (expected, 5, (expected,) * 5)
    assert found.low < 1.0
    assert found.high > 0.0
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("recipe", [None, "snapkv(budget=0.5, window=8)"])
def test_replies_do_not_depend_on_the_batch_size(path: str, recipe: str | None) -> None:
    model, tokenizer = loaded()
    prompts = GSM8K(path=path, shots=1, count=6, max_new_tokens=12).prompts(tokenizer)
    assert len({len(p.context + p.question) for p in prompts}) > 3, "rows of unequal length"
    with Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe)).applied():
        whole, alone = (greedy(model, tokenizer, prompts, batch_size=size) for size in (6, 1))
    assert whole == alone
    assert any(whole)


def test_an_answer_ends_where_it_stops_and_is_not_decoded_further() -> None:
    model, tokenizer = loaded()
    tokens = tuple(tokenizer("def add(a, b):\n    return a").input_ids)
    [free] = greedy(model, tokenizer, [Prompt((), tokens, 24)])
    stop = free[len(free) // 2 :][:3]
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    [stopped] = greedy(model, tokenizer, [Prompt((), tokens, 24, (stop,))])
    handle.remove()
    assert stopped == free.partition(stop)[0]
    assert len(calls) < 24


def test_the_built_in_model_runs_it(path: str) -> None:
    found = GSM8K(path=path, shots=2, count=4, max_new_tokens=8).run(Subject(*loaded()))
    assert found.n == 4
    assert set(found.scores) <= {0.0, 1.0}


def test_calibration_is_the_rule_itself_and_another_rows_answer(path: str) -> None:
    task = GSM8K(path=path, shots=1, count=6)
    numbers = [problem.number for problem in task.problems()[1]]
    every = Counter(str(n) for n in ANSWERS)
    found = task.calibrate(None)
    assert found.oracle == 1.0
    assert found.chance == pytest.approx(sum((every[n] - 1) / 9 for n in numbers) / 6)


def test_a_chat_template_is_needed_and_used(path: str) -> None:
    model, tokenizer = builtin()
    task = GSM8K(path=path, shots=1, count=2, chat=True, max_new_tokens=4)
    with pytest.raises(InputError, match="no chat template"):
        task.run(Subject(model, tokenizer))
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    [prompt, _] = task.prompts(tokenizer)
    text = tokenizer.decode(prompt.context + prompt.question)
    assert text.strip().startswith("[user]Question: ")
    assert text.count("\nAnswer:[assistant]") == text.count("[user]") == 2, "a worked example is a turn of its own"
    assert text.endswith("\nAnswer:[assistant]")
    assert task.run(Subject(model, tokenizer)).n == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b'{"question": "a", "answer": "#### 1"}\nno json', r"line 2 of .* is no JSON"),
        (b'{"question": "a", "answer": "#### 1"}\n\n{"question": "a"}', r"line 3 of .* has no text 'answer'"),
        (b'{"answer": "#### 1"}', r"line 1 of .* has no text 'question'"),
        (b"[1, 2]", r"line 1 of .* has no text 'question'"),
        (b'{"question": "a", "answer": "it is 1"}', r"line 1 of .* has no number after '####'"),
        (b'{"question": "a", "answer": "#### 1"}', r"has 1 problems, too few for shots=8 and count=100"),
        (b"", r"has 0 problems, too few .* allowed is fewer shots"),
    ],
)
def test_files_that_will_not_do(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "file.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        GSM8K(path=str(path)).calibrate(None)
    assert "\n" not in str(caught.value)


def test_a_file_must_be_named_and_prompts_must_fit(path: str) -> None:
    with pytest.raises(InputError, match="gsm8k: path=None is not allowed; allowed is a JSON Lines file"):
        GSM8K().problems()
    with pytest.raises(InputError, match=r"gsm8k: shots=2 with max_new_tokens=4096 takes .* at most 4096"):
        GSM8K(path=path, shots=2, count=2, max_new_tokens=4096).run(Subject(*loaded()))


@pytest.mark.skipif(not REAL.exists(), reason="the training questions of GSM8K are not beside the checkout")
def test_the_authors_file() -> None:
    task = GSM8K(path=str(REAL), shots=2, count=2, max_new_tokens=8)
    found = task.calibrate(None)
    assert found.oracle == 1.0
    assert found.chance is not None
    assert 0.0 < found.chance < 0.1
    assert task.run(Subject(*loaded())).n == 2
