"""In English every question can be answered from its context by whoever reads it, and is asked in a chat as well."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig

from pith.core import InputError
from pith.models import Subject, builtin
from pith.tasks import tasks
from pith.tasks.filler import passages
from pith.tasks.generate import Example
from pith.tasks.generated import Generated
from pith.tasks.prose import prose_text
from pith.texts import language_of

NAMES = [name for name, kind in tasks().items() if issubclass(kind, Generated)]
FACT = r"The secret number of the ([\w-]+) is (\d{4})\."
LENGTHS = {
    "cwe": 1100,
    "vt": 700,
    "kick_reasoning": 700,
    "niah_multikey_3": 700,
    "many_labels": 700,
    "kick_generation": 800,
}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"

tokenizer = cache(lambda: builtin()[1])


def made(name: str, **values: Any) -> Generated:
    settings = {"length": LENGTHS.get(name, 400), "count": 2, "language": "english"}
    task = tasks()[name].build(**{**settings, **values})
    assert isinstance(task, Generated)
    return task


def examples(name: str, **values: Any) -> tuple[Example, ...]:
    return made(name, **values).examples(tokenizer())


class Knowing:
    """Stands in for a model that writes the answers to a task's questions where the prompt ends as it should."""

    def __init__(self, task: Generated) -> None:
        self.config, self.device = LlamaConfig(max_position_embeddings=4096), torch.device("cpu")
        self.task, self.answers = task, [example.answer for example in task.examples(tokenizer())]
        self.starts = [example.start or "" for example in task.examples(tokenizer())]

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **_: Any
    ) -> torch.Tensor:
        rows = []
        for i, (ids, real) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
            text = tokenizer().decode(ids[real])
            assert text.endswith(("<assistant>" if self.task.chat else "\nAnswer: ") + self.starts[i]) or (
                not self.starts[i] and text.endswith("\nAnswer:")
            )
            most = generation_config.max_new_tokens
            answer = tokenizer()(self.answers[i] + ".", add_special_tokens=False).input_ids
            rows.append(torch.tensor((answer + [2] * most)[:most]))
        return torch.cat([input_ids, torch.stack(rows)], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_the_answers_scores_one_in_plain_prompts_and_in_a_chat(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer(), "chat_template", TEMPLATE)
    for chat in (False, True):
        task = made(name, chat=chat)
        assert task.run(Subject(Knowing(task), tokenizer())).scores == (1.0, 1.0)
        assert task.calibrate(tokenizer()).oracle == 1.0
        aware, later = task.prompts(tokenizer()), made(name, chat=chat, query="agnostic").prompts(tokenizer())
        assert aware == later
        for prompt, example in zip(aware, task.examples(tokenizer()), strict=True):
            asked, context = (tokenizer().decode(ids) for ids in (prompt.question, prompt.context))
            assert example.question.strip() in asked
            assert asked.startswith(example.question[:2])
            assert example.context in context or chat


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_a_real_one_and_fills_the_length(name: str) -> None:
    task = made(name)
    for example, prompt in zip(task.examples(tokenizer()), task.prompts(tokenizer()), strict=True):
        assert "?" in example.question
        assert "Recall" not in example.context + example.question
        assert example.start is not None
        assert all(part in example.context for part in example.parts) or name in ("tracing", "kick_reasoning")
        size = len(prompt.context) + len(prompt.question) + prompt.most
        assert size <= task.length + 2
        part = {"many_labels": 220, "niah_multikey_3": 110, "copying": 60}.get(name, 45)
        assert size > task.length - part or name.startswith("kick")
        assert 0 <= (task.calibrate(tokenizer()).chance or 0) <= 0.5


@pytest.mark.parametrize("name", ["needle", "kick_retrieval"])
def test_the_fact_that_is_asked_for_stands_once_where_the_depth_says(name: str) -> None:
    for example in examples(name, count=4):
        stated = re.findall(FACT, example.context)
        [key] = re.findall(r"the secret number of the ([\w-]+)\?", example.question)
        assert [value for other, value in stated if other == key] == [example.answer.strip()]
        assert sorted(value for _, value in stated) == sorted(example.candidates)
        assert example.start == f"The secret number of the {key} is"
        assert example.depth == pytest.approx(example.context.index(f" {key} is") / len(example.context), abs=0.25)


def test_every_fact_of_a_lookup_looks_alike() -> None:
    for example in examples("lookup", count=4):
        stated = dict(re.findall(r"The ([\w-]+) is number (\d{4})\.", example.context))
        [key] = re.findall(r"Which number is the ([\w-]+)\?", example.question)
        assert stated[key] == example.answer.strip()
        assert example.candidates == (*stated.values(),)
        assert example.depth == [*stated].index(key) / (len(stated) - 1)
        assert example.start == f"The {key} is number"


def test_chains_are_spelled_as_the_worked_example_shows() -> None:
    for name, hops in (("tracing", 2), ("kick_reasoning", 4), ("tracing", 1)):
        for example in examples(name, **({"hops": 1} if hops == 1 else {})):
            means = dict(re.findall(r"The ([\w-]+) has the (?:same )?number(?: as the)? ([\w-]+)\.", example.context))
            [key] = re.findall(r"does the ([\w-]+) have", example.question)
            reply = re.findall(r"(?:the|number) ([a-z]+(?:-[a-z]+)?|\d{4})(?=\.|$)", f"number{example.answer}")
            steps = [key]
            while steps[-1] in means:
                steps.append(means[steps[-1]])
            assert reply == steps[1:]
            assert len(steps) == hops + 1
            assert example.parts == (steps[-1],)
            [shown] = re.findall(r"Answer: (.*)\.\n\n", example.context)
            assert shown.count("same number as") == hops - 1


def test_variables_with_the_value_are_all_named() -> None:
    for example in examples("vt", chains=2, hops=3):
        worked, text = example.context.split("\n\nThe text below hides", 1)
        means = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", text))
        [number] = re.findall(r"value (\d{5}) in", example.question)

        def value(name: str, means: dict[str, str] = means) -> str:
            return name if name.isdecimal() else value(means[name])

        assert [name for name in means if value(name) == number] == example.answer.split()
        assert len(means) == 8
        assert {*example.candidates} == {*means, *re.findall(r"VAR (\w+) =", worked)}


def test_the_haystack_is_prose_or_a_file(tmp_path: Path) -> None:
    [example] = examples("needle", count=1)
    assert all(line[:80] in prose_text() for line in re.sub(" " + FACT, "", example.context).split("\n"))
    file = tmp_path / "text.txt"
    file.write_text("A sentence of mine. The secret number of the apple is 1000.\n")
    for name in ("needle", "niah_single_2"):
        for language in ("english", "pith"):
            [example] = examples(name, count=1, haystack=str(file), language=language)
            assert "A sentence of mine." in example.context
            assert example.depth is not None
    assert all(
        " apple?" not in e.question for e in examples("needle", count=20, keys=80, length=1500, haystack=str(file))
    )
    file.write_text("\n \n")
    with pytest.raises(InputError, match="needle: length=400 is not filled"):
        examples("needle", haystack=str(file))
    with pytest.raises(InputError, match="needle: haystack="):
        examples("needle", haystack=str(tmp_path / "none.txt"))


def test_a_text_shorter_than_the_length_continues_in_another_order() -> None:
    from random import Random

    text = "One.\nTwo.\n\nThree.\nFour.\n"
    found = passages(Random(3), text, 200)
    rounds = [found.split("\n")[i : i + 4] for i in range(0, 28, 4)]
    assert len(found) == 200
    assert all(sorted(one) == ["Four.", "One.", "Three.", "Two."] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 2
    assert len({passages(Random(seed), prose_text(), 50) for seed in range(9)}) > 5


def test_the_builtin_model_reads_its_own_language_and_so_do_its_copies(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer().save_pretrained(tmp_path)
    copy = AutoTokenizer.from_pretrained(tmp_path)
    assert language_of(copy) == language_of(tokenizer()) == "pith"
    needle = tasks()["needle"].build(length=200, count=1)
    assert isinstance(needle, Generated)
    assert needle.examples(copy) == examples("needle", length=200, count=1, language="pith")
    copy.init_kwargs.pop("pith_language")
    assert language_of(copy) == "english"
    assert needle.examples(copy)[0].question.startswith("\n\nWhat is the secret number")
    assert language_of(object()) == "english"
