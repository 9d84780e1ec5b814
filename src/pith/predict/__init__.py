"""Predicting what a recipe would cost on this machine, without measuring it whole.

A few layers of the model are timed at short lengths; `pith.predict.advise` scales them to all layers and to the lengths
asked.
"""

from pith.predict.advice import Advice, Check, Forecast, Machine, Predicted, median_error

__all__ = ["Advice", "Check", "Forecast", "Machine", "Predicted", "median_error"]
