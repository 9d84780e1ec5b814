"""Answers are those of one prompt read alone, and an agnostic question comes after the cache was made smaller."""

from __future__ import annotations

import copy
import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.attention.step import Step
from pith.cache.snapkv import SnapKV
from pith.core import InputError, ModelError, Recipe
from pith.models import builtin
from pith.tasks.base import Query
from pith.tasks.greedy import Prompt, greedy

loaded = cache(builtin)


class Spelled:
    """A tokenizer that shows tokens as numbers."""

    pad_token_id, eos_token_id = 0, None

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def prompts(sizes: list[tuple[int, int]], most: int = 4) -> list[Prompt]:
    rows = [tokens(1, sum(size), seed=i)[0].tolist() for i, size in enumerate(sizes)]
    return [Prompt(tuple(row[:c]), tuple(row[c:]), most) for row, (c, _) in zip(rows, sizes, strict=True)]


@torch.no_grad()
def alone(model: Any, prompt: Prompt) -> str:
    """The best next token again and again, each time from a forward over everything without a cache."""
    ids = [*prompt.context, *prompt.question]
    for _ in range(prompt.most):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return " ".join(map(str, ids[-prompt.most :]))


@pytest.mark.parametrize("query", ["aware", "agnostic"])
@pytest.mark.parametrize("name", MAKERS)
def test_each_row_answers_as_it_would_alone(name: str, query: Query) -> None:
    asked = prompts([(9, 3), (14, 3), (21, 3), (9, 5)])
    expected = [alone(tiny(name), prompt) for prompt in asked]
    assert greedy(tiny(name), Spelled(), asked, query, batch_size=3) == expected


@pytest.mark.parametrize("query", ["aware", "agnostic"])
def test_learned_positions_are_counted_without_padding(query: Query) -> None:
    torch.manual_seed(0)
    settings = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
    model, asked = GPT2LMHeadModel(settings).eval(), prompts([(9, 3), (14, 3), (21, 3)])
    model.generation_config.eos_token_id = None
    assert greedy(model, Spelled(), asked, query, batch_size=3) == [alone(model, prompt) for prompt in asked]


@pytest.mark.parametrize("query", ["aware", "agnostic"])
@pytest.mark.parametrize("recipe", ["snapkv(budget=0.4, window=4)", "streaming_llm(budget=8)", "h2o(budget=0.4)"])
def test_the_batch_size_changes_nothing(recipe: str, query: Query) -> None:
    asked, model = prompts([(40, 3), (24, 3), (33, 5), (17, 3), (29, 5)], most=6), tiny("llama_gqa")
    with pith.applied(model, Recipe.parse(recipe)):
        answers = [greedy(model, Spelled(), asked, query, batch_size=size) for size in (1, 2, 5)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] != greedy(model, Spelled(), asked, query), "nothing was dropped that mattered"


def test_progress_is_told_and_each_row_ends_where_it_may() -> None:
    asked = [Prompt(p.context, p.question, most) for p, most in zip(prompts([(5, 2), (6, 3)]), (2, 5), strict=True)]
    told: list[tuple[int, int]] = []
    answers = greedy(tiny("qwen3"), Spelled(), asked, progress=lambda done, total: told.append((done, total)))
    assert [len(answer.split()) for answer in answers] == [2, 5]
    assert told == [(2, 2)]


def test_an_agnostic_question_is_not_seen_when_the_cache_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []  # of the first layer: queries, stored pairs, the latest of their positions
    score = SnapKV.score

    def spying(self: SnapKV, step: Step) -> torch.Tensor:
        if step.layer == 0:
            seen.append((step.query.shape[2], step.stored, int(step.store.positions.max())))
        return score(self, step)

    monkeypatch.setattr(SnapKV, "score", spying)
    asked, model = prompts([(40, 6)], most=2), tiny("llama_gqa")
    with pith.applied(model, Recipe([SnapKV(budget=10, window=4)])):
        greedy(model, Spelled(), asked, "agnostic")
        # the context alone; then what was kept of it, and the question
        assert seen == [(40, 40, 39), (6, 16, 45)]
        seen.clear()
        greedy(model, Spelled(), asked, "aware")
        assert seen == [(46, 46, 45)]


