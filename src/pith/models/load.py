"""Loading a causal language model and its tokenizer: the built-in one, a folder, or a hub id."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pith.core import InputError, ModelError, error_line, shown, user_path
from pith.core.folders import verified
from pith.models.checkpoint import require_readable, weight_files
from pith.models.checks import padding_of, require_rows
from pith.models.dtype import CHECKPOINT, read_fastest
from pith.models.quiet import quiet
from pith.weights.calibration import Source
from pith.weights.folder import is_pith, load_folder
from pith.weights.foreign import trust_nothing
from pith.weights.ready import require_finite

BUILTIN = "builtin"
"""The name of the model that comes inside the package."""

_FOLDER = Path(__file__).parent / "builtin"
_DTYPES = ("auto", CHECKPOINT, "float32", "bfloat16", "float16")
_HUB_SECONDS = 10


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded, and the name under which the user asked for it.

    Attributes:
        name: "builtin", a folder, or a hub id.
        model: the Transformers causal language model, in evaluation mode.
        tokenizer: its tokenizer; it pads on the left and has a padding token.
        source: where methods that change weights get the texts that they read.
        kept: the folder in which models stay that such methods made of this one; None keeps none.
        dtype_reason: why the model has its dtype, such as the measurement that decided.
    """

    name: str
    model: Any
    tokenizer: Any
    source: Source = field(default_factory=Source)
    kept: Path | None = None
    dtype_reason: str = ""


def builtin(dtype: torch.dtype | str = torch.float32, device: str | None = None) -> tuple[Any, Any]:
    """The model that comes inside the package, and its tokenizer.

    A small Llama with grouped queries and 4096 positions, trained on Python's own sources and documentation and on
    retrieval tasks in words; its model card, beside the weights, states how, and its scores.

    Args:
        dtype: of the weights, which are stored in bfloat16; processors are fastest at float32.
        device: as for `load`.
    """
    loaded = load(BUILTIN, dtype, device)
    return loaded.model, loaded.tokenizer


def load(name: str, dtype: torch.dtype | str = "auto", device: str | None = None) -> Loaded:
    """Loads a model and its tokenizer with plain Transformers; code that a checkpoint brings is never run.

    A folder that a compressed model was saved to is loaded with its packed layers and other stand-ins.

    Args:
        name: "builtin", a folder that `save_pretrained` wrote, or a hub id such as "Qwen/Qwen3-0.6B".
        dtype: of the weights; "checkpoint" is the checkpoint's own (float32 for the built-in model). "auto" is that
            too, but float32 on a processor where a measurement finds it faster, with a warning (see `read_fastest`).
        device: such as "cpu" or "cuda:1"; None takes the accelerator where PyTorch finds CUDA, else the processor.

    Raises:
        ModelError: there is no such model, it is no causal language model, its files are damaged or incomplete, its
            weights are not finite, or its tokenizer gives tokens that it has no row for.
        InputError: the dtype is none of those allowed, or the device is not there.
    """
    kind = str(dtype).removeprefix("torch.")
    if kind not in _DTYPES:
        raise InputError(f"dtype={kind!r} is not allowed; allowed is one of {', '.join(_DTYPES)}")
    usual = name == BUILTIN and kind in ("auto", CHECKPOINT)
    target = _device(device)
    source, offline = _locate(name)
    here = Path(source) if Path(source).is_dir() else None
    if here:
        require_readable(here)
    needed = ("config.json", *(path.name for path in weight_files(here))) if here else ()
    with quiet(downloads=not offline), verified(here, needed) if here else nullcontext():
        folder = _pith_folder(name, source, offline)

        def read(kind: str) -> Any:
            if folder:
                return load_folder(folder, getattr(torch, kind, None), verify=not here)
            return _model(name, source, offline, kind)

        model, reason = read_fastest(read, "float32" if usual else kind, target)
        tokenizer = _tokenizer(name, source, offline)
    require_finite(model, name)
    require_rows(tokenizer, model, name)
    return Loaded(
        name, model.to(target).eval(), tokenizer, dtype_reason="the built-in model's default" if usual else reason
    )


