"""Packed models in the format of the library compressed-tensors, which Transformers and vLLM read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pith.core import InputError, ModelError, PithError, Recipe
from pith.weights.duplicate import duplicate
from pith.weights.grid import Grid, fitting_group
from pith.weights.packed import PackedLinear
from pith.weights.quantizer import WeightQuantizer
from pith.weights.standin import stand_ins

FORMAT = "pack-quantized"


@dataclass(frozen=True)
class _Scheme:
    """How a layer is stored: the bits of a code, inputs of a group (0 for a whole row), whether all zeros are equal."""

    bits: int
    group_size: int
    symmetric: bool


def missing() -> InputError | None:
    """What to say where the library is not installed."""
    if find_spec("compressed_tensors") is None:
        return InputError(
            "the format compressed-tensors needs the library of that name: pip install 'pith-lm[compressed-tensors]'"
        )
    return None


def refusal(model: Any) -> PithError | None:
    """Why a model cannot be written in this format; None if it can."""
    if error := missing():
        return error
    found = stand_ins(model)
    if not found:
        return ModelError("no layer is packed, so that there is nothing to write as compressed-tensors")
    plain = dict(_plain(model).named_modules())
    for name, layer in found.items():
        if not isinstance(layer, PackedLinear):
            return ModelError(f"compressed-tensors cannot hold {name}, which is {layer.kind}")
        if type(plain.get(name)) is not nn.Linear:
            return ModelError(f"compressed-tensors knows plain linear layers only, which {name} was not")
    try:
        schemes = set(_schemes(model).values())
    except ModelError as error:
        return error
    if len(schemes) > 1 and not all(scheme.symmetric for scheme in schemes):
        return ModelError(_mixed(len(schemes)))
    return None


def refusal_before(model: Any, recipe: Recipe) -> PithError | None:
    """Return why a model could not be written in this format with a recipe, as far as that is known before any work.

    What a recipe's only method of the weights stores is known from the shapes of the layers; of any other, only
    whether it packs layers at all.
    """
    if error := missing():
        return error
    method = next((one for one in recipe.weights if one.contract == "quantization"), None)
    if method is None:
        return ModelError("no layer will be packed, so that there is nothing to write as compressed-tensors")
    if len(recipe.weights) > 1 or not isinstance(method, WeightQuantizer):
        return None
    method = method.fitted_to(model)
    given, own = dict(model.named_modules()), duplicate(model)  # choosing may split experts
    sizes: dict[int, set[tuple[int, bool]]] = {}
    for name, bits in method.chosen(own).items():
        if type(layer := given.get(name)) is not nn.Linear:
            return ModelError(f"compressed-tensors knows plain linear layers only, which {name} is not")
        inputs = int(layer.in_features)
        size = method.group_of(bits, inputs)
        if inputs % size:
            return ModelError(_ragged(name, inputs, size))
        sizes.setdefault(bits, set()).add((size, size == inputs))
    schemes = {
        (bits, 0 if all(whole for _, whole in found) else size) for bits, found in sizes.items() for size, _ in found
    }
    if len(schemes) > 1 and not method.symmetric:
        return ModelError(_mixed(len(schemes)))
    return None


def _ragged(name: str, inputs: int, size: int) -> str:
    return (
        f"compressed-tensors needs rows of whole groups; {name} has {inputs} inputs in groups of {size}, for which "
        f"group_size={fitting_group([inputs])} fits"
    )


def _mixed(count: int) -> str:
    return f"Transformers reads {count} widths or group sizes in one model only where every grid is symmetric"


def write(model: Any, folder: Path) -> None:
    """Writes a packed model; the library packs the codes, and Transformers writes the files.

    Raises:
        ModelError: the format cannot hold the model.
    """
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

    schemes = _schemes(model)
    inside = tuple(f"{name}." for name in schemes)
    tensors = {key: one for key, one in model.state_dict().items() if not key.startswith(inside)}
    groups: dict[_Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        tensors.update({f"{name}.{key}": one for key, one in _held(model.get_submodule(name), scheme).items()})
        groups.setdefault(scheme, []).append(name)
    plain = _plain(model)
    plain.save_pretrained(folder, state_dict=tensors)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    linear = [name for name, one in plain.named_modules() if isinstance(one, nn.Linear)]
    config = QuantizationConfig(
        config_groups={
            f"group_{index}": QuantizationScheme(
                targets=names if len(groups) > 1 else ["Linear"], weights=_said(scheme)
            )
            for index, (scheme, names) in enumerate(groups.items())
        },
        ignore=[name for name in linear if name not in schemes],
        format=FORMAT,
        quantization_status="compressed",
    )
    ModelCompressor(quantization_config=config).update_config(folder)
    if not all(scheme.symmetric for scheme in groups):
        _decoded_at_load(folder / "config.json")


def _plain(model: Any) -> Any:
    """The model as plain Transformers has it, with tensors that hold nothing."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model.config, dtype=model.dtype)


