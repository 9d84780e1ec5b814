"""Texts are encoded as the tokenizer begins a sequence, never as it ends one, and markup in them is plain text."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.odd_tokenizers import ODD, metaspace, templated
from pith.core import InputError
from pith.models import builtin
from pith.weights import calibration
from pith.weights.encoding import beginning, encode

TEXT = " apple is 4821.\nRecall: apple is"


@pytest.mark.parametrize("name", ODD)
def test_a_text_is_what_the_tokenizer_makes_of_it_without_an_end(name: str) -> None:
    tokenizer = ODD[name]()
    whole, plain = tokenizer(TEXT).input_ids, tokenizer(TEXT, add_special_tokens=False).input_ids
    begin = list(beginning(tokenizer))
    assert encode(tokenizer, TEXT) == [*begin, *plain] == whole[: len(begin) + len(plain)]
    assert encode(tokenizer, TEXT, begin=False) == plain
    assert encode(tokenizer, "") == begin


@pytest.mark.parametrize(
    ("single", "begin"),
    [("<s> $A", ["<s>"]), ("<s> $A </s>", ["<s>"]), ("$A </s>", []), ("$A", []), ("<pad> <s> $A", ["<pad>", "<s>"])],
)
def test_only_what_stands_before_a_text_begins_it(single: str, begin: list[str]) -> None:
    tokenizer = templated(single)
    assert tokenizer.convert_ids_to_tokens(list(beginning(tokenizer))) == begin


@pytest.mark.parametrize("tokenizer", [builtin()[1], metaspace("first")], ids=["byte-level", "metaspace"])
def test_a_special_token_in_a_text_is_plain_text(tokenizer: Any) -> None:
    text = "a</s>b<s>c"
    found = encode(tokenizer, text)
    assert not {tokenizer.eos_token_id, tokenizer.bos_token_id} & set(found[1:])
    assert tokenizer.decode(found[1:]).strip() == text
    read = encode(tokenizer, text, markup=True)
    assert [token for token in read[1:] if token in (tokenizer.eos_token_id, tokenizer.bos_token_id)] == [
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
    ]
    # and nothing stays behind on the tokenizer
    assert tokenizer(text).input_ids == read


def test_a_special_token_that_is_a_word_of_the_vocabulary_is_refused() -> None:
    tokenizer = ODD["words"]()
    tokenizer.add_special_tokens({"eos_token": "the"})
    with pytest.raises(InputError, match=r"the text holds 'the', which \w+ reads as a special token everywhere"):
        encode(tokenizer, "is the a")


def test_bytes_that_are_not_utf8_are_refused_and_nul_is_read() -> None:
    tokenizer = builtin()[1]
    text = b"import \xff os".decode("utf-8", "surrogateescape")
    with pytest.raises(InputError, match=r"the text holds '\\udcff' at character 7, .* allowed is text in UTF-8"):
        encode(tokenizer, text)
    assert tokenizer.decode(encode(tokenizer, "a\0b", begin=False)) == "a\0b"


@pytest.mark.parametrize("single", ["<s> $A </s>", "$A </s>", "<pad> <s> $A"])
def test_a_calibration_begins_as_the_tokenizer_begins_a_text(single: str) -> None:
    tokenizer = templated(single)
    begin = list(beginning(tokenizer))
    rows = calibration(tokenizer, sequences=3, length=16).tokens.tolist()
    assert [row[: len(begin)] for row in rows] == [begin] * 3
    assert all(len(row) == 16 and tokenizer.eos_token_id not in row for row in rows)


def test_a_calibration_that_is_all_beginning_is_refused() -> None:
    with pytest.raises(InputError, match="length=2 is too short; allowed is more than the 2 tokens"):
        calibration(templated("<pad> <s> $A"), length=2)