def model_in(folder: Path) -> Any:
    """The model in a folder, without its tokenizer, in the dtype in which it was saved; hashes are not compared.

    Raises:
        ModelError: the folder holds no model, or its files are damaged or incomplete.
    """
    if is_pith(folder):
        return load_folder(folder, verify=False)
    require_readable(folder)
    with quiet(downloads=False):
        return _model(str(folder), str(folder), True, "auto")


def _device(device: str | None) -> torch.device:
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend says "I am not here" in its way
        raise InputError(f"device={chosen!r} cannot be used here: {error_line(error)}") from None


def _locate(name: str) -> tuple[str, bool]:
    """Where the files are, and whether only those on this machine can be had."""
    path = _FOLDER if name == BUILTIN else user_path(name, label="model ", error=ModelError)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise ModelError(f"model {shown(name)} cannot be read: {error.strerror or error}") from None
    if name and is_folder:
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name} holds no model: it has no config.json, which save_pretrained writes")
        return str(path), True
    if is_file:
        raise ModelError(f"{name} is a file; allowed is {BUILTIN!r}, a model's folder, or a hub id")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelError(f"there is no folder {name!r}; allowed is {BUILTIN!r}, a model's folder, or a hub id")
    return name, not _hub_has(name)


def _hub_has(name: str) -> bool:
    """Whether the hub has the model; False where it cannot be asked.

    One question with a time limit: Transformers would ask for every file, and each of them six times.
    """
    from huggingface_hub import model_info
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        model_info(name, timeout=_HUB_SECONDS)
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub id such as 'Qwen/Qwen3-0.6B'") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name!r} is no folder here, and the hub has no such model, or not for you") from None
    except Exception:  # offline, no route, the hub is down: what was downloaded before will do
        return False
    return True


def _pith_folder(name: str, source: str, offline: bool) -> Path | None:
    """The folder of a model that only Pith loads, fetched where it lies on the hub; None of any other."""
    if Path(source).is_dir():
        return Path(source) if is_pith(Path(source)) else None
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        config = hf_hub_download(source, "config.json", local_files_only=offline)
    except Exception:  # what is wrong is said when plain Transformers asks for the same file
        return None
    if not is_pith(Path(config).parent):
        return None
    try:
        return Path(snapshot_download(source, local_files_only=offline))
    except Exception as error:
        raise ModelError(f"the files of {name!r} cannot be fetched: {error_line(error)}") from None


def _model(name: str, source: str, offline: bool, dtype: str) -> Any:
    where: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **where)
    except Exception as error:  # a foreign file may be wrong in any way; the user must learn which one it is
        if offline and isinstance(error, OSError) and not Path(source).is_dir():
            raise ModelError(
                f"{name!r} is no folder here, the hub cannot be reached, and it was never downloaded"
            ) from None
        raise ModelError(f"the configuration of {name!r} cannot be read: {error_line(error)}") from None
    said = config.architectures
    architecture = str(said[0]) if isinstance(said, list | tuple) and said else None
    if getattr(config, "is_encoder_decoder", False) or (architecture and architecture not in _causal()):
        raise ModelError(f"{name!r} is a {architecture or config.model_type}, which is no causal language model")
    trust_nothing(config, name)
    options = {"config": config, "dtype": dtype, "output_loading_info": True}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(source, **options, **where)
    except Exception as error:  # as above
        raise ModelError(f"the weights of {name!r} cannot be loaded: {error_line(error)}") from None
    missing = sorted(info["missing_keys"])
    if missing:  # Transformers would fill them with random numbers
        raise ModelError(f"the weights of {name!r} lack {len(missing)} tensors, such as {missing[0]}")
    return model


def _tokenizer(name: str, source: str, offline: bool) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(f"the tokenizer of {name!r} cannot be loaded: {error_line(error)}") from None
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = padding_of(tokenizer)
    return tokenizer


def _causal() -> set[str]:
    """The classes that Transformers counts among its causal language models."""
    names: set[str] = set()
    for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names.update([value] if isinstance(value, str) else value)
    return names
