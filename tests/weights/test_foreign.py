"""No configuration brings code from elsewhere into the process."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from pith.core import ModelError, PithWarning
from pith.weights.foreign import trust_nothing


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize(
    "value", ["kernels-community/flash-attn2", "some/body@main:f", "flash_attention_2", {"": "a/b"}]
)
def test_kernels_for_attention_are_dropped_with_a_word(key: str, value: Any) -> None:
    config = LlamaConfig(**{key: value})
    with pytest.warns(PithWarning, match=r"config\.json of here names attn_implementation '.*', which is not used"):
        trust_nothing(config, "here")
    assert config._attn_implementation is None


def test_kernels_for_experts_and_of_an_inner_configuration() -> None:
    config = AutoConfig.for_model("gemma3")
    config.text_config._attn_implementation = "some/body"
    config.text_config._experts_implementation = "sonicmoe"
    with pytest.warns(PithWarning, match="which is not used") as caught:
        trust_nothing(config, "here")
    assert len([one for one in caught if one.category is PithWarning]) == 2
    assert (config.text_config._attn_implementation, config.text_config._experts_implementation) == (None, None)


def test_what_is_pytorch_s_own_stays() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (None, "eager", "sdpa"):
            config = LlamaConfig(attn_implementation=value, fusion_config={"patch_embeddings": True})
            trust_nothing(config, "here")
            assert config._attn_implementation == value
            assert config.fusion_config is None, "it changes classes of Transformers"


def test_quantizers_that_fetch_kernels_are_decoded_or_refused() -> None:
    for method in ("fp8", "mxfp4", "mxfp8"):
        config = LlamaConfig(quantization_config={"quant_method": method})
        trust_nothing(config, "here")
        assert AUTO_QUANTIZATION_CONFIG_MAPPING[method].from_dict(config.quantization_config).dequantize is True
    for method in ("eetq", "fbgemm_fp8", "metal", "nvfp4", "some/body", None, 5):
        with pytest.raises(ModelError, match="which is not allowed: it may run code from the hub"):
            trust_nothing(LlamaConfig(quantization_config={"quant_method": method}), "here")
    for said in ({"quant_method": "compressed-tensors"}, {"load_in_4bit": True}):
        config = LlamaConfig(quantization_config=said)
        trust_nothing(config, "here")
        assert config.quantization_config == said


@pytest.mark.parametrize("value", [10**30, 20_000, -(10**30)])
def test_a_model_that_would_never_be_built_is_refused(value: int) -> None:
    config = LlamaConfig()
    config.num_hidden_layers = value
    with pytest.raises(ModelError, match=r"config\.json of here has num_hidden_layers=.*at most 16384 is"):
        trust_nothing(config, "here")


@pytest.mark.parametrize("key", ["vocab_size_per_layer_input", "shared_expert_intermediate_size", "head_size"])
def test_widths_of_layers_are_not_numbers_of_them(key: str) -> None:
    config = LlamaConfig()
    setattr(config, key, 262144)
    trust_nothing(config, "here")
    assert getattr(config, key) == 262144
