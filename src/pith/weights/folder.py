"""Saving and loading models that plain Transformers cannot hold."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pith.core import InputError, ModelError, error_line
from pith.core.files import read_json
from pith.core.folders import MANIFEST, draft_folder, verified, write_manifest
from pith.weights.dtypes import other_dtypes, read_dtypes, require_dtypes
from pith.weights.foreign import trust_nothing
from pith.weights.ready import require_in_memory
from pith.weights.standin import layout, rebuild, stand_ins
from pith.weights.writing import write_errors

MODEL_TYPE = "pith"
"""What stands as `model_type` in the configuration of such a folder, so that nothing else takes it for its own."""

FILE = "pith.safetensors"
"""The weights; under any other name plain Transformers would load what it can, and fill up the rest at random."""


class Saved:
    """What is mixed into the class of a model with stand-ins: `save_pretrained` writes a folder that Pith loads."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes configuration and weights into a folder, which `pith.load` reads and plain Transformers refuses.

        Args:
            save_directory: the folder; it is made where it is not there.
            kwargs: those of plain Transformers, which play no part here: there is one file, in the model's dtype.

        Raises:
            InputError: the folder is to go to the hub at once.
        """
        if kwargs.get("push_to_hub"):
            raise InputError("push_to_hub=True is not allowed: save to a folder, and upload it with the hub's client")
        save(self, Path(save_directory))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy by the plain class, since no module holds this one under a name."""
        return _blank, (_plain_class(type(self)),), vars(self)


def as_saved(model: Any) -> None:
    """Gives a model with stand-ins the `save_pretrained` that can write them; any other gets its own class back."""
    plain = _plain_class(type(model))
    model.__class__ = _saved_class(plain) if stand_ins(model) else plain


def _plain_class(kind: Any) -> Any:
    return next(base for base in kind.__mro__ if not issubclass(base, Saved))


def _blank(plain: Any) -> Any:
    kind: Any = _saved_class(plain)
    return kind.__new__(kind)


@cache
def _saved_class(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class with the name of the plain one, since Transformers asks for names."""
    return type(plain.__name__, (Saved, plain), {"__module__": plain.__module__})


def save(model: Any, folder: Path) -> None:
    """Write a model with stand-ins into a folder, which may hold other files; see `write_files`.

    Every file is written whole before it takes the place of an earlier one; the manifest with their hashes comes last.

    Raises:
        InputError: the folder cannot be written; what was there before is left as it was.
    """
    new = not os.path.lexists(folder)
    try:
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with draft_folder(folder, FILE) as draft:
                write_files(model, draft)
                write_manifest(draft, "model")
                for path in sorted(draft.iterdir(), key=lambda one: one.name == MANIFEST):
                    os.replace(path, folder / path.name)
    finally:
        if new:
            with suppress(OSError):  # it holds files unless an error was raised
                folder.rmdir()


def write_files(model: Any, folder: Path) -> None:
    """Write `config.json` with the plain configuration and the stand-ins, and the weights, into a new folder.

    Raises:
        OSError, SafetensorError: a file cannot be written.
        ModelError: tensors of the model are not in memory.
    """
    require_in_memory(model)
    config = {
        "model_type": MODEL_TYPE,
        "dtype": str(model.dtype).removeprefix("torch."),
        "plain": model.config.to_dict(),
        "stand_ins": layout(model),
        "dtypes": other_dtypes(model),
    }
    save_file(_once(model.state_dict()), folder / FILE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str), encoding="utf-8")
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)


def is_pith(folder: Path) -> bool:
    """Whether `save` wrote the folder."""
    try:
        said = read_json(folder / "config.json", error=ModelError)
    except ModelError:
        return False
    return said.get("model_type") == MODEL_TYPE


def load_folder(folder: Path, dtype: torch.dtype | None = None, verify: bool = True) -> Any:
    """The model that `save` wrote, bit for bit where the dtype is its own, in evaluation mode.

    Args:
        folder: where it lies.
        dtype: of the weights that are not packed and of the scales; None is the one that it was saved in.
        verify: whether files are compared with their hashes first, if the folder has any.

    Raises:
        ModelError: files are damaged or incomplete, or name modules that are not known here.
    """
    with verified(folder, ("config.json", FILE)) if verify else nullcontext():
        return _loaded(folder, dtype)


def _loaded(folder: Path, dtype: torch.dtype | None) -> Any:
    said = read_json(folder / "config.json", error=ModelError)
    try:
        config = CONFIG_MAPPING[said["plain"]["model_type"]].from_dict(said["plain"])
        own = getattr(torch, said["dtype"])
        tensors = load_file(folder / FILE)
    except Exception as error:  # a foreign file may be wrong in any way; the user must learn which one it is
        raise ModelError(f"the folder {folder} cannot be read: {_line(error)}") from None
    trust_nothing(config, str(folder))
    try:
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype or own, trust_remote_code=False)
        model.tie_weights()
        rebuild(model, said["stand_ins"], dtype or own)
        for one in stand_ins(model).values():
            one.placed(model)
        others = read_dtypes(said)
    except ModelError:
        raise
    except Exception as error:  # as above
        raise ModelError(f"the model that config.json of {folder} describes cannot be built: {_line(error)}") from None
    require_dtypes(model, tensors, dtype or own, own, others, folder)
    _load(model, tensors, folder)
    if (folder / "generation_config.json").is_file():
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder)
        except Exception as error:  # as above
            raise ModelError(f"generation_config.json of {folder} cannot be read: {_line(error)}") from None
    model.config._name_or_path = str(folder)
    as_saved(model)
    model.eval()
    return model


def _load(model: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """Loads strictly, but for names that share a tensor with one that is there."""
    missing, unexpected = set(model.state_dict()) - set(tensors), set(tensors) - set(model.state_dict())
    shared = {tensor.data_ptr() for name, tensor in model.state_dict().items() if name in tensors}
    missing = {name for name in missing if model.state_dict()[name].data_ptr() not in shared}
    if missing or unexpected:
        which = sorted(missing or unexpected)
        raise ModelError(
            f"the weights of {folder} {'lack' if missing else 'hold'} {len(which)} tensors "
            f"{'that' if missing else 'which'} the model {'needs' if missing else 'does not know'}, such as {which[0]}"
        )
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the weights of {folder} do not fit: {_line(error)}") from None


def _once(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every storage under its first name only, as safetensors demands."""
    found: dict[tuple[int, int, tuple[int, ...]], str] = {}
    for name, tensor in tensors.items():
        found.setdefault((tensor.data_ptr(), tensor.numel(), tuple(tensor.stride())), name)
    return {name: tensors[name].detach().contiguous() for name in found.values()}


def _line(error: Exception) -> str:
    """What is wrong, of which PyTorch says the most telling part last."""
    return error_line(error, last=isinstance(error, RuntimeError))
