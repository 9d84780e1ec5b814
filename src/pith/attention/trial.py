"""Reading a few tokens with a model to see what it does, and leaving it as it was."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pith.attention.answers import Answers
from pith.attention.cache import PithCache
from pith.attention.in_flight import CacheGroup
from pith.attention.layer import LayerCache
from pith.attention.support import plan_layers, set_attention
from pith.attention.uncompiled import original


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """The model in evaluation mode; its attention, modes, small buffers and the random numbers are put back."""
    before = model.config._attn_implementation
    training = [module for module in model.modules() if module.training]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if buffer.numel() <= 4096 and not buffer.is_meta]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(sorted(device.index or 0 for device in devices)):
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
            with torch.no_grad():
                for buffer, held in buffers:
                    buffer.copy_(held)
            set_attention(model, before)


def without_weights(model: nn.Module) -> bool:
    """Whether some weights are not in memory: a model made on the meta device, or offloaded by layers."""
    return any(parameter.is_meta for parameter in model.parameters())


def dense_cache(model: Any, kind: type[LayerCache] = LayerCache) -> PithCache:
    """A cache in which nothing is applied; its layers that Pith serves are of the given class."""
    plain, left_alone = plan_layers(model)
    cache, served = PithCache(plain.layers, left_alone), [i for i in range(len(plain.layers)) if i not in left_alone]
    group = CacheGroup(served, len(plain.layers))
    for index in served:
        cache.layers[index] = kind(index, len(plain.layers), group, Answers())
    return cache


def forward(model: Any, tokens: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """One forward, uncompiled, and without the hooks and the recipes of the model, which belong to its user."""
    if mask is not None:
        kwargs["attention_mask"] = mask
        if takes_positions(model):
            places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
            kwargs["position_ids"] = places[:, -tokens.shape[1] :]
    own = getattr(model.forward, "intercepted", model.forward)
    return original(own)(input_ids=tokens, use_cache=True, return_dict=True, **kwargs)


def takes_positions(model: Any) -> bool:
    """Whether the model's forward takes `position_ids`."""
    return "position_ids" in inspect.signature(model.forward).parameters


def plain_tokens(model: Any, rows: int, count: int) -> Int[Tensor, "row token"]:
    """Tokens of the vocabulary that mean nothing special to the model; the same at each call."""
    config = model.config.get_text_config(decoder=True)
    embedding = model.get_input_embeddings()
    size = min(int(config.vocab_size), getattr(embedding, "num_embeddings", int(config.vocab_size)))
    special: set[Any] = set()
    for settings in (model.config, config):
        for key, value in vars(settings).items():
            if key.endswith(("_token_id", "_token_index")):
                special.update(value if isinstance(value, list) else [value])
    plain = [token for token in range(min(size, 4096)) if token not in special] or [0]
    picked = [plain[(7 * i + 5) % len(plain)] for i in range(rows * count)]
    return torch.tensor(picked, device=_device(model)).view(rows, count)


def _device(model: Any) -> torch.device:
    """Where the model takes tokens."""
    weight = next(model.get_input_embeddings().parameters(), None)
    device: torch.device = model.device if weight is None else weight.device
    return device
