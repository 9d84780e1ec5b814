"""Inheritune is the large model asked for its answer early."""

from __future__ import annotations

import pytest
import torch

from contracts.drawn import drawn, drawn_tokens
from pith.core import ModelError
from pith.pruning.inheritune import Inheritune
from pith.weights.size import weight_bytes


@pytest.mark.parametrize("keep", [3, 0.5, 0.4])
@torch.no_grad()
def test_logits_are_those_of_an_early_exit(keep: int | float) -> None:
    model, tokens = drawn(0), drawn_tokens(2, 12, 1)
    small = Inheritune(keep=keep).compress(model)
    read: list[torch.Tensor] = []
    handle = model.model.layers[2].register_forward_hook(lambda m, args, output: read.append(output))
    model(tokens)
    handle.remove()
    assert torch.equal(small(tokens).logits, model.lm_head(model.model.norm(read[0])))
    assert Inheritune(keep=keep).predicted_bytes(model) == weight_bytes(small)


def test_what_is_inherited_is_the_same() -> None:
    model = drawn(0, tie_word_embeddings=True)
    small = Inheritune(keep=2).compress(model)
    own, inherited = model.state_dict(), small.state_dict()
    assert {name for name in own if not name.startswith("model.layers.")} < inherited.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in inherited.items())
    assert sum(name.endswith("up_proj.weight") for name in inherited) == 2
    assert small.lm_head.weight is small.model.embed_tokens.weight


@pytest.mark.parametrize("keep", [0, 7, 0.0])
def test_what_cannot_be_is_refused(keep: int | float) -> None:
    with pytest.raises(ModelError, match=rf"{int(keep)} of 6 blocks cannot be kept; allowed are 1 to 6"):
        Inheritune(keep=keep).compress(drawn(0))
