"""Prompts in a chat template are, token by token, those that lm-evaluation-harness makes for a Transformers model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pith.core import InputError, PithWarning
from pith.models import builtin
from pith.tasks import harness
from pith.tasks.gsm8k import GSM8K
from pith.tasks.harness_model import harness_model
from pith.tasks.lm_eval import LmEval

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
PROBLEMS = [{"question": f"{n} and {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(2, 9)]

Asked = list[tuple[Any, ...]]


def with_template(template: str) -> tuple[Any, Any]:
    model, tokenizer = builtin()
    tokenizer.chat_template = template
    return model, tokenizer


def written(folder: Path, name: str, *lines: str) -> None:
    """Write a task whose worked examples are the first problems, and whose questions are the others."""
    files = {"train": PROBLEMS[:2], "test": PROBLEMS[2:]}
    for split, rows in files.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    paths = ", ".join(f"{split}: {folder}/{split}.jsonl" for split in files)
    where = f"{{data_files: {{{paths}}}, cache_dir: {folder.parent}/cache}}"
    head = [
        f"task: {name}", "dataset_path: json", f"dataset_kwargs: {where}",
        "test_split: test", "fewshot_split: train", "fewshot_config: {sampler: first_n}",
        'doc_to_text: "Question: {{question}}\\nAnswer:"',
    ]  # fmt: skip
    (folder / f"{name}.yaml").write_text("\n".join([*head, *lines]), encoding="utf-8")


def asked(reader: Any, folder: Path, name: str, fewshot: int) -> Asked:
    """What a reader is asked, as tokens: contexts and answers, or prompts of what is to be generated."""
    found: Asked = []

    def likely(requests: Any, **_: Any) -> list[tuple[float, bool]]:
        found.extend((tuple(context), tuple(answer)) for _, context, answer in requests)
        return [(0.0, True)] * len(requests)

    def generated(requests: Any, **_: Any) -> list[str]:
        found.extend((tuple(reader.tok_encode(request.args[0])),) for request in requests)
        return [""] * len(requests)

    reader._loglikelihood_tokens, reader.generate_until = likely, generated
    loaded = harness.load(name, str(folder), fewshot)
    harness.examples_of(loaded, reader, None, 3, 0, chat=True)
    return found


CHOICE = ("output_type: multiple_choice", "doc_to_choice: ['4', '5']", "doc_to_target: 0")
ANSWER = ("output_type: loglikelihood", 'doc_to_target: "{{answer}}"')
GENERATE = ("output_type: generate_until", 'doc_to_target: "{{answer}}"', 'generation_kwargs: {until: ["Question:"]}')


@pytest.mark.parametrize(
    ("lines", "fewshot"),
    [
        (CHOICE, 0),
        (CHOICE, 2),
        (ANSWER, 1),
        (GENERATE, 2),
        ((*GENERATE, "description: Answer the questions."), 1),
        ((*GENERATE, "gen_prefix: 'It is'"), 1),
    ],
)
def test_a_chat_is_asked_as_the_harness_asks_it(plain: Any, tmp_path: Path, lines: Any, fewshot: int) -> None:
    model, tokenizer = with_template(TEMPLATE)
    written(tmp_path, "facts", *lines)
    theirs = plain(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal")
    mine = harness_model(model, tokenizer, 4, 1, None)
    expected = asked(theirs, tmp_path, "facts", fewshot)
    assert asked(mine, tmp_path, "facts", fewshot) == expected
    assert len(expected) >= 3


def test_a_template_without_a_system_message_gets_none_as_in_the_harness(plain: Any, tmp_path: Path) -> None:
    model, tokenizer = with_template(NO_SYSTEM)
    written(tmp_path, "facts", *GENERATE, "description: Answer the questions.")
    theirs = plain(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal")
    expected = asked(theirs, tmp_path, "facts", 1)
    mine = harness_model(model, tokenizer, 4, 1, None)
    with pytest.warns(PithWarning, match="the chat template takes no system message"):
        assert asked(mine, tmp_path, "facts", 1) == expected
    tokenizer.chat_template = "{{ raise_exception('nothing at all') }}"
    with pytest.raises(InputError, match="cannot write this chat: nothing at all"):
        mine.apply_chat_template([{"role": "user", "content": "hi"}])


def test_gsm8k_asks_in_a_chat_as_the_harness_does(plain: Any, tmp_path: Path) -> None:
    model, tokenizer = with_template(TEMPLATE)
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(map(json.dumps, PROBLEMS)), encoding="utf-8")
    task = GSM8K(path=str(path), shots=2, count=3, chat=True)
    examples, questions = task.problems()
    rows = [{"question": one.question, "answer": one.answer} for one in (*examples, *questions)]
    written(tmp_path, "school", *GENERATE)
    for name, part in (("train", rows[:2]), ("test", rows[2:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
    theirs = plain(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal")
    expected = [tokens for (tokens,) in asked(theirs, tmp_path, "school", 2)]
    assert [prompt.context + prompt.question for prompt in task.prompts(tokenizer)] == expected


def test_a_task_file_that_changes_is_read_again(tmp_path: Path) -> None:
    written(tmp_path, "facts", *GENERATE)
    first = harness.load("facts", str(tmp_path), 0)
    assert harness.load("facts", str(tmp_path), 0) is first
    written(tmp_path, "facts", *GENERATE, "description: Another one.")
    changed = harness.load("facts", str(tmp_path), 0)["tasks"]["facts"]
    assert changed.config.description == "Another one."
    assert not first["tasks"]["facts"].config.description


def test_the_chat_is_part_of_what_is_recorded() -> None:
    assert "chat=True" in str(LmEval(task="facts", chat=True))
    assert "chat=True" in str(GSM8K(path="x", chat=True))
