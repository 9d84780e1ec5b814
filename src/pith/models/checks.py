"""What is found once, when a model is loaded, and would be a wrong result or a foreign error later."""

from __future__ import annotations

import warnings
from typing import Any

from pith.core import ModelError, PithWarning


def require_rows(tokenizer: Any, model: Any, name: str) -> None:
    """Raise if the tokenizer gives tokens for which the model has no row of embeddings.

    Special tokens beyond the rows count only if a text is begun, ended or marked with them; of others, such as the
    placeholder of an image, a warning tells that texts must not hold them. A padding token beyond the rows gives way to
    another one, since the attention mask hides it.

    Args:
        tokenizer: the tokenizer; its padding token may be changed.
        model: a Transformers model.
        name: of the model, for the message.

    Raises:
        ModelError: there are such tokens.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not beyond:
        return
    if tokenizer.pad_token in beyond:
        tokenizer.pad_token = padding_of(tokenizer)
    special = {str(one) for one in tokenizer.added_tokens_decoder.values() if one.special}
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token}
    used |= set(tokenizer.convert_ids_to_tokens(tokenizer("").input_ids))
    if given := sorted((index, token) for token, index in beyond.items() if token not in special or token in used):
        raise ModelError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens and the model {rows} rows of embeddings: "
            f"{len(given)} tokens have none, such as {given[0][1][:40]!r} ({given[0][0]})"
        )
    warnings.warn(
        f"{len(beyond)} special tokens of {name} have no row of embeddings, such as {min(beyond)[:40]!r}: "
        "texts that hold them cannot be read",
        PithWarning,
        stacklevel=3,
    )


def padding_of(tokenizer: Any) -> str:
    """Return a token to pad with: the attention mask hides it, but what pads is left out of decoded texts, so that one
    that is special already is taken where there is one."""
    own = next((str(one) for one in tokenizer.added_tokens_decoder.values() if one.special), None)
    named = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token or own
    return str(named or tokenizer.convert_ids_to_tokens(0))
