"""Writing a model in a format that others read; nothing stays that its reader does not read back as the same model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pith.core import InputError, ModelError, PithError, Recipe, resolve_path
from pith.core.folders import new_folder, write_manifest
from pith.models import compressed_tensors, gguf_export
from pith.models.quiet import silent
from pith.weights.folder import load_folder, write_files
from pith.weights.packed import PackedLinear
from pith.weights.ready import require_in_memory
from pith.weights.standin import stand_ins
from pith.weights.writing import write_errors

Kind = Literal["plain", "compressed-tensors", "gguf", "pith"]
KINDS = ("auto", "plain", "compressed-tensors", "gguf", "pith")
"""What `export` can be asked for."""

REST = "recipe.toml"
"""The file with the methods that act later, beside the model."""

_APART = {torch.float32: 1e-4}
"""How far logits may lie apart, by the dtype: in float32 they are summed in another order; below it a packed layer adds
zeros that were rounded, where the reader subtracts them from the codes. Those of another model lie apart by about 1."""

_GGUF_APART = 0.01
"""The same for gguf in float32, which rounds scales to float16."""

_TOKENS = 64
"""The tokens that both models read: more than packed layers multiply by a kernel of their own."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        format: one of "plain", "compressed-tensors", "gguf" and "pith".
        apart: the distance between the logits of what was read back and the model's, as a share of their length.
    """

    format: Kind
    apart: float


def kind_of(model: Any, kind: str = "auto", tokenizer: Any = None) -> Kind:
    """The format in which a model will be written.

    Args:
        model: the model.
        tokenizer: its tokenizer, which gguf holds too.
        kind: one of `KINDS`; "auto" takes the one that most others read: plain, else compressed-tensors, else pith.

    Raises:
        InputError: there is no such format, or its library is not installed.
        ModelError: the format cannot hold the model; the message says why.
    """
    require_format(kind)
    others = stand_ins(model)
    if kind == "plain" and others:
        name, one = next(iter(others.items()))
        raise ModelError(f"a plain checkpoint cannot hold {name}, which is {one.kind}; allowed is the format pith")
    if kind in ("plain", "pith"):
        return kind  # type: ignore[return-value]
    if kind == "gguf":
        if why := gguf_export.refusal(model, tokenizer):
            raise _with_other(why, "pith" if others else "plain")
        return "gguf"
    if kind == "auto" and not others:
        return "plain"
    reason = compressed_tensors.refusal(model)
    if kind == "auto":
        return "pith" if reason else "compressed-tensors"
    if reason:
        raise _with_other(reason, "pith" if others else "plain")
    return "compressed-tensors"


def _with_other(error: PithError, other: str) -> PithError:
    """Return an error that names a format that can hold the model; what must be installed is said as it is."""
    return ModelError(f"{error}; allowed is the format {other}") if isinstance(error, ModelError) else error


def require_possible(model: Any, recipe: Recipe, kind: str, tokenizer: Any = None) -> None:
    """Refuse a format that cannot hold what a recipe makes of a model, as far as that is known before any work.

    Args:
        model: the model before anything is done.
        recipe: the recipe.
        kind: one of `KINDS`.
        tokenizer: the model's, which gguf holds too.

    Raises:
        InputError: there is no such format, or its library is not installed.
        ModelError: the format will not hold the model; the message says why.
    """
    require_format(kind)
    packs = next((method for method in recipe.weights if method.contract == "quantization"), None)
    if kind == "plain" and packs is not None:
        raise ModelError(f"a plain checkpoint cannot hold what {packs.name} packs; allowed is the format pith")
    other = "pith" if packs is not None else "plain"
    if kind == "compressed-tensors" and (reason := compressed_tensors.refusal_before(model, recipe)):
        raise _with_other(reason, other)
    if kind == "gguf" and (reason := gguf_export.refusal_before(model, tokenizer, recipe)):
        raise _with_other(reason, other)


def export(model: Any, tokenizer: Any, folder: str | Path, kind: str = "auto", rest: Recipe | None = None) -> Written:
    """Writes a model into a new folder, after it was read back and gave the same logits.

    A plain checkpoint and one of compressed-tensors are read by plain Transformers (the latter with the library of that
    name), a GGUF file by Transformers and llama.cpp, a folder of Pith by `pith.load`. Reading back takes as much memory
    as the reader needs beside the model.

    Args:
        model: the model, as `compress` gave it or as it was loaded.
        tokenizer: its tokenizer, which is written too; None writes none, which gguf refuses.
        folder: the folder; it may not be there yet, unless it is empty.
        kind: one of "auto", "plain", "compressed-tensors", "gguf" and "pith"; see `kind_of`.
        rest: methods that act later, which are written beside the model as `recipe.toml`; None writes none.

    Raises:
        InputError: the folder holds something or cannot be written, or the format is none or not installed.
        ModelError: the format cannot hold the model, or its reader makes another model of it; nothing stays.
    """
    folder = resolve_path(folder)
    require_free(folder)
    require_in_memory(model)
    chosen = kind_of(model, kind, tokenizer)
    with write_errors(folder), new_folder(folder) as draft, silent():
        _write(model, tokenizer, draft, chosen)
        if tokenizer is not None and chosen != "gguf":
            tokenizer.save_pretrained(draft)
        apart = _require_same(model, draft, chosen)
        write_manifest(draft, "model")
        if rest is not None:
            rest.save(draft / REST)  # a text that people may change: the manifest does not list it
    return Written(chosen, apart)


def require_format(kind: str) -> None:
    """Refuses a format that there is not.

    Raises:
        InputError: there is no such format, or its library is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"format={kind!r} is not allowed; allowed is one of {', '.join(KINDS)}")
    formats = {"compressed-tensors": compressed_tensors, "gguf": gguf_export}
    if kind in formats and (missing := formats[kind].missing()):
        raise missing


