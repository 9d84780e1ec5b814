"""SirLLM: the tokens that surprised the model most stay, from turn to turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import Companion, Eviction, LayerCache, Seat, Step
from pith.attention.evictor import best, worst
from pith.core import ModelError, Paper, param, parse_budget


@dataclass(frozen=True, kw_only=True)
class SirLLM(Eviction):
    """Keep the tokens with the highest surprisal, and the first ones, so that a dialogue of any length is remembered.

        e_i  = -log p(x_i | x_1 ... x_{i-1})       by the model's own predictions             (token entropy)
        kept = [0, start_size), the (token_entropy_size - m) highest e, and then the newest,
               budget - m together                 before a turn of m tokens                  (as in the authors' code)
        e    = e * decay_ratio                     at every turn                              (memory decay)
        query and keys are rotated at their index in the cache, 0, 1, ..., n - 1, not at their place in the text

    The budget is all that the cache holds: start_size + recent_size + token_entropy_size in the authors' names. The
    choice is one for all layers and heads. A turn is a forward of several tokens. Room for a decoded token, which the
    authors' evaluation does not have, is made in the same way, one for one, and nothing decays then. A stream of any
    length runs in constant memory.

    Deviates: e is the paper's; the authors' code takes at each place the probability of the token that stands there
    instead of the next one's. The first token of a turn gets the surprisal that the turn before predicts for it; only
    where there is none, at the beginning of a text, it gets the highest of its turn, as every turn's first token in the
    authors' code. A turn that does not fit beside the first tokens, on which their code stops, and a first turn that is
    longer than the budget, which they trim at the next turn, are read on top of what is held and cut to the budget
    directly after; what the next turn then keeps is the same. Of a budget that is a share, which is a share of
    everything seen, room is made for decoded tokens only, and a turn is cut after it. Keys are held before their
    rotation and rotated when they are read, as in the authors' code. The head is applied to each token once more.
    """

    paper: ClassVar[Paper] = Paper(
        "2405.12528",
        "SirLLM: Streaming Infinite Retentive LLM",
        "Yao Yao, Zuchao Li, Hai Zhao",
        2024,
        "Zoeyyao27/SirLLM",
    )
    every_step: ClassVar[bool] = True
    renumbers: ClassVar[bool] = True
    raw: ClassVar[bool] = True

    start_size: int = param(4, "first tokens that are always kept; part of the budget", ge=0)
    recent_size: int = param(0, "tokens of the budget that go to the newest, not to the most surprising", ge=0)
    decay_ratio: float = param(1.0, "what every surprisal is multiplied by at each turn", ge=0.0, le=1.0)

    def score(self, step: Step) -> Float[Tensor, "batch 1 key"]:
        """Not asked: the choice is made between forwards, for all layers at once."""
        raise NotImplementedError("sir_llm chooses between forwards")

    def rank(
        self,
        surprisal: Float[Tensor, "batch 1 key"],
        positions: Int[Tensor, "batch 1 key"],
        limit: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch 1 key"]:
        """Scores of which the best `limit` are what is kept.

        Args:
            surprisal: of each stored token, decayed.
            positions: each token's index among the real ones of its row; negative is none.
            limit: how many tokens each row keeps: the budget less the tokens that come.
        """
        slots = torch.arange(positions.shape[-1], device=positions.device)
        order = surprisal.masked_fill(positions < 0, float("-inf")).argsort(dim=-1, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(-1, order, slots.expand_as(order))
        surprising = place < (limit - self.start_size - self.recent_size)[:, None, None]
        first = positions < limit.clamp(max=self.start_size)[:, None, None]
        return slots.to(surprisal.dtype).expand_as(surprisal).masked_fill(surprising | first, float("inf"))

    def companion(self) -> Companion:
        """What knows the surprisals, and evicts."""
        return Surprisals(self)


class Surprisals(Companion):
    """The surprisals of one cache's tokens, beside the pairs of its first layer, and the evictions by them."""

    changes_prompt = False

    def __init__(self, method: SirLLM) -> None:
        self._method = method
        self._share = parse_budget(method.budget).share is not None
        self._forget()

    def _forget(self) -> None:
        self._predicts: Float[Tensor, "batch hidden_dim"] | None = None  # the last hidden state: the next token's
        self._limit: Int[Tensor, " batch"] | None = None
        self._slots = 0  # the largest limit of a row
        self._seen = 0
        self._drops = False

    def before(self, cache: Any, tokens: Int[Tensor, "batch new"]) -> None:
        """Makes room for the tokens; if they are a turn, what is held decays."""
        layers = cache.served()
        for layer in layers:
            layer.witness = _nothing  # no layer evicts by itself
        if not layers or not layers[0].seen:
            self._forget()
            return
        store, new = layers[0].store, tokens.shape[1]
        if layers[0].seen != self._seen:  # tokens were taken back
            self._predicts = None
        if new == 1 and self._limit is not None:
            self._cut(layers, (self._limit - 1).clamp(min=1), max(self._slots - 1, 1))
            return
        if store.carried is not None:
            store.carry(store.carried * self._method.decay_ratio)
        if not self._share:
            coming = torch.full_like(store.positions[:, 0, -1], new)
            coming = coming if self.mask is None else self.mask[:, -new:].sum(dim=-1)
            room = self._limits(layers, coming) - coming
            room = torch.where(room >= max(self._method.start_size, 1), room, store.length)
            self._cut(layers, room, int(room.max()))

    def after(
        self,
        cache: Any,
        tokens: Int[Tensor, "batch new"],
        mask: Int[Tensor, "batch seen"] | None,
        hidden: Float[Tensor, "batch new hidden_dim"],
    ) -> None:
        """Notes what was read, and cuts a turn that was read on top to the budget."""
        layers = cache.served()
        if not layers:
            return
        store, new = layers[0].store, tokens.shape[1]
        surprisal = self._surprisal(tokens, store.positions[:, 0, -new:], hidden)
        if store.carried is None:
            store.carry(F.pad(surprisal, (store.length - new, 0)).unsqueeze(1))
        else:
            store.carried[:, 0, -new:] = surprisal
        self._predicts, self._seen = hidden[:, -1].detach().clone(), layers[0].seen
        if new > 1 or self._limit is None:
            self._limit = self._limits(layers, torch.zeros_like(store.positions[:, 0, -1]))
            self._slots = int(self._limit.max())
            self._cut(layers, self._limit, self._slots)
        if self._drops:
            for layer in layers:  # the hidden state belongs to the newest token: none can be taken back
                layer.dropped()

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        if self._predicts is not None and self._limit is not None:
            self._predicts, self._limit = self._predicts[rows], self._limit[rows]

    def tensors(self) -> list[Tensor]:
        """The last hidden state."""
        return [] if self._predicts is None else [self._predicts]

    @torch.no_grad()
    def _surprisal(
        self, tokens: Tensor, positions: Int[Tensor, "batch new"], hidden: Float[Tensor, "batch new hidden_dim"]
    ) -> Float[Tensor, "batch new"]:
        real = positions >= 0
        found = F.pad(surprisals(self.model, hidden[:, :-1], tokens[:, 1:]), (1, 0))
        first = real.int().argmax(dim=-1, keepdim=True)
        inner = real.scatter(1, first, False)
        found = found.masked_fill(~inner, 0.0)
        begins = found.max(dim=-1, keepdim=True).values
        if self._predicts is not None:
            predicted = surprisals(self.model, self._predicts.unsqueeze(1), tokens.gather(1, first))
            # what came before the first token of a row was padding, which predicts nothing
            begins = torch.where(positions.gather(1, first) == 0, begins, predicted)
        return found.scatter(1, first, begins)

    def _limits(self, layers: Sequence[LayerCache], coming: Tensor) -> Int[Tensor, " batch"]:
        """What the budget is in tokens, for each row, with the tokens that come."""
        store, count = layers[0].store, len(layers)
        pair = (store.keys.shape[-1] + store.values.shape[-1]) * store.keys.element_size() + 4
        return self._method.limit(
            (store.positions[:, 0, -1] + 1 + coming).long(), Seat(0, count, pair * store.keys.shape[1] * count)
        )

    def _cut(self, layers: Sequence[LayerCache], limit: Int[Tensor, " batch"], slots: int) -> None:
        """Lets go what is over the limits, `slots` the largest of them, in every layer."""
        store, positions = layers[0].store, layers[0].store.positions
        over = store.length - slots
        if store.padded:  # a row may be over its own limit by more, or alone
            over = max(over, int(((positions[:, 0] >= 0).sum(dim=-1) - limit).max()))
        if over <= 0 or store.carried is None:
            return
        scores = self._method.rank(store.carried, positions, limit)
        if over == 1 and store.length == slots + 1:
            slot = worst(scores, positions, limit, store.padded)
            for layer in layers:
                layer.store.drop(slot)
        else:
            index = best(scores, positions, limit)
            for layer in layers:
                layer.store.keep(index)
        self._drops = True
        for layer in layers:
            layer.dropped()


def surprisals(
    model: Any, hidden: Float[Tensor, "batch token hidden_dim"], tokens: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch token"]:
    """-log p of each token by the hidden state before it; never the logits of all tokens at once."""
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no output embeddings, so its tokens have no surprisal")
    config = model.config.get_text_config(decoder=True)
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    scale *= divisor if config.model_type == "hyperclovax" else 1 / divisor  # of one name, and of two meanings
    cap = getattr(config, "final_logit_softcapping", None)
    states, wanted = hidden.flatten(0, 1), tokens.flatten()
    size = max(1, 2**24 // config.vocab_size)
    found = [states.new_zeros((0,), dtype=torch.float32)]
    for state, token in zip(torch.split(states, size), torch.split(wanted, size), strict=True):
        logits = head(state).float() * scale
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        found.append(F.cross_entropy(logits, token.to(logits.device), reduction="none"))
    return torch.cat(found).view(tokens.shape)


def _nothing(step: Step) -> None:
    """A witness that only keeps its layer from evicting."""
