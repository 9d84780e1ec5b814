"""How long a text a model can read."""

from __future__ import annotations

from typing import Any

from pith.core import InputError


def require_positions(model: Any, tokens: int, what: str) -> None:
    """Refuses a text that is longer than the positions for which the model was made.

    Args:
        model: a Transformers model; one that states no positions takes any length.
        tokens: the text's length.
        what: what makes it that long, for the message, such as `"length=8192"`.

    Raises:
        InputError: the text is too long.
    """
    allowed = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if allowed is not None and tokens > allowed:
        raise InputError(
            f"{what} takes {tokens} tokens, which {type(model).__name__} cannot read; allowed are at most {allowed}"
        )
