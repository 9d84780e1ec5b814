"""A chat answers as the model itself would, turn by turn, and its cache stays where that changes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cli.commands import pith_, refused
from pith.cli import app
from pith.cli.chat import Chat
from pith.cli.generate import Options
from pith.core import InputError, Recipe
from pith.models import Subject, builtin, load

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
LAST_ONLY = "{{ bos_token }}user: {{ messages[-1]['content'] }}{{ eos_token }}assistant: "
QUESTIONS = ["The import statement", "The for statement"]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the built-in model and a chat template."""
    folder = tmp_path_factory.mktemp("talker")
    model, tokenizer = builtin()
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def plain_answers(folder: str, questions: list[str], most: int, *before: dict[str, str]) -> list[str]:
    """What plain Transformers answers, reading the whole chat anew at each turn."""
    loaded = load(folder)
    messages, found = list(before), []
    for question in questions:
        messages.append({"role": "user", "content": question})
        inputs = loaded.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = loaded.model.generate(**inputs, max_new_tokens=most, do_sample=False)
        text = loaded.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        messages.append({"role": "assistant", "content": text})
        found.append(text)
    return found


def lines(text: str) -> str:
    return " ".join(text.split())


def test_one_turn_is_answered_in_the_template(talker: str) -> None:
    [wanted] = plain_answers(talker, QUESTIONS[:1], 8)
    found = pith_("generate", talker, QUESTIONS[0], "--chat", "--max-new-tokens", "8")
    assert found.exit_code == 0, found.output
    assert lines(found.stdout) == lines(wanted)
    assert re.fullmatch(r"dense: read \d+ tokens .*; cut off at --max-new-tokens 8\n", found.stderr)
    plain = pith_("generate", talker, QUESTIONS[0], "--max-new-tokens", "8")
    assert lines(plain.stdout) != lines(wanted)


def test_turns_are_read_from_a_file_or_from_stdin(talker: str, tmp_path: Path) -> None:
    wanted = plain_answers(talker, QUESTIONS, 6, {"role": "system", "content": "Be short."})
    (tmp_path / "turns.txt").write_text("\n\n".join(QUESTIONS))
    rows = [{"role": "system", "content": "Be short."}, *({"role": "user", "content": one} for one in QUESTIONS)]
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["generate", talker, "--chat", "--max-new-tokens", "6"]
    system = ["--system", "Be short."]
    for found in (
        pith_(*words, *system, "--turns", str(tmp_path / "turns.txt")),
        pith_(*words, "--turns", str(tmp_path / "turns.jsonl")),
        CliRunner().invoke(app, [*words, *system], input="\n".join(["", *QUESTIONS])),
    ):
        assert found.exit_code == 0, found.output
        assert lines(found.stdout) == lines(" ".join(wanted))
        assert found.stderr.count("dense: read") == 2
    assert "> The for statement" in pith_(*words, "--turns", str(tmp_path / "turns.txt")).stderr


def test_given_answers_are_not_written_anew(talker: str, tmp_path: Path) -> None:
    before = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    [wanted] = plain_answers(talker, QUESTIONS[:1], 6, *before)
    path = tmp_path / "turns.jsonl"
    path.write_text("\n".join(map(json.dumps, [*before, {"role": "user", "content": QUESTIONS[0]}])))
    found = pith_("generate", talker, "--chat", "--turns", str(path), "--max-new-tokens", "6")
    assert lines(found.stdout) == lines(wanted)


def chat(template: str, recipe: str = "dense", **values: Any) -> Chat:
    model, tokenizer = builtin()
    tokenizer.chat_template = template
    examined = Subject(model, tokenizer, Recipe.parse(recipe))
    return Chat(examined, examined.recipe or Recipe(), Options("builtin", max_new_tokens=6, chat=True, **values))


def read(line: str) -> int:
    return int(line.partition("read ")[2].partition(" ")[0])


