"""The catalogue: a table of all methods by the question that they answer, and a card for each; the tasks likewise."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from figures import measured
from marked import block, plain, table

import pith
from pith.core import Method, Parameter
from pith.core.parameters import written
from pith.report.cards import reads
from pith.tasks import Task, tasks
from pith.tasks.registry import SUITES

TESTS = Path(__file__).parents[2] / "tests"
FIRST = ("pruning", "quantization", "eviction", "allocation", "storage", "reading")
"""The order in which contracts are told; others follow by their names."""

RUN_OVER = {
    "EVICTIONS": ("eviction",),
    "COMBINATORS": ("allocation",),
    "RETENTIONS": ("eviction", "allocation"),
    "STORAGES": ("storage",),
    "READINGS": ("reading",),
    "COMPRESSORS": ("pruning", "quantization"),
}
"""The contracts behind the lists of methods over which the laws run."""

LISTS = ("contracts.variants", "contracts.compressors")
"""The modules in `tests` that hold those lists."""


def pages() -> dict[str, str]:
    """Every page, by its path."""
    cards = {f"methods/{name}.md": card(method) for name, method in pith.methods().items()}
    asked = {f"tasks/{name}.md": task_card(task) for name, task in tasks().items()}
    return {"methods/index.md": methods_page(), "tasks/index.md": tasks_page(), **cards, **asked}


def methods_nav() -> list[Any]:
    """The table first, then the cards by their contract."""
    groups = groupby(sorted(pith.methods().values(), key=told), key=lambda m: m.contract)
    return [
        {"All methods": "methods/index.md"},
        *({contract.capitalize(): [{m.name: f"methods/{m.name}.md"} for m in group]} for contract, group in groups),
    ]


def tasks_nav() -> list[Any]:
    """The table first, then the tasks, those of a suite together."""
    groups = {name: [{t.name: f"tasks/{t.name}.md"} for t in members] for name, members in task_groups().items()}
    return [{"All tasks": "tasks/index.md"}, *groups.pop(""), *({name: pages} for name, pages in groups.items())]


def methods_page() -> str:
    """All methods, by the question that they answer."""
    found = pith.methods()
    text = [
        "# The methods",
        f"{len(found)} methods are registered. A recipe holds one answer to each question, and to which weights are "
        "removed several, so that `sleb(drop=1) + gptq(bits=4) + snapkv(budget=0.25)` is a recipe, and "
        "`ada_kv(snapkv(budget=0.25)) + kivi(bits=2)` is one; one that cannot be is refused when it is built, "
        "with the reason. This page and the cards behind it are made from the registry: what stands here is what the "
        "code says.",
    ]
    for question, answers in groupby(sorted(found.values(), key=told), key=lambda m: m.question):
        text.append(f"## {sentence(question)}")
        for contract, members in groupby(answers, key=lambda m: m.contract):
            rows = [(f"{linked(m.name)} <small>{paper_link(m)}</small>", told_shortly(m)) for m in members]
            text += [f"Contract `{contract}`:", table(["method and paper", "what it does"], rows)]
    return "\n\n".join(text)


def told(method: type[Method]) -> tuple[int, int, str]:
    """The place of a method in lists: weights before attention before decoding, then by contract, then by name."""
    place = FIRST.index(method.contract) if method.contract in FIRST else len(FIRST)
    return method.order, place, f"{method.contract} {method.name}"


def card(method: type[Method]) -> str:
    """Everything that is known of a method."""
    paper = method.paper
    facts = [("question", plain(method.question)), ("contract", f"`{method.contract}`"), ("paper", source(method))]
    if texts := reads(method):
        facts.append(("texts", texts))
    if paper.code:
        facts.append(("authors' code", f"[{paper.code}](https://github.com/{paper.code})"))
    facts.append(("source", f"`src/{method.__module__.replace('.', '/')}.py`"))
    text = [
        "---\nhide: [toc]\n---",
        f"# `{method.name}`",
        prose(method.doc("summary")),
        table(["", ""], facts),
        "## Formula",
        block(narrow(method.doc("formula"))),
        "## Where it deviates from the paper",
        prose(sentence(method.doc("deviations"))),
        "## Parameters",
        parameters(method.parameters()),
        "## How it is checked",
        "\n".join(f"- `{path}`: {plain(what)}" for path, what in checks(method)),
        *measured(method.name),
        "## Use it",
        block(f"pith methods {method.name}\npith compare --recipe {method.name} --out results", "bash"),
    ]
    return "\n\n".join(text)


def checks(method: type[Method]) -> list[tuple[str, str]]:
    """The test files that are about the method, and what each says of itself; then the laws that run over it."""
    named = [*sorted(TESTS.rglob(f"test_{method.name}.py")), *sorted(TESTS.rglob(f"test_{method.name}_parity.py"))]
    laws = [path for path in sorted((TESTS / "contracts").glob("test_*.py")) if method.contract in contracts(path)]
    return [(path.relative_to(TESTS.parent).as_posix(), first_line(path)) for path in [*named, *laws]]


def contracts(laws: Path) -> set[str]:
    """The contracts of the methods that a file of laws runs over."""
    lists = {
        alias.name
        for node in ast.walk(ast.parse(laws.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in LISTS
        for alias in node.names
    }
    return {contract for name in lists for contract in RUN_OVER.get(name, ())}


def first_line(path: Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def task_groups() -> dict[str, list[type[Task]]]:
    """The tasks that stand alone, then each suite's."""
    found = tasks()
    suited = {name for names in SUITES.values() for name in names}
    alone = [task for name, task in found.items() if name not in suited]
    return {"": alone} | {suite: [found[name] for name in names] for suite, names in SUITES.items()}