def test_two_texts_are_the_tokens_of_one() -> None:
    tokenizer = loaded()[1]
    context, question = " apple is 4821. river is 1093.", "\nRecall: apple is"
    prompt = Prompt.of(tokenizer, context, question, 4)
    assert [*prompt.context, *prompt.question] == tokenizer(context + question).input_ids
    assert list(prompt.context) == tokenizer(context).input_ids
    assert prompt.most == 4


def test_a_token_over_the_border_is_the_questions() -> None:
    words = ["<unk>", "#", "a", "b", ".", "\n", ".\n"]
    made = Tokenizer(BPE({word: i for i, word in enumerate(words)}, [(".", "\n")], unk_token="<unk>"))
    # and a token that ends every text, which no prompt has
    made.post_processor = TemplateProcessing(single="$A #", special_tokens=[("#", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="#")
    assert tokenizer("ab.\nb").input_ids == [2, 3, 6, 3, 1]
    prompt = Prompt.of(tokenizer, "ab.", "\nb", 1)
    assert [words[i] for i in prompt.context] == ["a", "b"]
    assert [words[i] for i in prompt.question] == [".\n", "b"]


@pytest.mark.parametrize("query", ["aware", "agnostic"])
def test_a_prompt_without_tokens_is_refused(query: Query) -> None:
    with pytest.raises(InputError, match="a prompt is empty"):
        greedy(tiny("llama_gqa"), Spelled(), [*prompts([(4, 2)]), Prompt((), (), 2)], query)


@pytest.mark.parametrize("prompt", [Prompt((), (5, 6), 2), Prompt((5, 6), (), 2)])
def test_an_agnostic_question_needs_a_context_and_a_question(prompt: Prompt) -> None:
    with pytest.raises(InputError, match="query='agnostic' needs a context and a question of one token or more"):
        greedy(tiny("llama_gqa"), Spelled(), [prompt], "agnostic")
    assert len(greedy(tiny("llama_gqa"), Spelled(), [prompt])[0].split()) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("query", ["aware", "agnostic"])
def test_logits_that_are_not_finite_are_no_answer(bad: float, query: Query) -> None:
    model = copy.deepcopy(tiny("llama_gqa"))
    model.lm_head.weight.data[7] = bad
    with pytest.raises(ModelError, match="LlamaForCausalLM in float32 computes logits that are not finite") as caught:
        greedy(model, Spelled(), prompts([(9, 3), (14, 3)]), query)
    assert len(str(caught.value)) < 300


def test_a_token_that_cannot_come_is_no_mistake() -> None:
    model = copy.deepcopy(tiny("llama_gqa"))
    asked = prompts([(9, 3), (14, 3)])
    free = greedy(model, Spelled(), asked)
    best = int(free[0].split()[0])
    model.lm_head.register_forward_hook(lambda module, given, out: out.index_fill(-1, torch.tensor([best]), -math.inf))
    assert str(best) not in greedy(model, Spelled(), asked)[0].split()


def test_tokens_that_only_the_model_has_are_left_out_of_an_answer() -> None:
    tokenizer, model = ByT5Tokenizer(), copy.deepcopy(tiny("llama_gqa"))
    model.resize_token_embeddings(600)
    model.lm_head.weight.data.zero_()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(600).index_fill(0, torch.tensor([599]), 1.0))
    assert greedy(model, tokenizer, prompts([(9, 3)])) == [""]


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_the_template_stands_around_both() -> None:
    tokenizer = builtin()[1]
    tokenizer.chat_template = TEMPLATE
    prompt = Prompt.of(tokenizer, " apple is 4821.", "\nRecall: apple is", 4, chat=True)
    assert tokenizer.decode(prompt.context) == f"{tokenizer.bos_token}[user]apple is 4821."
    assert tokenizer.decode(prompt.question) == "\nRecall: apple is[end][assistant]"


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(InputError, match=r"chat=True is not allowed: the tokenizer \w+ has no chat template") as caught:
        Prompt.of(loaded()[1], " a.", "\nb", 1, chat=True)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_cache_is_refused() -> None:
    class Forgetful(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            return SimpleNamespace(logits=None)

    with pytest.raises(ModelError, match="Forgetful gives no key-value cache back"):
        greedy(Forgetful(), Spelled(), prompts([(3, 2)]), "agnostic")
