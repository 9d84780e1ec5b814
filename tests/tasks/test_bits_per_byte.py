"""Bits per byte count each byte of the text once, also where a character is cut by a window's edge."""

from __future__ import annotations

import codecs
import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pith.core import InputError, Recipe
from pith.models import Subject, builtin
from pith.tasks.bits_per_byte import BitsPerByte
from pith.tasks.perplexity import Perplexity
from pith.tasks.text import tokens_of

FOREIGN = "naïve 日本語 😀 çà et là 🇫🇷 ελληνικά; " * 30
"""Text of which every second character is several bytes, and several tokens of the built-in model."""

loaded = cache(builtin)


def subject(recipe: str | None = None) -> Subject:
    model, tokenizer = loaded()
    return Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe))


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(FOREIGN, encoding="utf-8")
    return str(path)


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """A token's own bytes, by the table of byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    table.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)})
    return bytes(table[c] for c in tokenizer.convert_ids_to_tokens(token))


def finished(tokenizer: Any, tokens: tuple[int, ...]) -> int:
    """The bytes of the whole characters that tokens, the first ones of a text, spell."""
    text = codecs.getincrementaldecoder("utf-8")().decode(b"".join(token_bytes(tokenizer, t) for t in tokens))
    return len(text.encode())


@pytest.mark.parametrize(("scored", "bins"), [(5, 5), (6, 2), (1, 1), (13, 4)])
def test_bytes_are_those_of_characters_that_end_in_a_stretch(foreign: str, scored: int, bins: int) -> None:
    tokenizer = loaded()[1]
    task = BitsPerByte(text=foreign, length=9, scored=scored, count=12, bins=bins)
    tokens, held = tokens_of(tokenizer, FOREIGN), task.bytes(tokenizer)
    assert held.shape == (12, bins)
    for window, row in zip(task.windows(tokenizer).tolist(), held.tolist(), strict=True):
        # the text repeats itself, and so do its bytes: any place with these tokens will do
        start = next(i for i in range(len(tokens)) if list(tokens[i : i + len(window) - 1]) == window[1:])
        until = [finished(tokenizer, tokens[: start + 8 + edge]) for edge in task.edges()]
        assert row == [b - a for a, b in pairwise(until)]


def test_some_edges_cut_characters(foreign: str) -> None:
    tokenizer = loaded()[1]
    task = BitsPerByte(text=foreign, length=9, scored=1, count=30)
    sizes = set(task.bytes(tokenizer)[:, 0].tolist())
    assert {0, 1, 3} <= sizes, "an unfinished character, a letter, and a character that ends"


def test_windows_side_by_side_count_every_byte_once(foreign: str) -> None:
    tokenizer = loaded()[1]
    tokens = tokens_of(tokenizer, FOREIGN)
    whole = BitsPerByte(text=foreign, length=5, scored=len(tokens) // 2 - 4, count=2, bins=200)
    held = whole.bytes(tokenizer)
    first = len(tokens) // 2
    assert int(held[0].sum()) == finished(tokenizer, tokens[:first]) - finished(tokenizer, tokens[:4])
    # the second half ends with the text
    assert int(held[1].sum()) == finished(tokenizer, tokens[: 2 * first]) - finished(tokenizer, tokens[: first + 4])


@pytest.mark.parametrize("recipe", [None, "streaming_llm(budget=8)"])
def test_it_is_the_perplexity_in_other_words(foreign: str, recipe: str | None) -> None:
    tokenizer = loaded()[1]
    settings: dict[str, Any] = {"text": foreign, "length": 16, "scored": 12, "count": 4}
    task, other = BitsPerByte(**settings), Perplexity(**settings)
    found, losses = task.run(subject(recipe)), other.run(subject(recipe))
    held = task.bytes(tokenizer).sum(dim=1).tolist()
    bits = [score * 12 / math.log(2) for score in losses.scores]
    assert found.value == pytest.approx(sum(bits) / sum(held))
    assert found.scores == pytest.approx([b / (sum(held) / 4) for b in bits])
    assert sum(found.scores) / 4 == pytest.approx(found.value)
    assert found.low < found.value < found.high


def test_the_curve_weighs_its_stretches_by_bytes(foreign: str) -> None:
    task = BitsPerByte(text=foreign, length=16, scored=12, count=4, bins=3)
    found, held = task.run(subject()), task.bytes(loaded()[1]).sum(dim=0).tolist()
    assert [position for position, _ in found.curve] == [16, 20, 24]
    total = sum(score * size for (_, score), size in zip(found.curve, held, strict=True))
    assert total / sum(held) == pytest.approx(found.value)


def byte_tokenizer() -> Any:
    """A tokenizer of one token a byte."""
    pieces = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(pieces, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_models_with_other_tokenizers_compare(foreign: str) -> None:
    """A model that knows nothing needs 8 bits a byte with 256 tokens of a byte each."""
    tokenizer = byte_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    model = hf.LlamaForCausalLM(config).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    task = BitsPerByte(text=foreign, length=8, scored=64, count=4)
    found = task.run(Subject(model, tokenizer))
    # a character that the window cuts at its end has bits but no bytes, and the other way round at its beginning
    assert found.value == pytest.approx(8 * 64 * 4 / int(task.bytes(tokenizer).sum()))
    assert found.value == pytest.approx(8.0, rel=0.03)


def test_calibration(foreign: str) -> None:
    tokenizer = loaded()[1]
    task, other = (kind(text=foreign, length=16, scored=12, count=4) for kind in (BitsPerByte, Perplexity))
    found, chance = task.calibrate(tokenizer), other.calibrate(tokenizer).chance
    assert chance is not None
    assert found.oracle == 0.0
    assert found.chance == pytest.approx(math.log2(chance) * 48 / int(task.bytes(tokenizer).sum()))


def test_tokens_without_a_whole_character_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("😀" * 10, encoding="utf-8")
    task = BitsPerByte(text=str(path), length=2, scored=1, count=3)
    seed = next(
        s
        for s in range(200)
        if not BitsPerByte(text=str(path), length=2, scored=1, count=3, seed=s).bytes(byte_tokenizer()).sum()
    )
    task = BitsPerByte(text=str(path), length=2, scored=1, count=3, seed=seed)
    with pytest.raises(InputError, match="bits_per_byte: scored=1 tokens hold no whole character; allowed are more"):
        task.quality(torch.zeros(3, 1), byte_tokenizer())
