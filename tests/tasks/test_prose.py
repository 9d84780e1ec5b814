"""The prose is ordinary text that holds nothing which a question could be answered from."""

from __future__ import annotations

import re

from pith.tasks.prose import prose_text


def test_the_prose_is_ordinary_text_without_repetition() -> None:
    paragraphs = prose_text().splitlines()
    assert len(prose_text()) > 30_000
    assert prose_text().isascii()
    assert not re.search(r"\d|secret number|The special", prose_text())
    assert all(300 < len(one) < 900 and one[0].isupper() and one.endswith(".") for one in paragraphs)
    sentences = [sentence for one in paragraphs for sentence in re.split(r"(?<=[.!?]) ", one)]
    assert len({*sentences}) == len(sentences)
