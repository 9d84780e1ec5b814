"""Round to nearest: the baseline of all quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pith.core import Paper
from pith.weights import Calibration, WeightQuantizer


@dataclass(frozen=True, kw_only=True)
class RTN(WeightQuantizer):
    """Round every weight to the nearest value of its group's grid; nothing is read.

        scale = (max(w, 0) - min(w, 0)) / (2^bits - 1), zero = round(-min(w, 0) / scale)
        code  = clamp(round(w / scale) + zero, 0, 2^bits - 1)                                               (asymmetric)

    The baseline that every other method of the family has to beat, in any paper's tables. With 8 bits there is one
    scale a row, symmetric, which the processor's kernel reads.

    Deviates: the paper quantises activations too, and has one symmetric grid a row; here only weights are, in groups.
    """

    paper: ClassVar[Paper] = Paper(
        "2206.01861",
        "ZeroQuant: Efficient and Affordable Post-Training Quantization for Large-Scale Transformers",
        "Zhewei Yao, Reza Yazdani Aminabadi, Minjia Zhang, Xiaoxia Wu, Conglong Li, Yuxiong He",
        2022,
        "microsoft/DeepSpeed",
    )
    calibrated: ClassVar[bool] = False

    def change(self, model: Any, calibration: Calibration) -> None:
        """Rounds layer by layer."""
        self.round_all(model, calibration)