@pytest.mark.parametrize("recipe", ["dense", "streaming_llm(budget=1.0)"])
def test_the_cache_stays_and_only_the_new_turn_is_read(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept, anew = chat(TEMPLATE, recipe), chat(TEMPLATE, recipe)
    for question in QUESTIONS:
        anew._cache = None
        with kept.examined.applied():
            line = kept.ask(question)
        with anew.examined.applied():
            whole = anew.ask(question)
        assert kept.messages == anew.messages
    assert 0 < read(line) < read(whole) / 2
    assert "cut off" in line


def test_a_recipe_keeps_its_small_cache_from_turn_to_turn(capsys: pytest.CaptureFixture[str]) -> None:
    small = chat(TEMPLATE, "streaming_llm(budget=16)")
    with small.examined.applied():
        for question in [" ".join(QUESTIONS * 8), *QUESTIONS]:
            line = small.ask(question)
            assert small._cache.layers[0].keys.shape[-2] <= 64 + 16
    assert read(line) < 24


def test_a_template_that_drops_earlier_turns_has_the_chat_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    forgetful = chat(LAST_ONLY)
    with forgetful.examined.applied():
        for question in QUESTIONS:
            line = forgetful.ask(question)
    tokenizer = forgetful.examined.tokenizer
    last = tokenizer.apply_chat_template([{"role": "user", "content": QUESTIONS[-1]}], return_dict=True)
    assert read(line) == len(last["input_ids"])


def test_an_answer_ends_with_its_turn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ended = chat(TEMPLATE)
    end = ended.examined.tokenizer.eos_token_id
    forward = ended.examined.model.lm_head.forward

    def ending(hidden: torch.Tensor) -> torch.Tensor:
        logits = forward(hidden)
        logits[..., end] = logits.amax() + 1
        return logits

    monkeypatch.setattr(ended.examined.model.lm_head, "forward", ending)
    monkeypatch.setattr(ended.examined.model.generation_config, "eos_token_id", None)
    with ended.examined.applied():
        line = ended.ask("hi")
    assert "wrote 1;" in line
    assert "cut off" not in line
    assert ended.messages[-1] == {"role": "assistant", "content": ""}


def test_a_typed_turn_that_cannot_be_answered_is_one_line_and_the_chat_continues(talker: str) -> None:
    words = ["generate", talker, "--chat", "--max-new-tokens", "4"]
    found = CliRunner().invoke(app, words, input=f"a </s> b\n{QUESTIONS[0]}\n")
    assert found.exit_code == 0, found.output
    assert "pith: chat=True is not allowed for a text that holds '</s>'" in found.stderr
    assert lines(found.stdout) == lines(plain_answers(talker, QUESTIONS[:1], 4)[0])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--chat", "hi"], r"--chat needs a chat template, and the tokenizer of '.*' has none; leave"),
        (["hi", "--system", "x"], "--system is for chats; add --chat"),
        (["--turns", "x.txt"], "--turns is for chats; add --chat"),
        (["hi", "--chat", "--turns", "x.txt"], "a prompt and --turns are both given; leave one out"),
        ([], "the prompt is missing; give the model a text to continue, or --chat"),
    ],
)
def test_mistakes_are_one_line(model: str, words: list[str], why: str) -> None:
    line = refused("generate", model, *words)
    assert re.search(why, line)
    assert len(line) < 300 + len(model)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", '{"role": "user", "content": "hi"}\nhi', "line 2 of .* is not a turn; allowed is an object with"),
        ("a.jsonl", '{"role": "tool", "content": "hi"}', "line 1 of .* is not a turn"),
        ("a.jsonl", '{"role": "user", "content": "a"}\n{"role": "system", "content": "b"}', "line 2 .* is not a turn"),
        ("a.jsonl", '{"role": "assistant", "content": "hi"}', "has no turn of the user"),
        ("a.txt", "\n \n", "has no turn of the user; write at least one line"),
        ("none.txt", None, "--turns .*none.txt.* cannot be read"),
    ],
)
def test_files_that_hold_no_turns(talker: str, tmp_path: Path, name: str, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert re.search(why, refused("generate", talker, "--chat", "--turns", str(tmp_path / name)))


def test_a_chat_longer_than_the_positions_is_refused_and_stays_as_it_was() -> None:
    long = chat(TEMPLATE)
    with pytest.raises(InputError, match="the chat takes"):
        long.ask("word " * 5000)
    assert long.messages == []
