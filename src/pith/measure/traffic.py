"""The bytes that must be read for one decoded token."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pith.attention import Reading
from pith.core import Recipe
from pith.measure.machine import copy_bandwidth
from pith.measure.measurement import Bandwidth
from pith.measure.seconds import Run
from pith.weights.experts import SplitExperts
from pith.weights.size import weight_bytes
from pith.weights.standin import stand_ins


def bandwidth(model: Any, recipe: Recipe, run: Run, decode: float) -> Bandwidth:
    """How far one sequence's decoding is from what the memory allows.

    Args:
        model: the model.
        recipe: what was applied to it.
        run: a run, for what the cache held.
        decode: seconds for each decoded token.
    """
    read = bytes_read(model, recipe, run)
    return Bandwidth(read, None if read is None else read / decode, copy_bandwidth(model.device))


def bytes_read(model: Any, recipe: Recipe, run: Run) -> int | None:
    """Weights that a token touches, and the cache; None where one of them cannot be told.

    A reading leaves a part of the cache unread, and nothing counts which. A sliding window lets go of the prompt only
    when the next token comes, so of what was held after the prompt and after the decoded tokens the lesser counts.
    """
    weights = weights_read(model)
    if weights is None or recipe.answer(Reading.question) is not None:
        return None
    return weights + min(run.prefill_bytes, run.decoded_bytes)


def weights_read(model: nn.Module) -> int | None:
    """The bytes of weights that one token touches; None where a stand-in or a router leaves that open.

    Of a table that is only looked up one row counts; tied to the head, it is multiplied and counts whole. Of experts
    the share that a token is sent to counts: those of modules called `experts`, `num_experts_per_tok` of each.
    """
    config = model.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    chosen = getattr(config, "num_experts_per_tok", None)
    groups = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "experts"]
    if bool(chosen) != bool(groups) or not all(part.reads_all for part in stand_ins(model).values()):
        return None
    left_out = sum(_bytes([table.weight]) * (len(table.weight) - 1) // len(table.weight) for table in _looked_up(model))
    for group in groups:
        count = _count(group)
        if not isinstance(chosen, int) or not 0 < chosen <= count:
            return None
        left_out += _bytes([*group.parameters(), *group.buffers()]) * (count - chosen) // count
    return weight_bytes(model) - left_out


def _count(experts: nn.Module) -> int:
    """How many experts there are in a list of them, in modules of their own, or in tensors that hold all of them."""
    if isinstance(experts, nn.ModuleList):
        return len(experts)
    return experts.count if isinstance(experts, SplitExperts) else len(next(experts.parameters()))


def _looked_up(model: nn.Module) -> list[nn.Embedding]:
    """The tables that nothing else than a look-up uses, each once."""
    tables = {t.weight.untyped_storage().data_ptr(): t for t in model.modules() if isinstance(t, nn.Embedding)}
    others = {
        parameter.untyped_storage().data_ptr()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    return [table for where, table in tables.items() if where not in others]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
