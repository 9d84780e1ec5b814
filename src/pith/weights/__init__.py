"""The weights' runtime: what a method that changes weights acts through.

A `Compressor` is given a model of its own and a `Calibration`; blocks are walked one after another; packed layers and
other `StandIn`s take the places of plain modules, and are saved and loaded with the model.
"""

from pith.weights.anatomy import Parts, heads, parts
from pith.weights.blocks import Stage, block_name, blocks, walk
from pith.weights.calibration import AUTO, PROSE, PYTHON, Calibration, Source, calibration, of_tokens
from pith.weights.compressor import Compressor, Pruner, compress
from pith.weights.experts import SplitExperts, fuse_experts, split_experts
from pith.weights.grid import Grid, fit_grid
from pith.weights.hessian import SecondMoments, inverse_factor
from pith.weights.linears import block_linears, is_linear, linears, set_bias, set_weight, weight_of
from pith.weights.model_hash import model_hash, tokenizer_hash
from pith.weights.packed import PackedLinear, dense_of, pack_linear
from pith.weights.quantizer import Quantizer, WeightQuantizer
from pith.weights.standin import StandIn, layout, rebuild, stand_ins
from pith.weights.structure import Part, drop_part, keep_blocks, keep_channels, keep_heads, settle

__all__ = [
    "AUTO",
    "PROSE",
    "PYTHON",
    "Calibration",
    "Compressor",
    "Grid",
    "PackedLinear",
    "Part",
    "Parts",
    "Pruner",
    "Quantizer",
    "SecondMoments",
    "Source",
    "SplitExperts",
    "Stage",
    "StandIn",
    "WeightQuantizer",
    "block_linears",
    "block_name",
    "blocks",
    "calibration",
    "compress",
    "dense_of",
    "drop_part",
    "fit_grid",
    "fuse_experts",
    "heads",
    "inverse_factor",
    "is_linear",
    "keep_blocks",
    "keep_channels",
    "keep_heads",
    "layout",
    "linears",
    "model_hash",
    "of_tokens",
    "pack_linear",
    "parts",
    "rebuild",
    "set_bias",
    "set_weight",
    "settle",
    "split_experts",
    "stand_ins",
    "tokenizer_hash",
    "walk",
    "weight_of",
]
