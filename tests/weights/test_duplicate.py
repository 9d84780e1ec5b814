from __future__ import annotations

import torch
from torch import nn

from contracts.compressors import llama
from contracts.tiny import MAKERS, tiny, tokens
from pith.weights import weight_of
from pith.weights.duplicate import aligned, duplicate, settle, tensors_of
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


def at_address(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """Return a copy that begins so many bytes after a multiple of 64, as one of a file may."""
    size = tensor.numel() * tensor.element_size()
    room = torch.empty(size + 128, dtype=torch.uint8)
    begin = -room.data_ptr() % 64 + offset
    return room[begin : begin + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def test_aligned_copies_what_lies_at_another_address_or_in_another_order() -> None:
    plain = torch.randn(6, 10)
    assert aligned(plain) is plain
    for other in (at_address(plain, 8), plain.T.contiguous().T):
        assert torch.equal(aligned(other), plain)
        assert aligned(other).is_contiguous()
        assert aligned(other).data_ptr() % 64 == 0


def test_settled_tensors_lie_as_before_or_aligned() -> None:
    layer = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6, bias=False))
    layer[0].bias = nn.Parameter(at_address(torch.arange(4.0), 4))
    before = tensors_of(layer)
    layer[0].bias = nn.Parameter(before["0.bias"].detach().clone())
    layer[0].weight = nn.Parameter(at_address(torch.randn(4, 6), 28), requires_grad=False)
    layer[1].weight = nn.Parameter(torch.randn(4, 6).T)
    changed = {name: tensor.detach().clone() for name, tensor in tensors_of(layer).items()}
    settle(layer, before)
    assert layer[0].bias is before["0.bias"]
    assert not layer[0].weight.requires_grad
    for name, tensor in tensors_of(layer).items():
        assert torch.equal(tensor, changed[name])
        if name != "0.bias":
            assert tensor.is_contiguous()
            assert tensor.data_ptr() % 64 == 0


def test_settled_tensors_that_are_one_stay_one() -> None:
    layer = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    layer[0].weight = layer[1].weight = nn.Parameter(torch.randn(4, 4).T)
    settle(layer, {})
    assert layer[0].weight is layer[1].weight
    assert layer[0].weight.is_contiguous()
