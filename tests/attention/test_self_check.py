"""What is found when a recipe is first applied to a model."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, MAKERS, tiny, tokens
from pith.attention import self_check
from pith.core import ModelError, Recipe

SMALL = {**COMMON, "num_key_value_heads": 2}
MOE = {
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
INDEXER = {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 8}

REFUSED = {
    "DiffLlamaForCausalLM": (lambda: hf.DiffLlamaConfig(**SMALL), "did not reach its attention"),
    "DogeForCausalLM": (lambda: hf.DogeConfig(**SMALL), "mask has 4 dimensions"),
    "MiniMaxForCausalLM": (lambda: hf.MiniMaxConfig(**SMALL, **MOE), "uses cache of its own"),
    "DeepseekV32ForCausalLM": (
        lambda: hf.DeepseekV32Config(**{**SMALL, "num_key_value_heads": 4}, head_dim=8, **MOE, **LATENT, **INDEXER),
        "fails under Pith's attention",
    ),
    "RecurrentGemmaForCausalLM": (
        lambda: hf.RecurrentGemmaConfig(**{**SMALL, "num_hidden_layers": 3}, lru_width=64, attention_window_size=8),
        "returns no past_key_values",
    ),
    "MambaForCausalLM": (lambda: hf.MambaConfig(hidden_size=64, num_hidden_layers=2, vocab_size=97), "past_key_values"),
    "InklingAttention": (
        lambda: hf.InklingTextConfig(
            **SMALL, **MOE, head_dim=16, swa_head_dim=16, swa_num_attention_heads=4, swa_num_key_value_heads=2
        ),
        "hands 'position_bias' to its attention function",
    ),
}


def built(config: hf.PretrainedConfig) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_one_line_that_says_what_differs(name: str) -> None:
    make, why = REFUSED[name]
    model = built(make())
    before = model.config._attn_implementation
    for _ in range(2):  # the second time from memory
        with pytest.raises(ModelError) as error, pith.applied(model, "dense"):
            raise AssertionError("applied")
        line = str(error.value)
        assert name in line
        assert why in line
        assert "\n" not in line
        assert len(line) < 300
    assert model.config._attn_implementation == before


def test_outputs_are_contiguous() -> None:
    model = built(hf.AfmoeConfig(**SMALL, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32))
    prompt = tokens(2, 11)
    with torch.no_grad():
        want = model(prompt).logits
        with pith.applied(model, "dense"):
            got = model(prompt, use_cache=True).logits
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_a_model_that_is_served_passes(name: str, dtype: torch.dtype) -> None:
    model = tiny(name, dtype)
    self_check.check(model)
    assert self_check._checked[model][model.config._attn_implementation].refusal is None


def test_the_model_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    config = hf.LlamaConfig(**{**SMALL, "attention_dropout": 0.5}, head_dim=16)
    model = built(config).train()
    model.model.layers[0].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    seen: list[object] = []
    model.register_forward_hook(lambda *args: seen.append(args))
    self_check.check(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), random)
    assert model.config._attn_implementation == "sdpa"
    assert not seen
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(hf.LlamaConfig(**SMALL))
    reads: list[int] = []
    own = type(model).forward

    def counted(*args, **kwargs):
        reads.append(1)
        return own(*args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    Recipe.parse("snapkv(budget=8)").cache(model)
    assert len(reads) == 8  # two prompts and two decoded tokens, each both ways
    for _ in range(3):
        Recipe([]).cache(model)
    assert len(reads) == 8
    model.set_attn_implementation("eager")  # another attention is another thing to agree with
    Recipe([]).cache(model)
    assert len(reads) == 16


def test_models_are_not_kept_alive() -> None:
    import gc
    import weakref

    model = built(hf.LlamaConfig(**SMALL))
    known = weakref.ref(model)
    Recipe([]).cache(model)
    del model
    gc.collect()
    assert known() is None


def test_a_model_without_weights_is_not_read() -> None:
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL))
    assert len(Recipe.parse("streaming_llm(budget=8)").cache(model).served()) == 2


def test_a_difference_within_the_models_own_rounding_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_allowed", lambda dtype: 0.0)
    noise: list[float] = []
    own = self_check._noise
    monkeypatch.setattr(self_check, "_noise", lambda *args: noise.append(own(*args)) or noise[-1])
    self_check.check(built(hf.LlamaConfig(**SMALL)))
    assert all(0 < value < 1e-5 for value in noise)


def test_a_wrong_attention_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from pith.attention import layer

    own = layer.attend
    monkeypatch.setattr(layer, "attend", lambda *args, **kwargs: own(*args, **kwargs) * 1.01)
    with pytest.raises(ModelError, match=r"differ from its own .* of their norm at .*decoded token"):
        self_check.check(built(hf.LlamaConfig(**{**SMALL, "initializer_range": 0.2})))


def test_a_mask_with_other_values_is_refused() -> None:
    from pith.attention.interface import attention

    module = torch.nn.Module()
    query, mask = torch.randn(1, 2, 3, 4), torch.zeros(1, 1, 3, 3)
    out, _ = attention(module, query, query, query, mask)
    assert out.shape == (1, 3, 2, 4)
    mask[..., 0] = 0.5
    with pytest.raises(ModelError, match="values other than 0 and -inf"):
        attention(module, query, query, query, mask)


def test_what_is_unknown_is_refused_where_it_is_given() -> None:
    from pith.attention.interface import attention

    module, x = torch.nn.Module(), torch.randn(1, 2, 3, 4)
    attention(module, x, x, x, None, sliding_window=4, use_cache=True, indices=None)
    with pytest.raises(ModelError, match="hands 'indices' to its attention function"):
        attention(module, x, x, x, None, indices=torch.zeros(1))
