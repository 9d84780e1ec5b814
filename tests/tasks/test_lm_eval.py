"""Tasks of lm-evaluation-harness: dense as the harness itself says, and under a recipe as the recipe makes it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pith.core import InputError, Recipe
from pith.models import Subject, builtin
from pith.tasks import harness
from pith.tasks.lm_eval import LmEval

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

TIGHT = "snapkv(budget=16, window=4, kernel=5)"
METRIC = "metric_list: [{{metric: {0}, aggregation: {1}, higher_is_better: {2}}}]"
BODIES = {
    "choice": [
        "output_type: multiple_choice",
        'doc_to_choice: "{{choices}}"',
        'doc_to_target: "{{choices.index(answer)}}"',
    ],
    "choice_f1": [
        "output_type: multiple_choice",
        'doc_to_choice: "{{choices}}"',
        'doc_to_target: "{{choices.index(answer)}}"',
        METRIC.format("f1", "f1", "true"),
    ],
    "answer": ["output_type: loglikelihood", 'doc_to_target: " {{answer}}"'],
    "rolling": ["output_type: loglikelihood_rolling", 'doc_to_target: "{{context}}"'],
    "generate": [
        "output_type: generate_until",
        'doc_to_target: "{{answer}}"',
        'generation_kwargs: {until: ["."], max_gen_toks: 8}',
        METRIC.format("exact_match", "mean", "true"),
        'filter_list: [{name: first, filter: [{function: regex, regex_pattern: "([0-9]+)"}, {function: take_first}]}, '
        "{name: raw, filter: [{function: take_first}]}]",
    ],
    "errors": [
        "output_type: generate_until",
        'doc_to_target: "{{answer}}"',
        'generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: true, temperature: 0.7}',
        METRIC.format("exact_match", "mean", "false"),
    ],
}

loaded = cache(builtin)


def subject(recipe: str | None = None) -> Subject:
    model, tokenizer = loaded()
    return Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe))


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of tasks that ask for one of six facts."""
    folder, rng = tmp_path_factory.mktemp("tasks"), Random(0)
    rows = []
    for _ in range(12):
        keys = rng.sample(["apple", "river", "stone", "lamp", "tiger", "window", "garden", "bridge"], 6)
        values = [str(rng.randrange(1000, 10000)) for _ in keys]
        asked = rng.randrange(6)
        choices = [values[asked], *rng.sample(values[:asked] + values[asked + 1 :], rng.choice([2, 4]))]
        rng.shuffle(choices)
        context = "".join(f" {key} is {value}." for key, value in zip(keys, values, strict=True))
        rows.append({"context": context, "key": keys[asked], "choices": choices, "answer": values[asked]})
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = f"dataset_kwargs: {{data_files: {{test: {folder}/facts.jsonl}}, cache_dir: {folder}/cache}}"
    for name, body in BODIES.items():
        text = '""' if name == "rolling" else '"{{context}}\\nRecall: {{key}} is"'
        lines = [f"task: facts_{name}", "dataset_path: json", data, "test_split: test", f"doc_to_text: {text}", *body]
        (folder / f"{name}.yaml").write_text("\n".join(lines), encoding="utf-8")
    (folder / "group.yaml").write_text("group: facts\ntask: [facts_choice, facts_answer]", encoding="utf-8")
    (folder / "broken.yaml").write_text("task: facts_broken\ndataset_path: json\noutput_type: guess", encoding="utf-8")
    return str(folder)


