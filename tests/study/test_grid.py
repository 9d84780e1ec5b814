from __future__ import annotations

from pathlib import Path

import pytest

from core.families import registered
from pith.core import InputError, ParameterError, Recipe, RecipeSyntaxError, methods
from pith.study import grid, parse_budgets, parse_lengths, read_recipe, tasks_with


def texts(*recipes: str, budgets: str = "", families: tuple[str, ...] = ()) -> list[str]:
    return [str(recipe) for recipe in grid(recipes, parse_budgets(budgets), families)]


def test_budgets_are_shares_counts_and_bytes() -> None:
    assert parse_budgets("0.5, 1024,64MiB,") == [0.5, 1024, "64MiB"]
    assert parse_budgets("") == []


@pytest.mark.parametrize("text", ["1.5", "0", "-0.1", "many", "0.5;0.25", "None", "True"])
def test_a_budget_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="budget"):
        parse_budgets(text)


def test_each_recipe_stands_at_each_budget_after_the_dense_model() -> None:
    assert texts("snapkv(window=16)", "streaming_llm", budgets="0.4,0.2") == [
        "dense",
        "snapkv(budget=0.4, window=16)",
        "snapkv(budget=0.2, window=16)",
        "streaming_llm(budget=0.4)",
        "streaming_llm(budget=0.2)",
    ]


def test_a_budget_that_the_text_sets_stays_even_if_it_is_the_default() -> None:
    assert texts("snapkv(budget=0.5)", budgets="0.4,0.2") == ["dense", str(Recipe.parse("snapkv(budget=0.5)"))]


def test_without_budgets_methods_take_their_own() -> None:
    assert texts("snapkv") == ["dense", "snapkv()"]


def test_each_stands_once() -> None:
    assert texts("dense", "snapkv", "snapkv(budget=0.25)", budgets="0.25,0.25") == ["dense", "snapkv(budget=0.25)"]


def test_one_token_is_not_everything() -> None:
    assert texts("snapkv", budgets="1,1.0") == ["dense", "snapkv(budget=1)", "snapkv(budget=1.0)"]


def test_no_recipe_means_every_eviction() -> None:
    names = [recipe.methods[0].name for recipe in grid()[1:]]
    assert names == [name for name, method in methods().items() if method.contract == "eviction"]


def test_a_family_is_every_method_of_a_contract_beside_the_recipes() -> None:
    with registered():
        assert texts(families=("storage",)) == ["dense", "coarse()"]
        assert texts("snapkv(window=8)", families=("storage", "eviction")) == [
            "dense", "snapkv(window=8)", "coarse()", "random_eviction()", "snapkv()",
        ]  # fmt: skip
        assert texts("coarse", families=("storage", "storage")) == ["dense", "coarse()"]


def test_a_family_at_budgets_is_swept_by_its_own_budgets_or_those_of_the_methods_in_it() -> None:
    with registered():
        assert texts(families=("eviction", "allocation", "storage"), budgets="0.4,0.2") == [
            "dense",
            "random_eviction(budget=0.4)",
            "random_eviction(budget=0.2)",
            "snapkv(budget=0.4)",
            "snapkv(budget=0.2)",
            "per_head(snapkv(budget=0.4))",
            "per_head(snapkv(budget=0.2))",
            "per_layer(snapkv(budget=0.4))",
            "per_layer(snapkv(budget=0.2))",
            "coarse()",
        ]


@pytest.mark.parametrize(
    ("recipe", "swept"),
    [
        ("per_head(random_eviction)", ["per_head(random_eviction(budget=0.2))"]),
        ("per_head(snapkv(budget=0.5))", ["per_head()"]),
        ("per_head(of=snapkv(window=8), floor=0)", ["per_head(snapkv(budget=0.2, window=8), floor=0)"]),
        ("per_head(per_head)", ["per_head(per_head(snapkv(budget=0.2)))"]),
        ("per_head(per_head(random_eviction(seed=1)))", ["per_head(per_head(random_eviction(budget=0.2, seed=1)))"]),
        ("per_layer(snapkv(budget=64), beside=snapkv)", ["per_layer(snapkv(budget=64), beside=snapkv(budget=0.2))"]),
        ("coarse + per_head(random_eviction)", ["coarse() + per_head(random_eviction(budget=0.2))"]),
        ("coarse(bits=4)", ["coarse(bits=4)"]),
    ],
)  # fmt: skip
def test_the_budget_of_a_method_in_a_method_stays_where_the_text_sets_it(recipe: str, swept: list[str]) -> None:
    with registered():
        assert texts(recipe, budgets="0.2") == ["dense", *swept]


