"""The languages in which generated questions are worded, and which of them a model reads."""

from __future__ import annotations

from typing import Any, Literal

Language = Literal["auto", "english", "pith"]
"""How questions are worded: in plain English, in the small language of the built-in model, or as the model needs."""

Spoken = Literal["english", "pith"]

KEY = "pith_language"
"""The key of `tokenizer_config.json` that names the language of the model's training; saved copies keep it."""


def language_of(tokenizer: Any, language: Language = "auto") -> Spoken:
    """Return a language; "auto" is that of the tokenizer's model: "pith" for the built-in one, else "english"."""
    if language != "auto":
        return language
    settings = getattr(tokenizer, "init_kwargs", None) or {}
    return "pith" if settings.get(KEY) == "pith" else "english"
