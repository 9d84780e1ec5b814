"""Tokenizers that differ in what they add to a text and in how they cut it, all made without files."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import ByteLevel, TemplateProcessing
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pith.models import builtin

CHARACTERS = "".join(chr(code) for code in range(33, 127)) + "\n"


@cache
def _plain() -> Any:
    return builtin()[1]


def templated(single: str) -> Any:
    """The built-in tokenizer with another template around a text, such as `"<s> $A </s>"`."""
    found = copy.deepcopy(_plain())
    added = [(token, found.convert_tokens_to_ids(token)) for token in ("<s>", "</s>", "<pad>")]
    found.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=added
    )
    return found


def nothing_added() -> Any:
    """The built-in tokenizer without a token before a text."""
    found = copy.deepcopy(_plain())
    found.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    found.bos_token = None
    return found


def padding_right() -> Any:
    """The built-in tokenizer that pads on the right and has no padding token."""
    found = copy.deepcopy(_plain())
    found.padding_side, found.pad_token = "right", None
    return found


def metaspace(scheme: str, single: str = "<s> $A") -> Any:
    """A tokenizer of characters that writes blanks as sentencepiece does, with one before the text."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "\u2581", *CHARACTERS])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bare_bytes() -> Any:
    """A tokenizer of bytes without any special token."""
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def words_only() -> Any:
    """A tokenizer that knows a few words, and reads everything else as unknown."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", "is", ".", "Recall", ":", "a", "the"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


ODD = {
    "appends": lambda: templated("<s> $A </s>"),
    "appends only": lambda: templated("$A </s>"),
    "two before": lambda: templated("<pad> <s> $A"),
    "nothing added": nothing_added,
    "padding right": padding_right,
    "blank first": lambda: metaspace("first"),
    "blank always": lambda: metaspace("always", "<s> $A </s>"),
    "bytes": bare_bytes,
    "words": words_only,
    "python": ByT5Tokenizer,  # it appends an end token, and is not made of the `tokenizers` library
}
"""Each by a name, as a function that makes it."""
