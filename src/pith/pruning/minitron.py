"""Minitron: width and depth by what activations say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from pith.core import ModelError, Paper, param
from pith.weights import Calibration, Pruner, blocks, heads, parts, set_bias, set_weight, stand_ins, walk, weight_of
from pith.weights.duplicate import duplicate
from pith.weights.size import weight_bytes
from pith.weights.structure import keep_blocks, keep_channels, keep_heads

_MULTIPLE = 8
"""Widths stay multiples of this where they are: eight codes make whole bytes."""


@dataclass(frozen=True, kw_only=True)
class Minitron(Pruner):
    """Keep the channels, heads, hidden numbers and blocks whose activations are largest; all blocks get equal widths.

        channel  = L2 over sequences of mean over tokens of |what down reads|            in each block
        head     = L2 over sequences of mean over tokens of ||what o reads of it||_2     in each group of each block
        hidden   = sum over all blocks' norms of L2 over sequences of mean over tokens of |what the norm gives|
        block    = 1 - mean over tokens of cos(what it reads, what it gives)            (section 2.2, equations 2 and 3)

    One pass over the calibration scores all of them on the dense model. What is left is a plain Transformers model;
    where queries are grouped, every key-value head stays and each group loses as many query heads; else heads go with
    their keys and values. The paper's 8B model is `minitron(channels=0.667, hidden=0.667)`, its 4B model
    `minitron(channels=0.375, heads=0.5, hidden=0.5)`. Nothing is trained here: norms over fewer numbers are other
    norms, so that a model whose hidden width was cut has to be retrained before it is of use.

    Deviates: channels are scored by what the last matrix reads, after the gate, and heads inside their groups, as the
    authors' library does and the paper, whose models have no gate, does not. Of a head the library takes the norm over
    its numbers last. What pruned heads would leave is not folded into kept ones (the paper's formula names a head that
    does not exist, and the library has none). Shares are given, not searched: the paper retrains each candidate. The
    hidden width stays by default, since there is no retraining. Of blocks the paper scores perplexity without each too,
    which costs a pass for each.
    """

    paper: ClassVar[Paper] = Paper(
        "2407.14679",
        "Compact Language Models via Pruning and Knowledge Distillation",
        "Saurav Muralidharan, Sharath Turuvekere Sreenivas, Raviraj Joshi, Marcin Chochowski, Mostofa Patwary, et al.",
        2024,
        "NVIDIA/Model-Optimizer",
    )

    channels: float = param(0.667, "share of the MLP's channels that is kept", ge=0.01, le=1.0, sweep=(0.5, 0.9))
    heads: float = param(1.0, "share of each group's query heads that is kept, of all heads without groups", ge=0, le=1)
    hidden: float = param(1.0, "share of the hidden width that is kept", ge=0.01, le=1.0)
    blocks: float = param(1.0, "share of the blocks that is kept", ge=0.01, le=1.0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Scores everything once, then cuts."""
        if found := stand_ins(model):
            raise ModelError(f"minitron takes plain models, and {next(iter(found))} of this one is not plain any more")
        scores = calibration.recall("scores")
        if scores is None:
            scores = activations(model, calibration)
            calibration.remember("scores", scores)
        first = embedded(model, calibration)
        kept = self._cut(model, scores)
        if len(kept) < first.shape[-1]:
            _require_same(embedded(model, calibration), first[..., kept], model)

    def _cut(self, model: Any, scores: dict[str, Tensor]) -> Int[Tensor, " kept"]:
        """Cuts everything, and returns which hidden numbers are left."""
        self._narrow(model, scores)
        config = model.config.get_text_config(decoder=True)
        kept = best(scores["hidden"], self._hidden(config))
        if len(kept) < config.hidden_size:
            config.head_dim = heads(model)[2]
            keep_hidden(model, kept)
            config.hidden_size = len(kept)
        as_configured(model)
        count = share(len(scores["blocks"]), self.blocks, "blocks")
        if count < len(scores["blocks"]):
            keep_blocks(model, best(scores["blocks"], count).tolist())
        return kept

    def predicted_bytes(self, model: Any) -> int | None:
        """Those of a plain model of the widths that are left."""
        own = duplicate(model)
        with torch.no_grad():
            query = heads(own)[0]
            width = {"channels": weight_of(parts(blocks(own)[0]).down).shape[1], "heads": query, "blocks": 1}
            scores = {name: torch.zeros(len(blocks(own)), size) for name, size in width.items()}
            hidden = own.config.get_text_config(decoder=True).hidden_size
            self._cut(own, {**scores, "blocks": scores["blocks"][:, 0], "hidden": torch.zeros(hidden)})
        return weight_bytes(own)

    def _narrow(self, model: Any, scores: dict[str, Tensor]) -> None:
        """Cuts channels and heads, and says so in the configuration."""
        config = model.config.get_text_config(decoder=True)
        query, groups, head_dim = heads(model)
        width = scores["channels"].shape[1]
        channels = share(width, self.channels, "channels", _MULTIPLE if width % _MULTIPLE == 0 else 1)
        size = query // groups
        left = share(groups if size == 1 else size, self.heads, "heads")
        for index, block in enumerate(blocks(model)):
            if channels < width:
                keep_channels(block, best(scores["channels"][index], channels))
            score = scores["heads"][index]
            if size == 1 and left < groups:
                keep_heads(model, index, best(score, left))
            elif left < size:
                within = torch.stack([best(group, left) for group in score.reshape(groups, size)])
                _keep_queries(block, (within + torch.arange(groups)[:, None] * size).flatten(), query)
        config.intermediate_size, config.head_dim = channels, head_dim
        if size == 1:
            config.num_attention_heads = config.num_key_value_heads = left
        else:
            config.num_attention_heads = groups * left

    def _hidden(self, config: Any) -> int:
        """The hidden width that is kept: a multiple of the heads, which some configurations demand."""
        queries = config.num_attention_heads
        wanted = math.lcm(_MULTIPLE, queries)
        multiple = wanted if config.hidden_size % wanted == 0 else queries
        return share(config.hidden_size, self.hidden, "hidden", multiple)


