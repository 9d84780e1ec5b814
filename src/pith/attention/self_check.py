"""Checking, when a recipe is first applied to a model, that the model computes the same through Pith's attention."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.attention import in_flight
from pith.attention.interface import NAME
from pith.attention.rotations import Observed, Rotations
from pith.attention.support import set_attention
from pith.attention.trial import dense_cache, forward, plain_tokens, undisturbed, without_weights
from pith.core import ModelError, PithError

_checked: weakref.WeakKeyDictionary[Any, dict[str, Checked]] = weakref.WeakKeyDictionary()


@dataclass
class Checked:
    """What is known of a model once it was checked.

    Attributes:
        refusal: why Pith does not serve it; None if it does.
        observed: what is known of its rotations.
    """

    refusal: str | None = None
    observed: Observed = field(default_factory=Observed)


def check(model: Any) -> Rotations:
    """Check a model that is seen for the first time, and return how its layers rotate.

    Two short prompts are read and one token each is decoded, through the model's own attention and through Pith's with
    nothing applied: one row alone, and two rows of which one is padded on the left. Logits must agree within the
    rounding of the model's dtype. The model is as before afterwards, also after an exception, and no random number is
    drawn. A model whose weights are not in memory is not checked.

    Raises:
        ModelError: the logits differ, or a forward fails; the message says what differs.
    """
    known = _checked.setdefault(model, {})
    own = model.config._attn_implementation
    if own == NAME:
        checked = next(reversed(known.values()), None)
        own = _own_attention(model) if checked is None else own
    else:
        checked = known.get(own)
    if checked is None:
        checked = Checked()
        if not without_weights(model):
            try:
                checked.refusal = _compare(model, own)
            except ModelError as error:  # not kept: what failed once may succeed another time
                name, text = type(model).__name__, str(error)
                raise ModelError(text if name in text else f"{name}: {text}") from error.__cause__
        known[own] = checked
    if checked.refusal is not None:
        raise ModelError(checked.refusal)
    return Rotations(model, checked.observed)


def _own_attention(model: Any) -> str:
    """The attention of a model that was loaded with Pith's."""
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


@dataclass(frozen=True)
class _Prompt:
    """A prompt, its mask, and the token that follows."""

    tokens: Int[Tensor, "row token"]
    mask: Int[Tensor, "row token"] | None
    following: Int[Tensor, "row 1"]


def _compare(model: Any, own: str) -> str | None:
    """Why the model's logits are not its own under Pith's attention; None where they are.

    Raises:
        ModelError: a forward fails.
    """
    name = type(model).__name__
    with undisturbed(model), torch.no_grad():
        for prompt in _prompts(model):
            set_attention(model, own)
            try:
                want = _read(model, prompt, None)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if prompt.mask is not None:
                    break  # a model that cannot read a padded batch by itself
                raise ModelError(
                    f"{name} cannot read token ids alone ({_line(error)}), so Pith cannot check how it attends"
                ) from error
            if isinstance(want, str):
                return want
            set_attention(model, NAME)
            try:
                got = _read(model, prompt, dense_cache(model))
            except (ModelError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise ModelError(
                    f"{name} fails under Pith's attention ({_line(error)}); Pith does not serve this model"
                ) from error
            finally:
                in_flight.clear()  # a forward that failed leaves its layer there
            assert not isinstance(got, str), "a model that is given a cache returns it"
            apart, where = _apart(got, want, prompt)
            if not apart <= _allowed(want[0].dtype) and not apart <= 4 * _noise(model, own, prompt, want):
                return (
                    f"the logits of {name} under Pith's attention differ from its own ({apart:.2g} of their norm at "
                    f"{where}); Pith does not serve this model"
                )
    return None


def _read(model: Any, prompt: _Prompt, cache: Any) -> list[Float[Tensor, "row token vocab"]] | str:
    """The logits of the prompt and of the token that follows; a line if the model returns no cache."""
    given = {"past_key_values": cache} if cache is not None else {}
    out = forward(model, prompt.tokens, prompt.mask, **given)
    cache = out.get("past_key_values") if cache is None else cache
    if cache is None:
        return (
            f"{type(model).__name__} returns no past_key_values: it keeps a state of its own, which Pith does not serve"
        )
    mask = None if prompt.mask is None else torch.cat([prompt.mask, torch.ones_like(prompt.following)], dim=1)
    after = forward(model, prompt.following, mask, past_key_values=cache)
    return [out.logits, after.logits]


def _apart(got: list[Tensor], want: list[Tensor], prompt: _Prompt) -> tuple[float, str]:
    """The largest distance of logits as a share of their norm, and where it is; padding is not looked at."""
    worst, where = 0.0, ""
    rows = "" if prompt.mask is None else " of a padded batch"
    for x, y, name in zip(got, want, ("the prompt", "the first decoded token"), strict=True):
        if prompt.mask is not None and x.shape[1] == prompt.mask.shape[1]:
            x, y = x[prompt.mask.bool()], y[prompt.mask.bool()]
        if not bool(y.isfinite().all()):
            continue  # the model's own logits say nothing
        error = float((x.float() - y.float()).norm() / y.float().norm().clamp(min=1e-30))
        if not error <= worst:
            worst, where = error, name + rows
    return worst, where


def _allowed(dtype: torch.dtype) -> float:
    """What rounding makes of the logits of an ordinary model; above it the model's own noise is measured."""
    return max(1e-4, 4 * torch.finfo(dtype).eps)


def _noise(model: Any, own: str, prompt: _Prompt, want: list[Tensor]) -> float:
    """How far the model's own logits move when every embedding moves by one rounding."""
    eps = torch.finfo(want[0].dtype).eps

    def move(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        signs = torch.ones_like(out)
        signs[..., ::2] = -1
        return out * (1 + eps * signs)

    set_attention(model, own)
    handle = model.get_input_embeddings().register_forward_hook(move)
    try:
        moved = _read(model, prompt, None)
    finally:
        handle.remove()
    assert not isinstance(moved, str)
    return _apart(moved, want, prompt)[0]


def _prompts(model: Any) -> list[_Prompt]:
    """One row of 6 tokens alone, and two of 8 and 5 in a batch; shorter where the model takes no more."""
    config = model.config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None) or 512
    long = max(2, min(8, most - 1))
    tokens = plain_tokens(model, 2, long + 1)
    mask = torch.ones_like(tokens[:, :long])
    mask[1, : min(3, long - 1)] = 0
    short = max(2, long - 2)
    return [
        _Prompt(tokens[:1, :short], None, tokens[:1, short : short + 1]),
        _Prompt(tokens[:, :long], mask, tokens[:, long:]),
    ]


def _line(error: Exception) -> str:
    """An exception in a part of a line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 110 else text[:107] + "..."
    return text if isinstance(error, PithError) else f"{type(error).__name__}: {text}"
