"""Loading a causal language model and its tokenizer: the built-in one, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from pith.core import InputError, ModelError
from pith.weights.folder import is_pith, load_folder

BUILTIN = "builtin"
"""The name of the model that comes inside the package."""

_FOLDER = Path(__file__).parent / "builtin"
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_HUB_SECONDS = 10


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded, and the name under which the user asked for it.

    Attributes:
        name: "builtin", a folder, or a hub id.
        model: the Transformers causal language model, in evaluation mode.
        tokenizer: its tokenizer; it pads on the left and has a padding token.
    """

    name: str
    model: Any
    tokenizer: Any


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
        dtype: of the weights; "auto" takes the checkpoint's own, and float32 for the built-in model.
        device: such as "cpu" or "cuda:1"; None takes the accelerator where PyTorch finds CUDA, else the processor.

    Raises:
        ModelError: there is no such model, it is no causal language model, or its files are damaged or incomplete.
        InputError: the dtype is none of those allowed, or the device is not there.
    """
    kind = str(dtype).removeprefix("torch.")
    if kind not in _DTYPES:
        raise InputError(f"dtype={kind!r} is not allowed; allowed is one of {', '.join(_DTYPES)}")
    if name == BUILTIN and kind == "auto":
        kind = "float32"
    target = _device(device)
    source, offline = _locate(name)
    if is_pith(Path(source)):
        model = load_folder(Path(source), None if kind == "auto" else getattr(torch, kind))
        return Loaded(name, model.to(target).eval(), _tokenizer(name, source, offline))
    with _quiet(downloads=not offline):
        model = _model(name, source, offline, kind)
        tokenizer = _tokenizer(name, source, offline)
    return Loaded(name, model.to(target).eval(), tokenizer)


def _device(device: str | None) -> torch.device:
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend says "I am not here" in its way
        raise InputError(f"device={chosen!r} cannot be used here: {_line(error)}") from None


def _locate(name: str) -> tuple[str, bool]:
    """Where the files are, and whether only those on this machine can be had."""
    path = _FOLDER if name == BUILTIN else Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name} holds no model: it has no config.json, which save_pretrained writes")
        return str(path), True
    if path.is_file():
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


def _model(name: str, source: str, offline: bool, dtype: str) -> Any:
    where: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **where)
    except Exception as error:  # a foreign file may be wrong in any way; the user must learn which one it is
        if offline and isinstance(error, OSError) and not Path(source).is_dir():
            raise ModelError(
                f"{name!r} is no folder here, the hub cannot be reached, and it was never downloaded"
            ) from None
        raise ModelError(f"the configuration of {name!r} cannot be read: {_line(error)}") from None
    architecture = (config.architectures or [None])[0]
    if getattr(config, "is_encoder_decoder", False) or (architecture and architecture not in _causal()):
        raise ModelError(f"{name!r} is a {architecture or config.model_type}, which is no causal language model")
    try:
        model, info = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True, **where)
    except Exception as error:  # as above
        raise ModelError(f"the weights of {name!r} cannot be loaded: {_line(error)}") from None
    missing = sorted(info["missing_keys"])
    if missing:  # Transformers would fill them with random numbers
        raise ModelError(f"the weights of {name!r} lack {len(missing)} tensors, such as {missing[0]}")
    return model


def _tokenizer(name: str, source: str, offline: bool) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(f"the tokenizer of {name!r} cannot be loaded: {_line(error)}") from None
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        # the attention mask hides padding, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _causal() -> set[str]:
    """The classes that Transformers counts among its causal language models."""
    names: set[str] = set()
    for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names.update([value] if isinstance(value, str) else value)
    return names


@contextmanager
def _quiet(downloads: bool) -> Iterator[None]:
    """Keeps Transformers' reports out, whose news are raised as errors, and its bars where nothing is downloaded."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not downloads:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(error: Exception) -> str:
    """An error's first line, cut to what fits one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
