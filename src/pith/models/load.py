"""Loading a causal language model and its tokenizer: a name of Pith's, a folder, a GGUF file, or a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pith.core import InputError, ModelError, error_line
from pith.core.folders import verified
from pith.models.checkpoint import require_readable, weight_files
from pith.models.checks import padding_of, require_rows
from pith.models.dtype import CHECKPOINT, read_fastest
from pith.models.files import require_vocabulary, tokenizer_reason
from pith.models.gguf_file import model_options, name_after, no_bar, opened
from pith.models.locate import BUILTIN, Place, locate
from pith.models.packages import PACKAGED
from pith.models.quiet import quiet
from pith.weights.calibration import Source
from pith.weights.folder import is_pith, load_folder
from pith.weights.foreign import trust_nothing
from pith.weights.ready import require_finite

_DTYPES = ("auto", CHECKPOINT, "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded, and the name under which the user asked for it.

    Attributes:
        name: a name such as "builtin" or "smollm2", a folder, a GGUF file, or a hub id.
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
        name: "builtin", a packaged model that `pith models get` brought, such as "smollm2", a folder that
            `save_pretrained` wrote, a GGUF file or a folder with one, or a hub id such as "Qwen/Qwen3-0.6B".
        dtype: of the weights; "checkpoint" is the checkpoint's own (float32 for the built-in model and GGUF files).
            "auto" is that too, but float32 on a processor where a measurement finds it faster, with a warning (see
            `read_fastest`).
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
    place = locate(name)
    with quiet(downloads=not place.offline), _whole(name, place), opened(place) as files:
        folder = _pith_folder(name, files)

        def read(kind: str) -> Any:
            if folder:
                return load_folder(folder, getattr(torch, kind, None), verify=place.folder is None)
            return _model(name, files, kind)

        model, reason = read_fastest(read, "float32" if usual else kind, target)
        tokenizer = _tokenizer(name, files)
    if place.gguf is not None:
        name_after(name, model, tokenizer)
    require_finite(model, name)
    require_rows(tokenizer, model, name)
    return Loaded(
        name, model.to(target).eval(), tokenizer, dtype_reason="the built-in model's default" if usual else reason
    )


@contextmanager
def _whole(name: str, place: Place) -> Iterator[None]:
    """Check the files of a folder, and compare them with their hashes while the block reads them.

    Raises:
        ModelError: a file is damaged or missing; of a packaged model the message names the command that mends it.
    """
    folder = place.folder
    if folder is None:
        yield
        return
    try:
        require_readable(folder)
        require_vocabulary(folder)
        needed = ("config.json", *(path.name for path in weight_files(folder)))
        with verified(folder, needed, exact=place.fetched):
            yield
    except ModelError as error:
        raise ModelError(f"{error}; {PACKAGED[name].get} brings it again") if place.fetched else error from None


def model_in(folder: Path) -> Any:
    """The model in a folder, without its tokenizer, in the dtype in which it was saved; hashes are not compared.

    Raises:
        ModelError: the folder holds no model, or its files are damaged or incomplete.
    """
    if is_pith(folder):
        return load_folder(folder, verify=False)
    require_readable(folder)
    with quiet(downloads=False):
        return _model(str(folder), Place(str(folder), True), "auto")


def _device(device: str | None) -> torch.device:
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend says "I am not here" in its way
        raise InputError(f"device={chosen!r} cannot be used here: {error_line(error)}") from None


def _pith_folder(name: str, place: Place) -> Path | None:
    """The folder of a model that only Pith loads, fetched where it lies on the hub; None of any other."""
    if Path(place.source).is_dir():
        return place.folder if place.folder and is_pith(place.folder) else None
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        config = hf_hub_download(place.source, "config.json", local_files_only=place.offline)
    except Exception:  # what is wrong is said when plain Transformers asks for the same file
        return None
    if not is_pith(Path(config).parent):
        return None
    try:
        return Path(snapshot_download(place.source, local_files_only=place.offline))
    except Exception as error:
        raise ModelError(f"the files of {name!r} cannot be fetched: {error_line(error)}") from None


def _model(name: str, place: Place, dtype: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(place.source, **place.options)
    except Exception as error:  # a foreign file may be wrong in any way; the user must learn which one it is
        if place.offline and isinstance(error, OSError) and not Path(place.source).is_dir():
            raise ModelError(
                f"{name!r} is no folder here, the hub cannot be reached, and it was never downloaded"
            ) from None
        raise ModelError(f"the configuration of {name!r} cannot be read: {error_line(error)}") from None
    said = config.architectures
    architecture = str(said[0]) if isinstance(said, list | tuple) and said else None
    if getattr(config, "is_encoder_decoder", False) or (architecture and architecture not in _causal()):
        raise ModelError(f"{name!r} is a {architecture or config.model_type}, which is no causal language model")
    trust_nothing(config, name)
    options = {"config": config, "dtype": dtype, "output_loading_info": True} | model_options(place) | place.options
    try:
        with no_bar(place):
            model, info = AutoModelForCausalLM.from_pretrained(place.source, **options)
    except Exception as error:  # as above
        raise ModelError(f"the weights of {name!r} cannot be loaded: {error_line(error)}") from None
    missing = sorted(info["missing_keys"])
    if missing:  # Transformers would fill them with random numbers
        raise ModelError(f"the weights of {name!r} lack {len(missing)} tensors, such as {missing[0]}")
    return model


def _tokenizer(name: str, place: Place) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place.source, **place.options)
    except Exception as error:  # as above
        raise ModelError(
            f"the tokenizer of {name!r} cannot be loaded: {tokenizer_reason(place.folder, error)}"
        ) from None
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