def tasks_page() -> str:
    """All tasks, those of a suite together."""
    text = [
        "# The tasks",
        f"What quality means. {len(tasks())} tasks are registered; each gives a score with its 95 % interval, and says "
        "what an oracle and a guesser would score on the same examples. A list of tasks is text, such as "
        "`needle(length=2048,keys=16),perplexity`. This page and those behind it are made from the registry.",
        "Tasks that have a parameter `query` run query-aware or query-agnostic "
        "([what that means](../measuring.md#query-aware-and-query-agnostic)).",
    ]
    for suite, members in task_groups().items():
        if suite:
            text += [
                f"## {suite}",
                f"`{suite}` in a list of tasks stands for all of these; parameters given to it go to each.",
            ]
        rows = [(linked(t.name), told_shortly(t), metric(t)) for t in members]
        text.append(table(["task", "what it asks", "metric"], rows))
    return "\n\n".join(text)


def task_card(task: type[Task]) -> str:
    """Everything that is known of a task."""
    text = ["---\nhide: [toc]\n---", f"# `{task.name}`", prose(task.doc("summary")), f"Metric: {metric(task)}."]
    text += ["## Formula", block(narrow(task.doc("formula")))] if task.doc("formula") else []
    text += ["## Parameters", parameters(task.parameters())]
    text += ["## Use it", block(f"pith tasks {task.name}\npith compare --tasks {task.name} --out results", "bash")]
    return "\n\n".join(text)


def metric(task: type[Task]) -> str:
    """What the score is, and which way is better."""
    return f"{plain(task.metric)}; {'higher' if task.higher_is_better else 'lower'} is better"


def parameters(found: Sequence[Parameter]) -> str:
    """A table of parameters with their ranges."""
    if not found:
        return "It has none."
    rows = [(f"`{p.name}`", f"`{written(p.default)}`", plain(p.allowed), plain(p.doc)) for p in found]
    return table(["parameter", "default", "allowed", "what it is"], rows)


def prose(text: str) -> str:
    """A docstring's paragraphs; its lists stay lists, its indented blocks stay as they are."""
    return "\n\n".join(p if p.startswith(("    ", "- ")) else plain(p) for p in text.split("\n\n"))


def sentence(text: str) -> str:
    """With a capital at its beginning, unless that is a name in code."""
    return text[:1].upper() + text[1:]


def narrow(formula: str) -> str:
    """A formula whose remarks stand no further to the right than they must; what is aligned stays aligned.

    >>> print(narrow("a = b            (1)\\nab = cd          (2)"))
    a = b     (1)
    ab = cd   (2)
    """
    lines = formula.splitlines()
    width = max(map(len, lines), default=0)
    blank = [all(line[i : i + 4].strip() == "" for line in lines) for i in range(width)]
    return "\n".join("".join(c for c, drop in zip(line, blank, strict=False) if not drop) for line in lines)


def source(method: type[Method]) -> str:
    """The paper's title with its page, and who wrote it."""
    paper = method.paper
    title = f"[{plain(paper.title)}]({paper.url})" if paper.url else plain(paper.title)
    return f"{title}. {paper.authors}, {paper.year}"


def paper_link(method: type[Method]) -> str:
    """The arXiv id with its page; a baseline of Pith's own has none."""
    return f"[{method.paper.arxiv}]({method.paper.url})" if method.paper.url else "baseline"


def linked(name: str) -> str:
    """A name that leads to its card, which stands beside the table."""
    return f"[`{name}`]({name}.md)"


def told_shortly(what: type[Method] | type[Task]) -> str:
    """The first paragraph of what it does."""
    return plain(what.doc("summary").split("\n\n")[0])