def require_free(folder: Path) -> None:
    """Refuses a folder in which something is.

    Raises:
        InputError: it is a file, holds files, or cannot be looked at.
    """
    with write_errors(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"the folder {folder} is not empty; allowed is a new or an empty one")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; allowed is a new or an empty folder")


def _write(model: Any, tokenizer: Any, folder: Path, kind: Kind) -> None:
    if kind == "gguf":
        gguf_export.write(model, tokenizer, folder)
    elif kind == "compressed-tensors":
        compressed_tensors.write(model, folder)
    elif kind == "pith":
        write_files(model, folder)
    else:
        model.save_pretrained(folder)


def _require_same(model: Any, folder: Path, kind: Kind) -> float:
    """Reads a folder back and compares logits and weights; how far the logits lie apart.

    Raises:
        ModelError: they differ, or the folder cannot be read.
    """
    try:
        found = (
            (gguf_export.read(folder, model.dtype) if kind == "gguf" else _read(folder, kind)).to(model.device).eval()
        )
    except Exception as error:  # a reader may fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the reader of {kind} cannot read what was written: {lines[-1].strip()[:200]}") from None
    ours, theirs = _logits(model), _logits(found)  # at which compressed-tensors decodes its weights
    apart, allowed = float((ours - theirs).norm() / ours.norm()), _APART.get(model.dtype, 0.1)
    if kind == "gguf":
        allowed = max(allowed, _GGUF_APART)
    if not apart <= allowed:
        raise ModelError(
            f"{kind} reads another model back: logits lie {apart:.3g} of their length apart, allowed is {allowed:.3g}"
        )
    if name := _differing(model, found, kind):
        raise ModelError(f"{kind} reads another model back: {name} differs")
    return apart


def _read(folder: Path, kind: Kind) -> Any:
    if kind == "pith":
        return load_folder(folder, verify=False)
    found, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    if wrong := sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]):
        raise ModelError(f"{len(wrong)} tensors are missing or not known, such as {wrong[0]}")
    return found


def _logits(model: Any) -> Tensor:
    """The logits of a text that is the same for every model."""
    config = model.config.get_text_config(decoder=True)
    length = min(_TOKENS, getattr(config, "max_position_embeddings", None) or _TOKENS)
    tokens = torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: Tensor = model(input_ids=tokens.to(model.device), use_cache=False).logits
    return logits.float()


def _differing(model: Any, found: Any, kind: Kind) -> str | None:
    """The name of a tensor that is not the same; of packed layers that were decoded, up to how numbers are rounded."""
    theirs, decoded = found.state_dict(), kind in ("compressed-tensors", "gguf")
    packed = {name: one for name, one in model.named_modules() if decoded and isinstance(one, PackedLinear)}
    rounds = [torch.float16] if kind == "gguf" else []
    for name, layer in packed.items():
        weight, read = layer.dense().float(), found.get_submodule(name).weight.float()
        # below float32 a packed layer adds its zeros after they were rounded; the reader subtracts them from the codes
        if (
            weight.shape != read.shape
            or not (weight - read).abs().max() <= _rounding(layer.scales.dtype, *rounds) * weight.abs().max()
        ):
            return str(name)
    inside = tuple(f"{name}." for name in packed)
    for name, tensor in model.state_dict().items():
        if not name.startswith(inside) and (name not in theirs or not torch.equal(tensor, theirs[name])):
            return str(name)
    return None


def _rounding(*dtypes: torch.dtype) -> float:
    return float(8 * max(torch.finfo(dtype).eps for dtype in dtypes))
