"""What the catalogue says of the packaged models is what they are."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
import torch

from pith.core import ModelError
from pith.models import load
from pith.models.cached import model_folder, origin
from pith.models.packages import PACKAGED, PackagedModel
from pretrained import smollm2


@pytest.mark.parametrize("model", PACKAGED.values(), ids=list(PACKAGED))
def test_an_entry_is_complete(model: PackagedModel) -> None:
    assert re.fullmatch(r"[a-z0-9]+", model.name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.hub)
    assert re.fullmatch(r"[a-z0-9-]+==\d+\.\d+\.\d+", model.requirement)
    assert model.kind in ("causal", "embedder")
    assert model.licence == "Apache-2.0"
    for digest in (model.wheel_sha256, *(file.sha256 for file in model.files)):
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
    for path in (model.folder, *(file.path for file in model.files)):
        assert not PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts
    assert sum(file.bytes for file in model.files) < 1.2 * model.wheel_bytes
    assert model.gguf in (None, *(file.path for file in model.files))


def test_an_embedder_is_refused_whether_it_is_here_or_not() -> None:
    with pytest.raises(ModelError, match=r"minilm is an embedder \(all-MiniLM-L6-v2, .* a causal language model"):
        load("minilm")


def test_smollm2_is_what_the_catalogue_says_and_answers() -> None:
    loaded, model = smollm2(), PACKAGED["smollm2"]
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == model.parameters
    if origin(model_folder("smollm2")).get("from") == "package":
        assert (model_folder("smollm2") / "model.safetensors").stat().st_size == model.converted_bytes
    config = loaded.model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    chat = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        said = loaded.model.generate(**chat, max_new_tokens=8, do_sample=False)[0, chat.input_ids.shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(said)
