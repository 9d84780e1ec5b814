"""A chat is written as the template says, and equal messages give equal text on every day."""

from __future__ import annotations

import datetime
import random
from functools import cache
from typing import Any

import pytest
import transformers.utils.chat_template_utils as templates

from pith.core import InputError
from pith.models import builtin
from pith.tasks.chat import DATE, encode_chat, ends_of_turn, render_chat
from pith.tasks.greedy import Prompt

NOON = datetime.datetime(2024, 7, 26, 12)
MESSAGES = [{"role": "user", "content": "hi"}]
loaded = cache(builtin)

LLAMA = """{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "never" %}
    {%- endif %}
{%- endif %}
{{ "Today Date: " + date_string + "\\n" }}{% for m in messages %}{{ m.content }}{% endfor %}"""
MACRO = """{%- macro head(model) -%}
    {{- "Current date: " + strftime_now("%Y-%m-%d") + "\\n" }}
{%- endmacro -%}
{{ head("x") }}{{ messages[0].content }}"""
INDENTED = "\n  {% if true %}{{ strftime_now('%A, %-d %B; 100%%d') }}{% endif %}\n  {{ messages[0].content }}"


def with_template(template: Any) -> Any:
    tokenizer = builtin()[1]
    tokenizer.chat_template = template
    return tokenizer


class Clock(datetime.datetime):
    """A clock that shows the time to which it is set."""

    at = NOON

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return cls.at


@pytest.mark.parametrize("template", [LLAMA, MACRO, INDENTED, {"default": LLAMA, "tools": MACRO}])
def test_a_date_is_the_fixed_one_on_every_day(template: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = with_template(template)
    monkeypatch.setattr(templates, "datetime", Clock)
    Clock.at = NOON
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert "26" in expected
    for Clock.at in (datetime.datetime(2026, 12, 31, 23, 59), datetime.datetime(2027, 1, 1, 0, 1)):
        assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) != expected
        assert render_chat(tokenizer, MESSAGES) == expected


@pytest.mark.parametrize("code", DATE)
def test_codes_are_those_of_the_c_locale(code: str) -> None:
    assert NOON.strftime(code) == DATE[code]


@pytest.mark.parametrize(
    "template", ["{{ range(9) | random }}", "{{ lipsum(1) }}", "{{ [range(9)] | map('random') | list }}"]
)
def test_chance_is_the_same_each_time_and_leaves_no_trace(template: str) -> None:
    tokenizer, written, drawn = with_template(template), set(), set()
    for seed in range(3):
        random.seed(seed)
        written.add(render_chat(tokenizer, MESSAGES))
        drawn.add(random.random())
    assert len(written) == 1
    assert len(drawn) == 3


def test_the_last_message_may_be_left_open() -> None:
    tokenizer = with_template(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}"
    )
    assert render_chat(tokenizer, MESSAGES) == "[user]hi[end][a]"
    assert render_chat(tokenizer, MESSAGES, answer=False) == "[user]hi"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('only\nusers') }}", "cannot write this chat: only; allowed is chat=False"),
        ("{% bad", "Encountered unknown tag 'bad'"),
        ("{{ messages[0].x.y }}", "has no attribute 'x'"),
        ({"tools": "x"}, "multiple chat templates with no default"),
        (5, "cannot write this chat"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ messages[0].content | upper }}", "does not write a message once as it is"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "does not write a message once as it is"),
        ("nothing", "does not write a message once as it is"),
        (None, "has no chat template"),
        ("", "has no chat template"),
    ],
)
def test_what_a_template_cannot_write_is_one_line(template: Any, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        Prompt.of(with_template(template), " apple is 4821.", "\nRecall: apple is", 4, chat=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_markup_in_a_message_is_refused() -> None:
    tokenizer = with_template("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    with pytest.raises(InputError, match="chat=True is not allowed for a text that holds '</s>'"):
        Prompt.of(tokenizer, " a.</s>", "\nb", 4, chat=True)
    prompt = Prompt.of(tokenizer, " a.", "\nb", 4, chat=True)
    assert prompt.context[0] == tokenizer.bos_token_id, "the template's own are read as tokens"
    assert prompt.question[-1] == tokenizer.eos_token_id


def test_a_chat_as_tokens_has_no_second_beginning_and_no_foreign_markup() -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = with_template(template)
    tokens = encode_chat(tokenizer, MESSAGES)
    assert tokens.count(tokenizer.bos_token_id) == 1
    assert tokens[-1] == tokenizer.eos_token_id
    with pytest.raises(InputError, match="for a text that holds") as caught:
        encode_chat(tokenizer, [{"role": "user", "content": f"hi{tokenizer.eos_token}"}])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("end", "found"),
    [("{{ eos_token }}\n", True), (" {{ eos_token }}", True), ("\n", False), ("{% if false %}{% endif %}", False)],
)
def test_the_token_that_ends_a_turn(end: str, found: bool) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + end + "{% endfor %}"
    tokenizer = with_template(template)
    assert ends_of_turn(tokenizer) == ((tokenizer.eos_token_id,) if found else ())


def test_without_a_template_nothing_ends_a_turn() -> None:
    assert ends_of_turn(with_template(None)) == ()
