"""Byte-level BPE tokenizer of 4096 tokens: digits stand alone, key words are one token each."""

from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pith.tasks import generate
from pith.tasks.words import KEY_WORDS
from pith.texts import KEY

VOCABULARY = 4096


def _texts(corpus: dict[str, list[str]]) -> Iterator[str]:
    yield from corpus["prose"]
    yield from corpus["source"]
    rng = Random(0)
    for _ in range(6000):
        yield generate.lookup(rng, 4).context + generate.recall(rng.choice(KEY_WORDS))
    # Often enough that every " word" earns a merge of its own.
    for _ in range(3000):
        yield generate.copying(rng, len(KEY_WORDS)).context


def train_tokenizer(corpus: dict[str, list[str]]) -> PreTrainedTokenizerFast:
    """Train on prose, sources and generated tasks; ``<s>`` is put before every text."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(corpus), trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        **{KEY: "pith"},
    )
