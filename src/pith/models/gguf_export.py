"""Models as one GGUF file, for Transformers and llama.cpp: 8 and 4 bits as they are packed, the rest as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pith.core import InputError, ModelError, PithError, Recipe
from pith.weights.duplicate import duplicate
from pith.weights.packed import PackedLinear
from pith.weights.quantizer import WeightQuantizer
from pith.weights.standin import stand_ins

FILE = "model.gguf"
"""The file in the folder that is written."""

BLOCK = 32
"""Consecutive inputs that share a scale in each of the formats."""

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Types of models whose every tensor and number has a place in the file that both readers know."""

_PRE = {"\\p{N}{1,3}": "llama-bpe", "|\\p{N}|": "qwen2", "Digits": "smollm"}
"""What llama.cpp calls a way to cut a text before it is encoded, by what the tokenizer's own description holds."""

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # kinds of tokens


def missing() -> InputError | None:
    """Return what to say where the library is not installed."""
    if find_spec("gguf") is None:
        return InputError("the format gguf needs the library of that name: pip install gguf")
    return None


def refusal(model: Any, tokenizer: Any) -> PithError | None:
    """Return why a model cannot be written in this format; None if it can."""
    if error := missing() or _unknown(model) or _foreign(tokenizer):
        return error
    for name, layer in stand_ins(model).items():
        if not isinstance(layer, PackedLinear):
            return ModelError(f"gguf cannot hold {name}, which is {layer.kind}")
        grid, inputs = layer.grid_codes()[0], int(layer.in_features)
        if why := _unfit(name, grid.bits, grid.group_size, inputs):
            return why
    return None


def refusal_before(model: Any, tokenizer: Any, recipe: Recipe) -> PithError | None:
    """Return why a model could not be written in this format with a recipe, as far as that is known before any work."""
    if error := missing() or _unknown(model) or _foreign(tokenizer):
        return error
    for method in recipe.weights:
        if isinstance(method, WeightQuantizer):
            fitted, own = method.fitted_to(model), duplicate(model)  # choosing may split experts
            for name, bits in fitted.chosen(own).items():
                inputs = int(own.get_submodule(name).in_features)
                if why := _unfit(name, bits, fitted.group_of(bits, inputs), inputs):
                    return why
    return None


def write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer as one file.

    A weight of 8 bits is d (code - 128) in the file, one of 4 bits d (code - 8) where its grid is symmetric and else
    d code + m, with d and m in float16 for every 32 inputs; a group of more has its numbers in each of its blocks.
    Other tensors keep their dtype, vectors are float32.
    """
    import gguf

    writer = gguf.GGUFWriter(folder / FILE, model.config.model_type)
    _tell_shape(writer, model)
    _tell_tokenizer(writer, tokenizer, model.config.vocab_size)
    known = {kind: arch for arch, kind in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[model.config.model_type], model.config.num_hidden_layers)
    kinds = set()
    for name, data, kind in _tensors(model):
        stem, _, end = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{end}", data, raw_dtype=kind)
        kinds.add(kind.name)
    files = {"Q4_1": "MOSTLY_Q4_1", "Q4_0": "MOSTLY_Q4_0", "Q8_0": "MOSTLY_Q8_0", "BF16": "MOSTLY_BF16"}
    files |= {"F16": "MOSTLY_F16", "F32": "ALL_F32"}
    writer.add_file_type(gguf.LlamaFileType[next(files[kind] for kind in files if kind in kinds)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(folder: Path, dtype: torch.dtype) -> Any:
    """Read the file back with plain Transformers."""
    from transformers import AutoModelForCausalLM, GgufConfig

    found, info = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=FILE, dtype=dtype, local_files_only=True, output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True),
    )  # fmt: skip
    if wrong := sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]):
        raise ModelError(f"{len(wrong)} tensors are missing or not known, such as {wrong[0]}")
    return found


def _unknown(model: Any) -> ModelError | None:
    """Return why the file has no place for all that a model is, packed layers aside."""
    config = model.config
    if config.model_type not in ARCHITECTURES:
        return ModelError(
            f"gguf is written of models of the types {', '.join(ARCHITECTURES)}; {type(model).__name__} is of the type "
            f"{config.model_type}"
        )
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    biases = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    even = config.hidden_size // config.num_attention_heads
    size, read = _head_dim(config), {"qwen2": even, "qwen3": 128}.get(config.model_type)  # by Transformers' reader
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    for wrong, what in (
        (rope != "default", f"positions of the kind {rope}"),
        (config.hidden_act != "silu", f"the activation {config.hidden_act}"),
        (bool(biases), f"{' and '.join(biases)}=True"),
        (windows, "layers with sliding windows"),
        (
            read not in (None, size),
            f"heads of {size} numbers, where readers take those of {config.model_type} for {read}",
        ),
    ):
        if wrong:
            return ModelError(f"gguf, as it is written here, has no place for {what}")
    return None


def _foreign(tokenizer: Any) -> ModelError | None:
    """Return why a tokenizer cannot be written: only pairs of bytes that are merged can."""
    said = _description(tokenizer)
    if said.get("model", {}).get("type") != "BPE" or "ByteLevel" not in json.dumps(said.get("pre_tokenizer")):
        return ModelError(
            f"gguf is written with tokenizers that merge pairs of bytes (byte-level BPE); {type(tokenizer).__name__} "
            "is none"
        )
    return None


def _unfit(name: str, bits: int, group_size: int, inputs: int) -> ModelError | None:
    """Return why a packed layer is in none of the file's formats."""
    if bits not in (8, 4):
        return ModelError(f"gguf holds weights of 8 and of 4 bits; those of {name} have {bits}")
    if inputs % BLOCK or (group_size % BLOCK and group_size != inputs):
        return ModelError(
            f"gguf needs groups of a multiple of {BLOCK} inputs; {name} has {inputs} inputs in groups of {group_size}"
        )
    return None