def _schemes(model: Any) -> dict[str, _Scheme]:
    """How every packed layer is stored, by name: those of equal bits alike where they can be.

    Raises:
        ModelError: the format knows no such grid.
    """
    packed = {name: one for name, one in model.named_modules() if isinstance(one, PackedLinear)}
    grids = {name: _whole(name, layer) for name, layer in packed.items()}
    found = {}
    for name, grid in grids.items():
        alike = [other for other in grids.values() if other.bits == grid.bits]
        size = 0 if all(map(_of_rows, alike)) else grid.group_size
        if size and packed[name].in_features % size:
            raise ModelError(_ragged(name, packed[name].in_features, size))
        found[name] = _Scheme(grid.bits, size, all(bool((one.zero == 2 ** (one.bits - 1)).all()) for one in alike))
    return found


def _of_rows(grid: Grid) -> bool:
    """Whether all groups of each row are equal."""
    return bool((grid.scale == grid.scale[:, :1]).all() and (grid.zero == grid.zero[:, :1]).all())


def _whole(name: str, layer: PackedLinear) -> Grid:
    """A layer's grid with whole zeros.

    Raises:
        ModelError: they are not, or lie outside the codes.
    """
    grid = layer.grid_codes()[0]
    zero = grid.zero.round()
    # zeros are stored times scale, with as many digits as the dtype has
    if (grid.zero - zero).abs().max() > max(16 * torch.finfo(layer.scales.dtype).eps, 1e-3):
        raise ModelError(f"compressed-tensors knows whole zeros only, which those of {name} are not")
    if zero.min() < 0 or zero.max() > grid.largest:
        raise ModelError(f"compressed-tensors knows zeros among the codes only; those of {name} are not")
    return replace(grid, zero=zero)


def _said(scheme: _Scheme) -> Any:
    """A scheme in the library's words."""
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs(
        num_bits=scheme.bits, type="int", symmetric=scheme.symmetric,
        strategy="group" if scheme.group_size else "channel", group_size=scheme.group_size or None,
    )  # fmt: skip


def _held(layer: PackedLinear, scheme: _Scheme) -> dict[str, Tensor]:
    """The tensors of a layer as the library packs them."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    codes, grid = layer.grid_codes()[1], _whole("", layer)
    groups = slice(None) if scheme.group_size else slice(0, 1)
    given = {
        "weight": grid.values(codes),
        "weight_scale": grid.scale[:, groups],
        "weight_zero_point": (grid.zero[:, groups] - 2 ** (grid.bits - 1)).to(torch.int8),
    }
    packer = BaseCompressor.get_value_from_registry(FORMAT)
    held: dict[str, Tensor] = packer.compress(given, QuantizationScheme(targets=["Linear"], weights=_said(scheme)))
    held["weight_scale"] = held["weight_scale"].to(layer.scales.dtype)
    return held | ({} if layer.bias is None else {"bias": layer.bias})


def _decoded_at_load(path: Path) -> None:
    """Lets Transformers decode the weights when it loads them.

    It would otherwise do so at the first forward, in which the library, from 0.18 to 0.20, cannot read zero points.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"]["dequantize"] = True
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
