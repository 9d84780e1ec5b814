"""Every task of generated questions: seeded, filled, calibrated, and asked with or without the question in sight."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig

from pith.core import InputError, ParameterError, Recipe
from pith.models import Subject, builtin
from pith.tasks import tasks
from pith.tasks.generate import Example
from pith.tasks.generated import Generated
from pith.tasks.scoring import score

LENGTH, COUNT = 400, 3
NAMES = [name for name, kind in tasks().items() if issubclass(kind, Generated)]
RECIPES = [None, "snapkv(budget=0.3, window=8)", "streaming_llm(budget=64)"]
every_task = pytest.mark.parametrize("name", NAMES)

loaded = cache(builtin)


def made(name: str, **values: Any) -> Generated:
    task = tasks()[name].build(**{"length": LENGTH, "count": COUNT, **values})
    assert isinstance(task, Generated)
    return task


def subject(recipe: str | None = None) -> Subject:
    return Subject(*loaded(), None if recipe is None else Recipe.parse(recipe))


class Knowing:
    """Stands in for a model that knows the answers to a task's questions."""

    def __init__(self, task: Generated, tokenizer: Any) -> None:
        self.config, self.device = LlamaConfig(max_position_embeddings=4096), torch.device("cpu")
        self.tokenizer, self.answers = tokenizer, {}
        for prompt, example in zip(task.prompts(tokenizer), task.examples(tokenizer), strict=True):
            self.answers[*prompt.context, *prompt.question] = example.answer

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **_: Any
    ) -> torch.Tensor:
        rows = []
        for ids, real in zip(input_ids, attention_mask.bool(), strict=True):
            answer = self.tokenizer(self.answers[tuple(ids[real].tolist())] + ".", add_special_tokens=False).input_ids
            most = generation_config.max_new_tokens
            rows.append(torch.tensor((answer + [0] * most)[:most]))
        return torch.cat([input_ids, torch.stack(rows)], dim=1)


def test_there_are_all_that_were_promised() -> None:
    promised = "needle lookup passkey copying tracing many_labels niah_single_1 niah_single_2 niah_single_3 vt cwe fwe"
    more = "niah_multikey_1 niah_multikey_2 niah_multikey_3 niah_multivalue niah_multiquery qa_1 qa_2"
    kick = "kick_reasoning kick_retrieval kick_generation"
    assert {*promised.split(), *more.split(), *kick.split()} == {*NAMES} - {"niah", "qa"}


@every_task
def test_an_example_depends_on_the_seed_and_its_index_only(name: str) -> None:
    tokenizer = loaded()[1]
    examples = made(name).examples(tokenizer)
    assert made(name, count=2).examples(tokenizer) == examples[:2]
    assert made(name, query="agnostic").examples(tokenizer) == examples
    assert len({*examples, *made(name, seed=1).examples(tokenizer)}) == 2 * COUNT


@every_task
@pytest.mark.parametrize("length", [LENGTH, 700])
def test_examples_fill_the_length(name: str, length: int) -> None:
    tokenizer, task = loaded()[1], made(name, length=length)
    # parts that cannot be made smaller: a round of all labels, a pair of identifiers, a document, a word said thrice
    part = {"many_labels": 140, "copying": 40, "niah_multikey_3": 55, "qa": 30, "qa_1": 30, "qa_2": 30}.get(name, 20)
    for example, prompt in zip(task.examples(tokenizer), task.prompts(tokenizer), strict=True):
        whole = example.context + example.question + example.answer
        assert len(tokenizer(whole).input_ids) <= length
        if name in ("kick_generation", "kick_reasoning"):  # of a size of their own, whatever there is room for
            continue
        assert length - part <= len(prompt.context) + len(prompt.question) + prompt.most <= length + 2


@every_task
def test_who_knows_the_answers_scores_one(name: str) -> None:
    task, tokenizer = made(name), loaded()[1]
    found = task.run(Subject(Knowing(task, tokenizer), tokenizer), batch_size=2)
    assert (found.value, found.n, found.scores, found.high) == (1.0, COUNT, (1.0,) * COUNT, 1.0)
    assert task.calibrate(tokenizer).oracle == 1.0


@every_task
def test_chance_is_how_often_guesses_hit(name: str) -> None:
    task, tokenizer = made(name), loaded()[1]
    examples = task.examples(tokenizer)
    rng, drawn = Random(5), []
    for example in examples:
        parts = 1 if task.match == "any" else len(example.parts)
        if len(example.candidates) <= parts:
            drawn.append(0.0)
        else:
            guesses = (" ".join(rng.sample(example.candidates, parts)) for _ in range(400))
            drawn.append(fmean(score(example, guess, task.match) for guess in guesses))
    chance = task.calibrate(tokenizer).chance
    assert chance == pytest.approx(fmean(drawn), abs=0.06)
    assert chance is not None
    assert 0.0 <= chance < 0.5