def _tell_shape(writer: Any, model: Any) -> None:
    """Write the numbers of a model's configuration."""
    import gguf

    config = model.config
    head_dim = _head_dim(config)
    writer.add_name(Path(model.name_or_path).name or config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or int(config.hidden_size // config.num_attention_heads)


def _description(tokenizer: Any) -> dict[str, Any]:
    """Return what a fast tokenizer says of itself; nothing where it is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    return found


def _tell_tokenizer(writer: Any, tokenizer: Any, words: int) -> None:
    """Write a tokenizer's words, in the number of the model's, its merges, special tokens and chat template."""
    said = _description(tokenizer)
    added = {one["id"]: one for one in said["added_tokens"]}
    texts = {index: text for text, index in tokenizer.get_vocab().items()}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(words)]

    def kind(index: int) -> int:
        if index in added:
            return _CONTROL if added[index]["special"] else _USER_DEFINED
        return _NORMAL if index in texts else _UNUSED

    pre = json.dumps(said["pre_tokenizer"], ensure_ascii=False).replace("\\\\", "\\")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(next((name for part, name in _PRE.items() if part in pre), "default"))
    writer.add_token_list(tokens)
    writer.add_token_types([kind(index) for index in range(words)])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in said["model"]["merges"]])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(
        tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    )
    for name in ("bos", "eos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each tensor's name in the model, its data, and the format of these."""
    import gguf

    packed = {name: one for name, one in model.named_modules() if isinstance(one, PackedLinear)}
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        owner = next((one for one in packed if name.startswith(f"{one}.")), None)
        if owner is None and not (tied and name == "lm_head.weight"):
            order = _order(model, name)
            yield name, *_plain(tensor if order is None else tensor[order])
    for name, layer in packed.items():
        grid, codes = layer.grid_codes()
        order = _order(model, f"{name}.weight")
        rows = torch.arange(len(codes)) if order is None else order
        repeat = grid.group_size // BLOCK if grid.group_size < codes.shape[1] else codes.shape[1] // BLOCK
        scale, zero = (
            one[rows].repeat_interleave(repeat, dim=1)[:, : codes.shape[1] // BLOCK].float()
            for one in (grid.scale, grid.zero)
        )
        kind, data = blocks(codes[rows], scale, zero, grid.bits)
        yield f"{name}.weight", data.numpy(), gguf.GGMLQuantizationType[kind]
        if layer.bias is not None:
            yield f"{name}.bias", *_plain(layer.bias if order is None else layer.bias[order])


def _plain(tensor: Tensor) -> tuple[Any, Any]:
    """Return a tensor's data and their format: vectors in float32, matrices in their dtype."""
    import gguf

    if tensor.dim() > 1 and tensor.dtype == torch.bfloat16:
        kind = gguf.GGMLQuantizationType.BF16
        return gguf.quants.quantize(tensor.float().numpy(), kind), kind
    if tensor.dim() > 1 and tensor.dtype == torch.float16:
        return tensor.contiguous().numpy(), gguf.GGMLQuantizationType.F16
    return tensor.detach().float().contiguous().numpy(), gguf.GGMLQuantizationType.F32


def _order(model: Any, name: str) -> Int[Tensor, " row"] | None:
    """Return the file's order of the rows of Llama's queries and keys: the two numbers that are rotated together follow
    each other, which lie half a head apart in Transformers; None where the order is the same.
    """
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if config.model_type != "llama" or heads is None:
        return None
    return torch.arange(heads * _head_dim(config)).view(heads, 2, -1).transpose(1, 2).flatten()


def blocks(
    codes: UInt8[Tensor, "out in"], scale: Float[Tensor, "out block"], zero: Float[Tensor, "out block"], bits: int
) -> tuple[str, UInt8[Tensor, "out byte"]]:
    """Return the format of codes with equal steps, and its bytes, block by block.

        Q8_0: d, 32 signed bytes                      d (code - 128)
        Q4_0: d, 16 bytes of two codes each           d (code - 8)
        Q4_1: d, m, 16 bytes of two codes each        d code + m,  m = -d zero

    A byte of two codes has that of the input i in its lower half and that of the input i + 16 in its upper one.
    """
    numbers = [scale]
    if bits == 8:
        signed = (codes.to(torch.int16) - 128).to(torch.int8).view(torch.uint8)
        kind, held = "Q8_0", torch.unflatten(signed, 1, (-1, BLOCK))
    else:
        low, high = torch.unflatten(codes, 1, (-1, 2, BLOCK // 2)).unbind(dim=2)
        kind, held = "Q4_0", low | (high << 4)
        if not bool((zero == 8).all()):
            kind, numbers = "Q4_1", [scale, -scale * zero]
    heads = [one.half().unsqueeze(-1).view(torch.uint8) for one in numbers]
    return kind, torch.cat([*heads, held], dim=-1).flatten(1)