def asked(task: LmEval, reader: Any) -> list[harness.Scored]:
    loaded = harness.load(task.task, task.include, task.fewshot)
    return harness.examples_of(loaded, reader, task.score, task.count, task.seed, task.chat)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("facts_choice", None),
        ("facts_answer", "perplexity"),
        ("facts_answer", "acc"),
        ("facts_rolling", None),
        ("facts_rolling", "word_perplexity"),
        ("facts_generate", "exact_match,raw"),
    ],
)
@pytest.mark.parametrize("fewshot", [None, 1])
def test_dense_scores_are_the_harness_own(
    include: str, plain: Any, name: str, score: str | None, fewshot: int | None
) -> None:
    model, tokenizer = loaded()
    task = LmEval(task=name, include=include, score=score, count=6, fewshot=fewshot)
    expected = asked(task, plain(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal"))
    total = sum(value for value, _ in expected) / sum(weight for _, weight in expected)
    found = task.run(subject())
    assert found.n == 6
    assert found.value == pytest.approx(total, abs=1e-4)
    assert sum(found.scores) / 6 == pytest.approx(found.value)
    mean = sum(weight for _, weight in expected) / 6
    assert found.scores == pytest.approx([value / mean for value, _ in expected], abs=1e-4)


@pytest.mark.parametrize("name", ["facts_choice", "facts_answer", "facts_generate", "facts_rolling"])
def test_a_recipe_that_drops_nothing_changes_nothing(include: str, name: str) -> None:
    score = "perplexity" if name == "facts_answer" else None
    task = LmEval(task=name, include=include, count=4, score=score)
    dense = task.run(subject())
    assert task.run(subject("snapkv(budget=1.0)")).scores == pytest.approx(dense.scores, abs=1e-4)
    assert task.run(subject(), batch_size=1).scores == pytest.approx(dense.scores, abs=1e-4)


def test_a_tight_recipe_changes_likelihoods_and_answers(include: str) -> None:
    likely = LmEval(task="facts_answer", include=include, score="perplexity")
    dense, tight = likely.run(subject()), likely.run(subject(TIGHT))
    assert dense.value > tight.value + 1
    assert all(abs(a - b) > 1e-3 for a, b in zip(dense.scores, tight.scores, strict=True))
    for name in ("facts_choice", "facts_generate"):
        task = LmEval(task=name, include=include)
        assert task.run(subject()).value > task.run(subject(TIGHT)).value


def test_the_score_does_not_depend_on_the_batch_size_under_a_recipe(include: str) -> None:
    for name, score in (("facts_answer", "perplexity"), ("facts_generate", None), ("facts_choice", None)):
        task = LmEval(task=name, include=include, score=score, count=6)
        whole, alone = (task.run(subject(TIGHT), batch_size=size) for size in (6, 1))
        assert whole.scores == pytest.approx(alone.scores, abs=1e-4)


def test_methods_act_after_every_chunk(include: str) -> None:
    task = LmEval(task="facts_rolling", include=include, count=2)
    recipe = "streaming_llm(budget=12)"
    one, many = task.run(subject(recipe)), replace(task, chunk=16).run(subject(recipe))
    assert one.scores != pytest.approx(many.scores, abs=1e-3)
    assert replace(task, chunk=16).run(subject()).scores == pytest.approx(task.run(subject()).scores, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "score", "oracle", "chance"),
    [
        ("facts_choice", None, 1.0, "choices"),
        ("facts_generate", None, 1.0, None),
        ("facts_answer", None, 1.0, None),
        ("facts_answer", "perplexity", 0.0, None),
        ("facts_rolling", None, 0.0, None),
        ("facts_errors", None, -1.0, None),
    ],
)
def test_calibration(include: str, name: str, score: str | None, oracle: float, chance: str | None) -> None:
    found = LmEval(task=name, include=include, score=score, count=5).calibrate(loaded()[1])
    assert found.oracle == pytest.approx(oracle)
    if chance is None:
        assert found.chance is None
        return
    rows = map(json.loads, (Path(include) / "facts.jsonl").read_text(encoding="utf-8").splitlines()[:5])
    assert found.chance == pytest.approx(sum(1 / len(row["choices"]) for row in rows) / 5)


def test_of_a_group_all_examples_count(include: str) -> None:
    together = LmEval(task="facts", include=include, count=3, score="acc").run(subject(TIGHT))
    each = [LmEval(task=n, include=include, count=3, score="acc") for n in ("facts_choice", "facts_answer")]
    assert together.scores == tuple(s for task in each for s in task.run(subject(TIGHT)).scores)


def test_worked_examples_follow_the_seed(include: str) -> None:
    task = LmEval(task="facts_answer", include=include, score="perplexity", count=3, fewshot=2)
    first = task.run(subject()).scores
    assert task.run(subject()).scores == first
    assert replace(task, seed=1).run(subject()).scores != pytest.approx(first, abs=1e-4)
    assert replace(task, fewshot=None).run(subject()).scores != pytest.approx(first, abs=1e-4)


def test_a_chat_template_is_needed_and_used_as_the_harness_does(include: str, plain: Any) -> None:
    model, tokenizer = builtin()
    task = LmEval(task="facts_answer", include=include, score="perplexity", count=3, fewshot=1, chat=True)
    with pytest.raises(InputError, match="has no chat template"):
        task.run(Subject(model, tokenizer))
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    expected = asked(task, plain(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal"))
    found = task.run(Subject(model, tokenizer)).scores
    assert found == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert found != pytest.approx(replace(task, chat=False).run(Subject(model, tokenizer)).scores, abs=1e-2)


def test_without_a_count_it_is_every_example_and_nothing_is_printed(
    include: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    found = LmEval(task="facts_generate", include=include).run(
        subject(), batch_size=5, progress=lambda done, total: told.append((done, total))
    )
    assert found.n == 12
    assert told == [(5, 12), (10, 12), (12, 12)]
    assert capfd.readouterr() == ("", "")


def test_less_is_better_is_turned_and_sampling_is_not_done(include: str) -> None:
    task = LmEval(task="facts_errors", include=include, count=4)
    with pytest.warns(match="4 of 4 answers are to be sampled; they are decoded greedily"):
        found = task.run(subject())
    dense = LmEval(task="facts_generate", include=include, score="exact_match,raw", count=4).run(subject())
    assert found.scores == pytest.approx([-score for score in dense.scores])


@pytest.fixture
def only_these(include: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the harness's own ten thousand tasks out, which take seconds to list."""
    manager = harness.harness("tasks").TaskManager(include_path=include, include_defaults=False)
    monkeypatch.setattr(harness, "_manager", lambda include, defaults, files: manager)


@pytest.mark.usefixtures("only_these")
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"task": "facts_choise"}, "no task is called 'facts_choise'; did you mean 'facts_choice"),
        ({"task": ""}, "no task is called ''; allowed are"),
        ({"task": "facts_broken"}, "task='facts_broken' cannot be loaded: "),
        ({"task": "facts_choice", "score": "exact"}, "score='exact' is no mean .* of 'facts_choice'; allowed is acc"),
        ({"task": "facts_choice_f1"}, "f1 are no mean over the examples .*; allowed is a task that has"),
        ({"task": "facts_generate", "score": "exact_match,last"}, "no filter 'last'; allowed is first, raw"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(include: str, values: dict[str, str], why: str) -> None:
    for ask in (lambda task: task.calibrate(loaded()[1]), lambda task: task.run(subject())):
        with pytest.raises(InputError, match=why) as caught:
            ask(LmEval(include=include, count=2, **values))
        assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lm_eval: include='.*none' is no folder"):
        LmEval(task="facts", include=str(tmp_path / "none")).calibrate(None)


def test_without_the_harness_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"^lm_eval needs lm-evaluation-harness: pip install pith-lm\[lm-eval\]$"):
        LmEval(task="never_heard_of").calibrate(None)


def test_one_example_without_an_interval_is_refused(include: str) -> None:
    assert LmEval(task="facts_choice", include=include, count=1).run(subject()).n == 1
    with pytest.raises(InputError, match="one example of 'facts_rolling' has no interval; allowed are 2 or more"):
        LmEval(task="facts_rolling", include=include, count=1).run(subject())
