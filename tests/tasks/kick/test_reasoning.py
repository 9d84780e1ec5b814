"""Chains of four steps, four of them."""

from __future__ import annotations

from pith.models import builtin
from pith.tasks.kick.reasoning import KickReasoning


def test_four_chains_of_four_steps() -> None:
    _, tokenizer = builtin()
    for example in KickReasoning(count=3).examples(tokenizer):
        assert example.context.count(" is ") == 16
        assert example.answer.count(" is ") == 3
    assert KickReasoning(count=3).calibrate(tokenizer).chance == 0.25
