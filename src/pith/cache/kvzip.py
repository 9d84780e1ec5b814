"""KVzip: keep what the model looks at when it repeats the prompt."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention import Companion, LayerCache, Retention, Seat, Step
from pith.attention.attend import causal_mask, fold_mask, softmax_of_logits
from pith.attention.eviction import tokens_within
from pith.attention.evictor import best
from pith.attention.step import query_block
from pith.core import Budget, DenseCache, Paper, ParameterError, param, parse_budget


@dataclass(frozen=True, kw_only=True)
class KVzip(Retention):
    """Keep the pairs that the model needs to repeat the prompt, so that one small cache serves whatever is asked later.

        after the prompt was read, each chunk of it is read a second time, at the places behind the prompt;
        score_j = max_{i in the pass, query heads of the group} softmax(q_i [K_sink, K_chunk, K_pass]^T / sqrt(d))_j
        kept    = the best budget * layers * heads of all scores of all layers and heads       (authors' score.py)

    The budget is the kept share, as the authors' ratio; the first `sink` tokens come first in it. Heads and layers keep
    different numbers, and take just the memory of what they keep. The prompt is what the first forward reads: what is
    read or decoded later is kept. Scoring reads the prompt once more, in its whole cache, and a pass is taken back
    when it was scored; the places of prompt and chunk together must be within what the model can tell apart.

    Deviates: a method has no tokenizer, so a pass is the chunk itself, behind the last `overlap` tokens before it; the
    authors put an instruction to repeat the context in front, which `instruction` can hold. Their sinks are the whole
    system prompt, which comes on top of their budget. They keep what is strictly above the score at the last rank: one
    pair less than the share, and none of those that tie there; here it is the share of the prompt's tokens, rounded
    down, in each head on average. In a padded batch each row has its own passes and threshold; theirs takes one row.
    """

    paper: ClassVar[Paper] = Paper(
        "2505.23416",
        "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction",
        "Jang-Hyun Kim, Jinuk Kim, Sangwoo Kwon, Jae W. Lee, Sangdoo Yun, Hyun Oh Song",
        2025,
        "snu-mllab/KVzip",
    )
    contract: ClassVar[str] = "eviction"

    budget: Budget = param(
        0.3, "what is kept of the prompt: a share, a token count, or bytes for one sequence", sweep=(0.02, 1.0)
    )
    chunk_size: int = param(2000, "tokens of the prompt that one pass repeats", ge=1)
    overlap: int = param(8, "tokens before a chunk that are repeated with it, but for the first", ge=0)
    sink: int = param(4, "first tokens: always kept, and looked at in every pass", ge=0)
    uniform: bool = param(False, "whether all heads keep equally many pairs, each its own best")
    instruction: str = param("", "ids of the tokens that each pass begins with, such as '12 804 7'")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(word.isdecimal() for word in self.instruction.split()):
            raise ParameterError(
                f"{self.name}: instruction={self.instruction!r} is not allowed; allowed are token ids with blanks "
                "between them, such as '12 804 7'"
            )

    @property
    def ragged(self) -> bool:  # type: ignore[override]
        """Whether heads may keep different numbers of pairs."""
        return not self.uniform

    @property
    def keeps_all(self) -> bool:
        """Whether the budget is a share of 1.0."""
        return parse_budget(self.budget).everything

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """Everything: no layer can decide alone; the companion drops once all were scored."""
        return torch.full_like(real, sys.maxsize)

    def score(self, step: Step) -> Float[Tensor, "batch heads key"]:
        """Never asked, for the same reason."""
        raise NotImplementedError(f"{self.name} scores a prompt in passes of its own")

    def claimed(self, dense: DenseCache) -> float:
        """The budget as a share of the dense cache."""
        limit = int(tokens_within(self.budget, torch.tensor([dense.tokens]), dense.token_bytes)[0])
        return min(1.0, limit / max(dense.tokens, 1))

    def companion(self) -> Companion:
        """What repeats the prompt."""
        return _Repetition(self)


class _Repetition(Companion):
    """Repeats the first prompt of a cache, chunk by chunk, and drops what the passes do not look at."""

    prompt_at_once, changes_prompt = True, False

    def __init__(self, method: KVzip) -> None:
        self._method = method
        self._columns: Int[Tensor, "batch column"]  # of the pass that is read
        self._scores: dict[int, Float[Tensor, "batch kv_head slot"]] = {}

    def begin(self, cache: Any, decoder: Any) -> None:
        """See the contract.

        Raises:
            ParameterError: the instruction holds a token that the model does not know.
        """
        self._decoder = decoder
        ids = [int(word) for word in self._method.instruction.split()]
        known = decoder.get_input_embeddings().weight.shape[0]
        if max(ids, default=0) >= known:
            raise ParameterError(f"kvzip: instruction holds the token {max(ids)}; allowed is less than {known}")
        self._instruction = torch.tensor(ids, dtype=torch.long)

    def before(self, cache: Any, tokens: Int[Tensor, "batch new"]) -> None:
        """Heads of unequal length are packed once, when it is known what they keep."""
        for layer in cache.served():
            layer.passing = self._method.ragged and not layer.seen

    @torch.no_grad()
    def after(
        self,
        cache: Any,
        tokens: Int[Tensor, "batch new"],
        mask: Int[Tensor, "batch seen"] | None,
        hidden: Float[Tensor, "batch new hidden_dim"],
    ) -> None:
        """Scores the first prompt and drops what is over the budget."""
        layers = cache.served()
        if not layers or layers[0].seen != tokens.shape[1]:
            return
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask[:, -tokens.shape[1] :].bool()
        limit = tokens_within(self._method.budget, real.sum(dim=-1), _token_bytes(layers, hidden.element_size()))
        if not bool((limit >= real.sum(dim=-1)).all()):
            self._read_again(cache, _Prompt(tokens, real))
            self._drop(layers, real, torch.minimum(limit, real.sum(dim=-1)))
        for layer in layers:
            layer.passing = False
            layer.store.settle()

    def _read_again(self, cache: Any, prompt: _Prompt) -> None:
        """One pass for each chunk; layers that are not Pith's read it with copies of what they hold."""
        method, layers, own = self._method, cache.served(), list(cache.layers)
        self._scores = {}
        cache.unwatched = True
        try:
            # layers that are left alone count slots, not places: no padding may stand between prompt and pass
            for start, ends in prompt.chunks(method.sink, method.chunk_size, even=bool(cache.left_alone)):
                for index in cache.left_alone:
                    cache.layers[index] = copy.deepcopy(own[index])
                for layer in layers:
                    layer.witness, layer.passing = self._witness, True
                sinks = prompt.lengths.clamp(max=method.sink)
                self._columns = torch.cat([prompt.slots(0, sinks), prompt.slots(start, ends)], dim=1)
                first = max(start - method.overlap, 0) if start > method.sink else start
                given = prompt.repeated(first, start, ends, self._instruction)
                self._decoder(**given, past_key_values=cache, use_cache=True)
                for layer in layers:
                    layer.crop(-given["input_ids"].shape[1])
        finally:
            cache.unwatched = False
            for index in cache.left_alone:
                cache.layers[index] = own[index]
            for layer in layers:
                layer.witness = None

    def _witness(self, step: Step) -> None:
        """Notes what a pass looks at in a layer."""
        before = step.stored - step.query.shape[2]
        found = reconstruction(step, self._columns)
        # one slot more, for columns that are none
        scores = found.new_full((*found.shape[:2], before + 1), 0.0)
        scores.scatter_(2, torch.where(self._columns < 0, before, self._columns)[:, None].expand_as(found), found)
        known = self._scores.get(step.layer)
        self._scores[step.layer] = scores[..., :before] if known is None else torch.maximum(known, scores[..., :before])

    def _drop(
        self, layers: Sequence[LayerCache], real: Bool[Tensor, "batch slot"], limit: Int[Tensor, " batch"]
    ) -> None:
        first = real & (real.cumsum(dim=-1) <= limit.clamp(max=self._method.sink).unsqueeze(-1))  # in every head
        fixed = torch.where(first, float("inf"), torch.where(real, 0.0, float("-inf"))).unsqueeze(1)
        scores = [
            self._scores.pop(layer.index, fixed.new_zeros(())) + fixed.expand(-1, layer.store.key_column.heads, -1)
            for layer in layers
        ]
        counts = [limit] * len(layers) if self._method.uniform else shares(scores, limit)
        for layer, mine, count in zip(layers, scores, counts, strict=True):
            layer.store.keep(best(mine, layer.store.positions, count), ragged=self._method.ragged)
            layer.dropped()


class _Prompt:
    """The tokens of a batch by their index in their row, padding left out.

    Args:
        tokens, real: the batch as it was read, and which of it is no padding.
    """

    def __init__(self, tokens: Int[Tensor, "batch slot"], real: Bool[Tensor, "batch slot"]) -> None:
        self._tokens, self._real = tokens, real
        self.lengths: Int[Tensor, " batch"] = real.sum(dim=-1)
        self._order = real.to(torch.int8).argsort(dim=-1, stable=True)  # a row's tokens last, in their order

    def chunks(self, start: int, size: int, even: bool) -> Iterator[tuple[int, Int[Tensor, " batch"]]]:
        """Where each chunk begins, and where it ends in each row, which is no later if the row has no part in it.

        Args:
            start: the first token.
            size: tokens of a chunk; a row's last may be shorter.
            even: whether all rows that have a part in a chunk end at one place.
        """
        for begin in range(start, int(self.lengths.max()), size):
            ends = self.lengths.clamp(max=begin + size)
            if not even:
                yield begin, ends
                continue
            for end in torch.unique(ends[ends > begin]):
                yield begin, torch.where(ends == end, end, 0)

    def slots(self, start: int, ends: Int[Tensor, " batch"]) -> Int[Tensor, "batch column"]:
        """The slots of the tokens of each row from `start` to its end; -1 where it has none."""
        index = torch.arange(start, max(start, int(ends.max())), device=ends.device).expand(len(ends), -1)
        return torch.where(index < ends.unsqueeze(-1), self._at(index), -1)

    def repeated(
        self, first: int, start: int, ends: Int[Tensor, " batch"], instruction: Int[Tensor, " id"]
    ) -> dict[str, Tensor]:
        """What a model is given to read a chunk again, from the token `first`, at the places behind the prompt.

        Rows with a shorter part are padded on the left; those without any read something, which counts for nothing.
        """
        told = len(instruction)
        sizes = torch.where(ends > start, ends - first + told, 0)
        width = int(sizes.max())
        missing = torch.where(sizes > 0, width - sizes, 0).unsqueeze(-1)
        place = torch.arange(width, device=ends.device) - missing  # in the row's pass; negative is padding
        tokens = self._tokens.gather(1, self._at(first + place - told))
        if told:
            tokens = torch.where(place < told, instruction.to(ends.device)[place.clamp(min=0, max=told - 1)], tokens)
        return {
            "input_ids": tokens,
            "attention_mask": torch.cat([self._real, place >= 0], dim=1).long(),
            "position_ids": self.lengths.unsqueeze(-1) + place.clamp(min=0),
        }

    def _at(self, index: Int[Tensor, "batch token"]) -> Int[Tensor, "batch token"]:
        empty = self._order.shape[1] - self.lengths.unsqueeze(-1)
        return self._order.gather(1, (empty + index).clamp(min=0, max=self._order.shape[1] - 1))


def reconstruction(step: Step, columns: Int[Tensor, "batch column"]) -> Float[Tensor, "batch kv_head column"]:
    """The most attention that a query of a pass gives each of some stored pairs, among these and the pass's own keys.

    Args:
        step: a pass; it is the newest that is stored.
        columns: slots before the pass; -1 is none.
    """
    count, group = columns.shape[1], step.query.shape[1] // step.kv_head
    own = torch.arange(step.stored - step.query.shape[2], step.stored, device=columns.device)
    index = torch.cat([columns, own.expand(len(columns), -1)], dim=1)
    keys = step.keys.gather(2, index.clamp(min=0)[:, None, :, None].expand(-1, step.kv_head, -1, step.keys.shape[-1]))
    held = (step.real[:, 0].gather(1, index.clamp(min=0)) & (index >= 0)).unsqueeze(1)
    real = None if bool(held.all()) else held
    scaling = step.scaling or step.query.shape[-1] ** -0.5
    found, before = keys.new_zeros((len(keys), step.kv_head, count), dtype=torch.float32), count
    for query in torch.split(step.query, query_block(keys), dim=2):
        size, before = query.shape[2], before + query.shape[2]
        # no key behind the block is looked at
        mask = fold_mask(causal_mask(size, before, real if real is None else real[..., :before], keys.device), group)
        folded = rearrange(query, "b (kv group) query dim -> b kv (group query) dim", group=group)
        logits = folded @ keys[:, :, :before].mT
        weights = softmax_of_logits(logits, mask, scaling, step.softcap, step.sinks)[..., :count]
        if real is not None:
            weights = weights * real[..., before - size : before].repeat(1, 1, group).unsqueeze(-1)
        found = torch.maximum(found, weights.amax(dim=2))
    return found


def shares(
    scores: Sequence[Float[Tensor, "batch _ slot"]], limit: Int[Tensor, " batch"]
) -> list[Int[Tensor, "batch _"]]:
    """How many of the best scores of all layers and heads each head has; `limit` is their number on average."""
    flat = torch.cat([layer.flatten(1) for layer in scores], dim=1)
    wins = torch.arange(flat.shape[1], device=flat.device) < limit.unsqueeze(-1) * sum(x.shape[1] for x in scores)
    kept = torch.zeros_like(wins).scatter_(1, flat.argsort(dim=-1, descending=True, stable=True), wins)
    parts = torch.split(kept, [layer.shape[1] * layer.shape[2] for layer in scores], dim=1)
    return [part.view(layer.shape).sum(dim=-1) for part, layer in zip(parts, scores, strict=True)]


def _token_bytes(layers: Sequence[LayerCache], size: int) -> int:
    """Bytes that one token of one row takes, as it is, over these layers; a number takes `size`."""
    stores = [layer.store for layer in layers]
    return sum(s.key_column.heads * ((s.key_column.dim + s.value_column.dim) * size + 4) for s in stores)
