from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pith.core import Recipe
from pith.models import load
from pith.study import ask, tasks_with
from pith.weights import Source
from study.fakes import question


def test_the_key_depends_on_everything_that_is_asked(tmp_path: Path) -> None:
    asked, recipe = question("snapkv"), Recipe.parse("snapkv")
    needle, perplexity = asked.tasks
    text = tmp_path / "text.txt"
    text.write_text("one")
    [on_file] = tasks_with(f"perplexity(text={str(text)!r})", {})
    keys = [
        asked.key(recipe),
        asked.key(Recipe()),
        asked.key(Recipe.parse("snapkv(budget=0.25)")),
        asked.key(recipe, needle),
        asked.key(recipe, perplexity),
        asked.key(recipe, on_file),
        replace(asked, settings={"model": "other"}).key(recipe),
        replace(asked, settings={"model": "other"}).key(recipe, needle),
        replace(asked, costs={"length": 512, "seed": 0}).key(recipe),
    ]
    text.write_text("another")
    assert len({*keys, asked.key(recipe, on_file)}) == len(keys) + 1


def test_the_key_does_not_depend_on_names_order_and_what_else_is_asked() -> None:
    asked, recipe = question("snapkv"), Recipe.parse("snapkv")
    same = replace(asked, model="./fake", tasks=asked.tasks[::-1], recipes=asked.recipes[:1])
    for task in (None, *asked.tasks):
        assert same.key(recipe, task) == asked.key(recipe, task)
    timed_longer = replace(asked, costs={"length": 512, "seed": 0})
    assert timed_longer.key(recipe, asked.tasks[0]) == asked.key(recipe, asked.tasks[0])


def test_a_recipes_file_is_part_of_the_question(tmp_path: Path) -> None:
    gates = tmp_path / "gates.safetensors"
    gates.write_bytes(b"one")
    asked, recipe = question("snapkv"), Recipe.parse(f"duo_attention(gates={str(gates)!r})")
    before = asked.key(recipe)
    gates.write_bytes(b"another")
    assert asked.key(recipe) != before


def test_what_is_asked_of_a_model_names_its_weights_tokenizer_and_machine() -> None:
    loaded = load("builtin")
    asked = ask(loaded, (Recipe(),), (), length=64, seed=1)
    assert {"model", "tokenizer", "heldout", "dtype", "device", "pith", "transformers"} == set(asked.settings)
    assert asked.costs["length"] == 64
    assert {"processor", "threads", "torch"} <= set(asked.costs["machine"])
    assert ask(loaded, (Recipe(),), (), length=64, seed=1, peak=True).key(Recipe()) != asked.key(Recipe())
    loaded.tokenizer.add_tokens(["anewword"])
    assert ask(loaded, (Recipe(),), (), length=64, seed=1).settings != asked.settings


def test_calibration_is_a_question_of_recipes_that_read_it_only() -> None:
    loaded = load("builtin")
    recipes = tuple(map(Recipe.parse, ("dense", "snapkv", "rtn(bits=4)", "gptq(bits=4)")))
    keys = []
    for source in (Source(), Source(sequences=8)):
        asked = ask(replace(loaded, source=source), recipes, (), length=64, seed=0)
        assert asked.calibration == source.identity(loaded.tokenizer)
        keys.append([asked.key(recipe) for recipe in recipes])
    assert [one == other for one, other in zip(*keys, strict=True)] == [True, True, True, False]
    without = ask(replace(loaded, source=Source("no such file")), recipes[:3], (), length=64, seed=0)
    assert [without.key(recipe) for recipe in recipes[:3]] == keys[0][:3]
