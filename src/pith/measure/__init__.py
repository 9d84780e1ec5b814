"""Measuring: bytes, seconds and quality of one recipe on one model.

Bytes are what tensors hold; seconds are paired with the dense model's in the same run; quality is what tasks find.
"""

from pith.measure.bytes import cache_bytes
from pith.measure.cost import Progress, costs, costs_together
from pith.measure.measurement import (
    Answer,
    Bandwidth,
    CacheBytes,
    Costs,
    Measurement,
    Memory,
    Speed,
    from_json,
    to_json,
)
from pith.measure.run import answer, measure
from pith.measure.together import answer_together
from pith.weights.size import weight_bytes

__all__ = [
    "Answer",
    "Bandwidth",
    "CacheBytes",
    "Costs",
    "Measurement",
    "Memory",
    "Progress",
    "Speed",
    "answer",
    "answer_together",
    "cache_bytes",
    "costs",
    "costs_together",
    "from_json",
    "measure",
    "to_json",
    "weight_bytes",
]