@every_task
def test_the_answer_can_be_found_in_the_context(name: str) -> None:
    for example in made(name).examples(loaded()[1]):
        assert all(part in example.context for part in " ".join(example.parts).replace(" is ", " ").split())
        assert example.answer.startswith(" ")
        assert not example.candidates or name == "vt" or {*example.parts} <= {*example.candidates}


@every_task
def test_depths_are_where_answers_stand(name: str) -> None:
    examples = made(name, count=8).examples(loaded()[1])
    for example in examples:
        if example.depth is None:
            continue
        text = example.context
        sought = example.question.removeprefix("\nRecall: ").removesuffix(" is").split()[-1]
        if name not in ("qa", "qa_1", "qa_2"):
            assert text.index(f" {sought}") / len(text) == pytest.approx(example.depth, abs=0.3)
    assert len({example.depth is None for example in examples}) == 1


@pytest.mark.parametrize("name", ["needle", "lookup", "passkey", "tracing", "copying", "niah_multiquery", "vt"])
@pytest.mark.parametrize("recipe", [None, "snapkv(budget=1.0)"])
def test_nothing_is_lost_by_a_question_that_comes_later(name: str, recipe: str | None) -> None:
    aware = made(name).run(subject())
    assert made(name, query="agnostic").run(subject(recipe)).scores == aware.scores


@pytest.mark.parametrize("name", ["niah_multikey_2", "qa_1"])
@pytest.mark.parametrize("query", ["aware", "agnostic"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_score_does_not_depend_on_the_batch_size(name: str, query: str, recipe: str | None) -> None:
    task = made(name, length=150, count=4, query=query)
    assert task.run(subject(recipe), batch_size=4).scores == task.run(subject(recipe), batch_size=1).scores


def test_an_eviction_that_does_not_know_the_question_finds_less() -> None:
    task, tight = made("lookup", count=12), subject("snapkv(budget=0.3, window=8)")
    aware, agnostic = task.run(tight), replace(task, query="agnostic").run(tight)
    assert task.run(subject()).value > 0.8
    assert aware.value > agnostic.value


def test_what_is_asked_is_said() -> None:
    assert made("vt").asks == "aware"
    assert made("vt", query="agnostic").asks == "agnostic"
    assert str(made("vt", query="agnostic")) == "vt(length=400, count=3, query='agnostic')"


def test_scores_have_their_depths_and_their_interval() -> None:
    needle = made("needle", count=4, depth=0.5).run(subject())
    assert needle.depths == (0.5,) * 4
    found = made("niah_multiquery").run(subject())
    assert found.depths == ()
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"


def test_a_chat_stands_in_the_template_and_may_be_wordy() -> None:
    model, tokenizer = builtin()
    task = made("lookup", chat=True)
    with pytest.raises(InputError, match="has no chat template"):
        task.run(Subject(model, tokenizer))
    tokenizer.chat_template = TEMPLATE
    asked = zip(task.prompts(tokenizer), task.examples(tokenizer), made("lookup").prompts(tokenizer), strict=True)
    for prompt, example, plain in asked:
        assert tokenizer.decode(prompt.context) == f"<user>{example.context}"
        assert tokenizer.decode(prompt.question) == f"{example.question}</><assistant>"
        assert prompt.most > plain.most

    class Polite(Knowing):
        def __init__(self) -> None:
            super().__init__(task, tokenizer)
            self.answers = {key: f" It is{answer}, I think." for key, answer in self.answers.items()}

    assert task.run(Subject(Polite(), tokenizer)).value == 1.0
    assert task.run(Subject(model, tokenizer)).n == COUNT


@every_task
def test_too_short_a_length_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: length=9 is too short") as caught:
        made(name, length=9).run(subject())
    assert "\n" not in str(caught.value)


@every_task
def test_too_long_a_length_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: length=5000 takes 5000 tokens, .* at most 4096"):
        made(name, length=5000).run(subject())


@pytest.mark.parametrize("values", [{"query": "later"}, {"count": 0}, {"seed": -1}, {"length": 0}])
def test_parameters_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"vt: {next(iter(values))}=.* is not allowed; allowed is"):
        made("vt", **values)


def test_a_task_says_in_one_line_why_it_cannot_be_made() -> None:
    class Impossible(Generated):
        def draw(self, rng: Random, room: Any) -> Example:
            raise ValueError("there are only 2 of them")

    with pytest.raises(InputError, match="impossible: length=1024 is too short: there are only 2 of them"):
        Impossible().examples(loaded()[1])
