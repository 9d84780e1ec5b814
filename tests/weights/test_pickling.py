"""Models with modules of Pith are pickled, saved by PyTorch, copied and sent to another process as any other."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pith
from contracts.compressors import llama, small, texts
from contracts.tiny import tiny, tokens
from pith.weights.packed import GroupedLinear

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")

RECIPES = [
    "rtn(bits=8)", "rtn(bits=4, group_size=32)", "rtn(bits=3, group_size=32)", small("reallm"),
    "llm_drop(drop=1, part='attention')", "llm_drop(drop=1, part='mlp')", small("flap"), small("flexi_gpt"),
    small("to_moe"), "llm_drop(drop=1, part='attention') + rtn(bits=4, group_size=32)", small("magnitude"),
]  # fmt: skip
"""With each kind of module that plain Transformers does not have."""


def by_torch(model: Any) -> Any:
    held = io.BytesIO()
    torch.save(model, held)
    held.seek(0)
    return torch.load(held, weights_only=False)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_copy_gives_the_same(recipe: str) -> None:
    model, prompt = pith.compress(llama(), recipe, texts(rows=2, length=16)), tokens(2, 9)
    with torch.no_grad():
        expected = model(prompt).logits
        for again in (by_torch(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert type(again) is type(model)
            assert [type(one) for one in again.modules()] == [type(one) for one in model.modules()]
            assert torch.equal(again(prompt).logits, expected)
            ours = {id(module) for module in model.modules()}
            assert not any(id(module) in ours for module in again.modules())


def test_split_experts_come_back() -> None:
    fresh = type(tiny("olmoe"))(tiny("olmoe").config)  # Transformers' hooks of outputs, once used, are not pickled
    model, prompt = pith.compress(fresh.eval(), "rtn(bits=4, group_size=32)"), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(prompt).logits, model(prompt).logits)


def test_a_copy_is_saved_as_the_model_is(tmp_path: Path) -> None:
    model = pith.compress(llama(), "rtn(bits=4, group_size=32)")
    copy.deepcopy(model).save_pretrained(tmp_path)
    from pith.weights.folder import load_folder

    with torch.no_grad():
        assert torch.equal(load_folder(tmp_path)(tokens(1, 9)).logits, model(tokens(1, 9)).logits)


def test_pickled_codes_lie_in_their_own_order_and_copied_ones_are_shared() -> None:
    """The order of a processor's kernel means nothing on another machine."""
    layer = GroupedLinear(64, 256, False, torch.bfloat16, bits=4, group_size=32)
    layer.codes = torch.randint(
        0, 256, layer.codes.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    layer.scales = torch.ones_like(layer.scales)
    own, dense = layer.codes.clone(), layer.dense()
    layer._turn(layer._fits)
    again = pickle.loads(pickle.dumps(layer))
    assert not again.turned
    assert torch.equal(again.codes, own)
    assert torch.equal(again.dense(), dense)
    twin = copy.deepcopy(layer, {id(layer.codes): layer.codes})
    assert twin.codes is layer.codes
    assert twin.turned == layer.turned
    assert torch.equal(twin.dense(), dense)


def test_another_process_reads_it(tmp_path: Path) -> None:
    """Bit for bit; its logits are equal but for rounding, since another process may use other threads and addresses."""
    model, prompt = pith.compress(llama(), "rtn(bits=4, group_size=32)"), tokens(1, 9)
    torch.save((model, prompt), tmp_path / "model.pt")
    code = (
        "import sys, torch\n"
        "model, prompt = torch.load(sys.argv[1], weights_only=False)\n"
        "with torch.no_grad():\n"
        "    torch.save((model.state_dict(), model(prompt).logits), sys.argv[2])\n"
    )
    given = [str(tmp_path / "model.pt"), str(tmp_path / "read.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *given], check=True, timeout=120)
    state, logits = torch.load(tmp_path / "read.pt")
    mine = model.state_dict()
    assert state.keys() == mine.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in mine.items())
    with torch.no_grad():
        assert (logits - model(prompt).logits).abs().max() < 1e-5


@pytest.mark.parametrize("recipe", ["rtn(bits=8)", "rtn(bits=4, group_size=32)"])
def test_gradients_are_those_of_the_decoded_weights(recipe: str) -> None:
    model = pith.compress(llama(), recipe)
    plain = copy.deepcopy(llama())
    with torch.no_grad():
        for name, layer in model.named_modules():
            if hasattr(layer, "dense"):
                plain.get_submodule(name).weight.copy_(layer.dense())
    found = []
    for one in (model, plain):
        states = llama().get_input_embeddings()(tokens(2, 9)).detach().requires_grad_()
        one.train()(inputs_embeds=states).logits.square().mean().backward()
        found.append(states.grad)
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
