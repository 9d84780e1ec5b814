"""How free replies are compared with references."""

from __future__ import annotations

import re
import string
from collections import Counter

_SIGNS = {*string.punctuation, *"‘’´`"}


def begins_with(reply: str, answer: str) -> bool:
    """Whether a reply begins with the answer as a whole word; an empty one never does."""
    answer = answer.strip()
    return bool(answer) and re.match(rf"{re.escape(answer)}(?!\w)", reply.strip()) is not None


def token_f1(reply: str, reference: str) -> float:
    """The harmonic mean of the shares of words that reply and reference have in common; 0 where one is empty.

    Small letters, without punctuation and without "a", "an" and "the", as for TriviaQA and SQuAD.
    """
    ours, theirs = _words(reply), _words(reference)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _words(text: str) -> list[str]:
    plain = "".join(" " if sign in _SIGNS else sign for sign in text.replace("_", " ").lower())
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()
