from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from contracts.tiny import MAKERS, tiny, tokens
from pith.core import InputError, ModelError
from pith.weights import Calibration, block_name, blocks, of_tokens, walk
from pith.weights.duplicate import duplicate, tensors_of


def texts(rows: int = 5, length: int = 40, **how: Any) -> Calibration:
    return of_tokens(tokens(rows, length).tolist(), **how)


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("rows", "length"), [(3, 37), (3, 900)], ids=["one batch", "two sizes"])
def test_blocks_read_what_they_read_in_the_model(name: str, rows: int, length: int) -> None:
    if length > 512 and name != "llama_gqa":
        length = 512
    model, prompts = tiny(name), tokens(rows, length)
    expected = model(prompts, output_hidden_states=True, use_cache=False).hidden_states
    seen = 0
    for stage in walk(model, texts(rows, length)):
        assert stage.name == block_name(model, stage.index)
        assert stage.block is blocks(model)[stage.index]
        torch.testing.assert_close(torch.cat(stage.inputs), expected[stage.index], rtol=1e-5, atol=1e-5)
        seen += 1
    assert seen == len(blocks(model))


def test_the_next_block_reads_what_the_changed_one_gives_or_what_is_handed_on() -> None:
    model = tiny("llama_gqa")
    dense = [torch.cat(stage.inputs) for stage in walk(model, texts())]
    for handed in (False, True):
        changed, read = duplicate(model), []
        for stage in walk(changed, texts()):
            read.append(torch.cat(stage.inputs))
            if handed:
                stage.hand_on()
            down = stage.block.get_submodule("mlp.down_proj")
            down.weight = nn.Parameter(torch.zeros_like(down.weight))
        assert torch.equal(read[0], dense[0])
        assert torch.equal(read[1], dense[1]) == handed


def test_readers_are_shown_every_token_once() -> None:
    model, seen = tiny("llama_gqa"), []
    for stage in walk(model, texts(5, 40)):
        down = stage.block.get_submodule("mlp.down_proj")
        outputs = stage.observe({down: lambda rows: seen.append(rows.shape)})
        assert torch.equal(torch.cat(outputs), torch.cat([stage.run(batch) for batch in range(len(stage.inputs))]))
    assert seen == [(200, 96)] * 2
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    def change(model: Any, stop_at: int | None = None) -> list[int]:
        shown = []
        for stage in walk(model, texts(folder=tmp_path)):
            if stage.index == stop_at:
                raise KeyboardInterrupt
            shown.append(stage.index)
            up = stage.block.get_submodule("mlp.up_proj")
            up.weight = nn.Parameter(up.weight * torch.cat(stage.inputs).mean().sign() * 0.5)
        return shown

    straight, model = duplicate(tiny("llama_gqa")), duplicate(tiny("llama_gqa"))
    (tmp_path / "other").mkdir()
    for stage in walk(straight, texts()):
        up = stage.block.get_submodule("mlp.up_proj")
        up.weight = nn.Parameter(up.weight * torch.cat(stage.inputs).mean().sign() * 0.5)
    with pytest.raises(KeyboardInterrupt):
        change(model, stop_at=1)
    again = duplicate(tiny("llama_gqa"))
    assert change(again) == [1]
    found, expected = again.state_dict(), straight.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_blocks_that_are_read_back_lie_as_those_that_were_just_changed(tmp_path: Path) -> None:
    """A processor's kernels choose their path, and so their rounding, by strides and addresses."""

    def lie(tensor: torch.Tensor) -> tuple[Any, ...]:
        return tuple(tensor.shape), tensor.stride(), tensor.data_ptr() % 64

    def change(handed: bool, calibration: Calibration, stop: bool = False) -> dict[str, Any]:
        model, found = duplicate(tiny("llama_gqa")), {}
        for stage in walk(model, calibration):
            if stage.index == 1:
                if stop:
                    raise KeyboardInterrupt
                found = {name: lie(tensor) for name, tensor in tensors_of(blocks(model)[0]).items()}
                found |= {f"input {index}": lie(states) for index, states in enumerate(stage.inputs)}
                found["values"] = torch.cat(stage.inputs)
            if handed:
                room = torch.empty(1 + sum(one.numel() for one in stage.inputs))  # outputs at an odd address
                stage.hand_on(list(room[1:].view(torch.cat(stage.inputs).shape).zero_().split(51)))
            mlp = stage.block.get_submodule("mlp")
            mlp.up_proj.weight = nn.Parameter((mlp.up_proj.weight * 2).T.contiguous().T)  # type: ignore[union-attr]
            both = torch.cat([torch.ones(7), mlp.down_proj.weight.flatten()])  # type: ignore[union-attr]
            mlp.down_proj.weight = nn.Parameter(both[7:].view(64, 96))  # type: ignore[union-attr]
        return found

    for handed in (False, True):
        keeping = texts(52, 40, folder=tmp_path / str(handed))
        with pytest.raises(KeyboardInterrupt):
            change(handed, keeping, stop=True)
        straight, resumed = change(handed, texts(52, 40)), change(handed, keeping)
        assert torch.equal(straight.pop("values"), resumed.pop("values"))
        assert straight == resumed
        assert all(address == 0 for _, _, address in straight.values())


def test_without_texts_there_is_nothing_to_walk() -> None:
    with pytest.raises(InputError, match=r"needs a calibration, such as pith\.calibration"):
        next(walk(tiny("llama_gqa"), Calibration.none()))


class _Told(hf.LlamaForCausalLM):
    """A model whose blocks are told of the text beside the hidden states."""

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        return super().forward(input_ids, told=torch.nn.functional.one_hot(input_ids, 97).float(), **kwargs)


def test_models_that_cannot_be_walked_are_refused() -> None:
    told = _Told(tiny("llama_gqa").config)
    with pytest.raises(ModelError, match="block 0 of _Told is given more of a text than hidden states"):
        next(walk(told, texts()))
    model = duplicate(tiny("llama_gqa"))
    model.model.layers[1].register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] + 1.0, *args[1:]), kwargs), with_kwargs=True
    )
    with pytest.raises(ModelError, match="block 1 of LlamaForCausalLM does not read what the block before it gives"):
        next(walk(model, texts()))
    lost = duplicate(tiny("llama_gqa"))
    lost.model.other = nn.ModuleList([nn.Identity(), nn.Identity()])
    with pytest.raises(ModelError, match="has 2 lists of 2 blocks; one is needed"):
        blocks(lost)
