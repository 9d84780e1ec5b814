from __future__ import annotations

import torch
from torch import nn

from contracts.compressors import llama
from contracts.tiny import MAKERS, tiny, tokens
from pith.weights import weight_of
from pith.weights.duplicate import duplicate
from pith.weights.linears import set_weight


def test_every_tensor_is_shared_and_no_module() -> None:
    for name in MAKERS:
        model = tiny(name)
        twin = duplicate(model)
        ours, theirs = model.state_dict(), twin.state_dict()
        assert all(ours[key].data_ptr() == theirs[key].data_ptr() for key in ours)
        modules = {id(module) for module in model.modules()}
        assert not any(id(module) in modules for module in twin.modules())
        assert twin.config is not model.config
        with torch.no_grad():
            assert torch.equal(twin(tokens(1, 9)).logits, model(tokens(1, 9)).logits)


def test_what_is_put_into_one_is_not_in_the_other() -> None:
    model = llama()
    before = model.model.layers[0].mlp.down_proj
    twin = duplicate(model)
    twin.model.layers[0].mlp.down_proj = nn.Identity()
    assert model.model.layers[0].mlp.down_proj is before


def test_tied_embeddings_stay_tied() -> None:
    twin = duplicate(llama(tied=True))
    assert twin.lm_head.weight is twin.model.embed_tokens.weight


def test_a_part_of_a_weight_does_not_hold_the_whole() -> None:
    layer = nn.Linear(8, 6).requires_grad_(False)
    set_weight(layer, weight_of(layer)[:2])
    assert layer.weight.untyped_storage().nbytes() == 2 * 8 * 4
    assert (layer.out_features, layer.in_features) == (2, 8)
