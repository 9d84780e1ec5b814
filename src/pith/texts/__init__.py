"""Texts that come with Pith, and which of them fit a model."""

from pith.texts.books import calibration_prose, held_out_prose
from pith.texts.language import KEY, Language, Spoken, language_of

__all__ = ["KEY", "Language", "Spoken", "calibration_prose", "held_out_prose", "language_of"]