def test_a_family_that_is_not_there_is_one_line() -> None:
    with registered(), pytest.raises(InputError) as caught:
        grid(families=["evictions"])
    assert str(caught.value) == (
        "no family is called 'evictions'; did you mean 'eviction'?; there are: allocation, eviction, storage"
    )


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    open_, fixed = tmp_path / "open.toml", tmp_path / "fixed.toml"
    open_.write_text('[[method]]\nname = "snapkv"\nwindow = 16\n')
    fixed.write_text('[[method]]\nname = "snapkv"\nbudget = 0.5\n')
    assert texts(str(open_), budgets="0.2") == ["dense", "snapkv(budget=0.2, window=16)"]
    assert texts(str(fixed), budgets="0.2") == ["dense", "snapkv()"]
    assert read_recipe(str(open_)) == Recipe.parse("snapkv(window=16)")
    with registered():
        open_.write_text('[[method]]\nname = "per_head"\nof = { name = "random_eviction" }\n')
        fixed.write_text('[[method]]\nname = "per_head"\nof = { name = "random_eviction", budget = 0.5 }\n')
        assert texts(str(open_), budgets="0.2") == ["dense", "per_head(random_eviction(budget=0.2))"]
        assert texts(str(fixed), budgets="0.2") == ["dense", "per_head(random_eviction())"]


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeSyntaxError, match="there is no such file"):
        grid([str(tmp_path / "none.toml")])


def test_settings_go_to_the_tasks_that_have_them_and_leave_them_open() -> None:
    found = tasks_with("needle(length=1024),needle,perplexity(count=3)", {"length": 2048, "count": 5})
    assert [str(task) for task in found] == [
        "needle(count=5)",
        "needle(length=2048, count=5)",
        "perplexity(length=2048, count=3)",
    ]


def test_a_setting_that_a_task_cannot_take_is_refused() -> None:
    with pytest.raises(ParameterError, match="count"):
        tasks_with("perplexity", {"count": 1})


@pytest.mark.parametrize("text", ["", "needles", "needle + perplexity", "needle("])
def test_a_text_that_is_no_list_of_tasks_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        tasks_with(text, {})


def test_each_task_that_leaves_its_length_open_stands_once_at_each() -> None:
    found = tasks_with("needle,perplexity(length=64)", {"length": 2048, "count": 5}, lengths=[128, 256])
    assert [(task.name, task.length) for task in found] == [("needle", 128), ("needle", 256), ("perplexity", 64)]


def test_lengths_are_numbers_of_tokens() -> None:
    assert parse_lengths("512, 1024,") == [512, 1024]
    assert parse_lengths("") == []
    for text in ("0", "-1", "many", "1.5"):
        with pytest.raises(InputError, match="is no length"):
            parse_lengths(text)


def test_the_query_reaches_suites_and_is_never_mixed() -> None:
    found = tasks_with("ruler,perplexity", {"query": "agnostic"})
    assert [task.asks for task in found] == ["agnostic"] * 13 + [None]
    with pytest.raises(InputError, match="do not compare") as error:
        tasks_with("needle,vt(query='agnostic')", {})
    assert "\n" not in str(error.value)


def test_a_text_and_a_chat_reach_the_tasks_that_take_them_and_are_refused_where_none_does() -> None:
    needle, perplexity = tasks_with("needle,perplexity", {"text": "a.txt", "chat": True})
    assert "chat=True" in str(needle)
    assert "text='a.txt'" in str(perplexity) or 'text="a.txt"' in str(perplexity)
    with pytest.raises(InputError, match=r"`text` is set, and none of the tasks 'needle' has it; .* bits_per_byte"):
        tasks_with("needle", {"text": "a.txt"})
    with pytest.raises(InputError, match="`chat` is set, and none of the tasks 'perplexity' has it"):
        tasks_with("perplexity", {"chat": True})