def activations(model: Any, calibration: Calibration) -> dict[str, Tensor]:
    """The scores of hidden numbers [hidden], channels and heads [block, ...] and blocks [block]."""
    length, query = calibration.tokens.shape[1], heads(model)[0]
    found: dict[str, list[Tensor]] = {"hidden": [], "channels": [], "heads": [], "blocks": []}
    for stage in walk(model, replace(calibration, folder=None)):
        of, sums = parts(stage.block), [SequenceNorms(length) for _ in range(4)]
        width = weight_of(of.o).shape[1] // query

        def add_heads(rows: Float[Tensor, "token in"], total: SequenceNorms = sums[3], width: int = width) -> None:
            total.add(rearrange(rows, "token (head dim) -> token head dim", dim=width).norm(dim=-1))

        outputs = stage.observe({of.q: sums[0].add, of.up: sums[1].add, of.down: sums[2].add, of.o: add_heads})
        stage.hand_on(outputs)
        found["hidden"].append(sums[0].score() + sums[1].score())
        found["channels"].append(sums[2].score())
        found["heads"].append(sums[3].score())
        pairs = zip(stage.inputs, outputs, strict=True)
        likeness = torch.cat([F.cosine_similarity(x.float(), y.float(), dim=-1).flatten() for x, y in pairs])
        found["blocks"].append(1 - likeness.mean())
    scores = {name: torch.stack(values) for name, values in found.items()}
    return {**scores, "hidden": scores["hidden"].sum(0)}


class SequenceNorms:
    """L2 over sequences of means over tokens of magnitudes.

    Attributes:
        length: tokens of a sequence.
        total: the sum of squares so far.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.total: Tensor | float = 0.0

    def add(self, rows: Float[Tensor, "token n"]) -> None:
        """Counts whole sequences in, one after another."""
        means = reduce(rows.float().abs(), "(text token) n -> text n", "mean", token=self.length)
        self.total = self.total + means.square().sum(dim=0)

    def score(self) -> Float[Tensor, " n"]:
        """The score so far."""
        return torch.as_tensor(self.total).sqrt()


def share(count: int, kept: float, what: str, multiple: int = 1) -> int:
    """How many of `count` a share is: the nearest multiple; below 1 at least one multiple goes and one stays.

    Raises:
        ModelError: there are too few for that.
    """
    if kept == 1:
        return count
    if count < 2 * multiple:
        raise ModelError(f"minitron: {what}={kept} of {count} is nothing; allowed is 1.0 here")
    return min(max(round(kept * count / multiple), 1) * multiple, (count - 1) // multiple * multiple)


def best(score: Float[Tensor, " n"], count: int) -> Int[Tensor, " count"]:
    """The indices of the highest scores, in order; of equal ones the first."""
    return score.argsort(descending=True, stable=True)[:count].sort().values


def keep_hidden(model: Any, kept: Int[Tensor, " kept"]) -> None:
    """Keeps these numbers of the hidden states, in every matrix and norm that reads or writes them."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, kept], embedding.weight.requires_grad)
    if tied:
        head.weight = embedding.weight
    elif head is not None:
        set_weight(head, weight_of(head)[:, kept])
    hidden = model.config.get_text_config(decoder=True).hidden_size
    for block in blocks(model):
        of = parts(block)
        for reads in (of.q, of.k, of.v, of.gate, of.up):
            if reads is not None:
                set_weight(reads, weight_of(reads)[:, kept])
        for writes in (of.o, of.down):
            set_weight(writes, weight_of(writes)[kept])
            if isinstance(bias := getattr(writes, "bias", None), Tensor):
                set_bias(writes, bias.detach()[kept])
    of_blocks = [norm for block in blocks(model) for norm in block.children() if is_norm(norm, hidden)]
    inner = {id(module) for block in blocks(model) for module in block.modules()}
    for norm in [*of_blocks, *(m for m in model.modules() if id(m) not in inner and is_norm(m, hidden))]:
        for name, tensor in list(norm._parameters.items()):
            if tensor is not None:
                norm._parameters[name] = nn.Parameter(tensor.detach()[kept], tensor.requires_grad)


