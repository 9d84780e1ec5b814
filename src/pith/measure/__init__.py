"""Measuring: bytes, seconds and quality of one recipe on one model.

Bytes are what tensors hold; seconds are paired with the dense model's in the same run; quality is what tasks find.
"""

from pith.measure.bytes import cache_bytes
from pith.measure.measurement import CacheBytes, Measurement, Speed, from_json, to_json
from pith.measure.run import Progress, measure

__all__ = [
    "CacheBytes",
    "Measurement",
    "Progress",
    "Speed",
    "cache_bytes",
    "from_json",
    "measure",
    "to_json",
]