def is_norm(module: nn.Module, hidden: int) -> bool:
    """Whether all that a module holds itself is one number, or several, for each of the hidden states'."""
    own = [tensor for tensor in module._parameters.values() if tensor is not None]
    return bool(own) and all(tensor.shape == (hidden,) for tensor in own)


def as_configured(model: Any) -> None:
    """Builds the model's modules anew from its configuration, around its tensors, so that each knows its own width.

    Raises:
        ModelError: the configuration is refused, or its model is not that of the tensors.
    """
    plain = type(model)
    try:
        config = type(model.config).from_dict(model.config.to_dict())
        with torch.device("meta"), no_init_weights():
            twin = plain(config)
        learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        twin.load_state_dict(model.state_dict(), strict=True, assign=True)
    except Exception as error:  # each architecture has its own ways to refuse widths
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ModelError(f"a {plain.__name__} of these widths is no plain model: {said}") from None
    for name, module in model.named_modules():
        for what, value in vars(twin.get_submodule(name)).items():
            if isinstance(value, float) and value != getattr(module, what, None):
                raise ModelError(
                    f"{plain.__name__}: {name}.{what} follows its widths, so that no plain model is a slice of it"
                )
    twin.tie_weights()
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(learns.get(name, True))
    for name, buffer in model.named_buffers():
        owner, _, last = name.rpartition(".")
        twin.get_submodule(owner)._buffers[last] = buffer
    twin.config._attn_implementation = model.config._attn_implementation
    model._modules, model.config = twin.eval()._modules, twin.config


def embedded(model: Any, calibration: Calibration) -> Float[Tensor, "batch token hidden"]:
    """What the first block reads of one short text."""
    seen: list[Tensor] = []
    block = blocks(model)[0]
    hook = block.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        model(input_ids=calibration.tokens[:1, :4].to(model.device), use_cache=False)
    finally:
        hook.remove()
    return seen[0].detach()


def _require_same(states: Tensor, wanted: Tensor, model: Any) -> None:
    """Refuses models whose embeddings are scaled by the hidden width, which a plain model of less cannot undo."""
    if not torch.allclose(states, wanted, rtol=1e-3):
        what = type(model).__name__
        raise ModelError(f"minitron: {what} scales its embeddings by the hidden width; allowed is hidden=1.0")


def _keep_queries(block: nn.Module, kept: Int[Tensor, " kept"], queries: int) -> None:
    """Keeps these query heads: rows of q, columns of o, and what the attention holds one of for each head."""
    of = parts(block)
    width = weight_of(of.q).shape[0] // queries
    rows = (kept[:, None] * width + torch.arange(width)).flatten()
    set_weight(of.q, weight_of(of.q)[rows])
    if isinstance(bias := getattr(of.q, "bias", None), Tensor):
        set_bias(of.q, bias.detach()[rows])
    width = weight_of(of.o).shape[1] // queries
    set_weight(of.o, weight_of(of.o)[:, (kept[:, None] * width + torch.arange(width)).flatten()])
    for name, own in list(of.attention.named_parameters(recurse=False)):
        if own.shape == (queries,):
            setattr(of.attention, name, nn.Parameter(own.detach()[kept], own.requires_grad))
