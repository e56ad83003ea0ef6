"""Hugging Face models generate what they generate by themselves, token for token, and are counted on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import attnprof
from attnprof.capture.generation import generate

B, T, V, N = 2, 5, 50, 6
#: No end token: a model that would stop early would be compared on nothing.
TOKENS: dict[str, Any] = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
LLAMA = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    **TOKENS,
}
ENCODER_DECODER = {"decoder_start_token_id": 2, **TOKENS}


def gpt2() -> nn.Module:
    return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_head=2, n_layer=2, n_positions=64, **TOKENS))


def llama() -> nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA))


def mistral() -> nn.Module:
    return hf.MistralForCausalLM(hf.MistralConfig(sliding_window=4, **LLAMA))


def gemma3() -> nn.Module:
    layers = ["sliding_attention", "full_attention"]
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(head_dim=8, sliding_window=4, layer_types=layers, **LLAMA))


def mixtral() -> nn.Module:
    return hf.MixtralForCausalLM(hf.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **LLAMA))


def bloom() -> nn.Module:
    return hf.BloomForCausalLM(hf.BloomConfig(hidden_size=32, n_head=2, n_layer=2, **TOKENS))


def mamba() -> nn.Module:
    return hf.MambaForCausalLM(hf.MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, **TOKENS))


def rwkv() -> nn.Module:
    config = hf.RwkvConfig(hidden_size=16, attention_hidden_size=16, num_hidden_layers=2, **TOKENS)
    return hf.RwkvForCausalLM(config)


def jamba() -> nn.Module:
    config = hf.JambaConfig(num_experts=2, attn_layer_period=2, attn_layer_offset=1, **LLAMA)
    return hf.JambaForCausalLM(config)


def t5() -> nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, **ENCODER_DECODER)
    )


def bart() -> nn.Module:
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in [("layers", 2), ("ffn_dim", 48)]}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    config = hf.BartConfig(d_model=32, max_position_embeddings=64, forced_eos_token_id=None, **sizes, **heads)
    config.update(ENCODER_DECODER)
    return hf.BartForConditionalGeneration(config)


def whisper() -> nn.Module:
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in [("layers", 2), ("ffn_dim", 48)]}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    config = hf.WhisperConfig(
        d_model=32,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=40,
        **sizes,
        **heads,
        **ENCODER_DECODER,
    )
    return hf.WhisperForConditionalGeneration(config)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def ids() -> Tensor:
    return torch.randint(5, V, (B, T))


def steps_of(model: nn.Module, kwargs: dict[str, Any]) -> tuple[Tensor, bool]:
    """The ids that the counted loop makes, in as many steps as tokens."""
    profile = attnprof.profile(model)
    made = generate(profile, model, (), kwargs, N)
    assert list(profile.trace.step_labels.values()) == ["prefill", *(f"decode {i}" for i in range(1, N))]
    return made.ids, made.cached


@pytest.mark.parametrize(
    "build", [gpt2, llama, mistral, gemma3, mixtral, bloom, mamba, rwkv, jamba, t5, bart], ids=lambda b: b.__name__
)
def test_token_for_token(build: Callable[[], nn.Module]) -> None:
    model, kwargs = build().eval(), {"input_ids": ids()}
    expected = model.generate(**kwargs, max_new_tokens=N, do_sample=False)  # type: ignore[operator]
    made, cached = steps_of(model, kwargs)
    assert torch.equal(made, expected)
    assert cached


@pytest.mark.parametrize("build", [gpt2, llama, mamba, bart], ids=lambda b: b.__name__)
def test_with_a_mask(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    kwargs = {"input_ids": ids(), "attention_mask": torch.ones(B, T, dtype=torch.int64)}
    expected = model.generate(**kwargs, max_new_tokens=N, do_sample=False)  # type: ignore[operator]
    assert torch.equal(steps_of(model, kwargs)[0], expected)


def test_a_prompt_padded_on_the_left_with_its_positions() -> None:
    model, mask = llama().eval(), torch.ones(B, T, dtype=torch.int64)
    mask[0, :2] = 0
    kwargs = {"input_ids": ids(), "attention_mask": mask}
    expected = model.generate(**kwargs, max_new_tokens=N, do_sample=False)  # type: ignore[operator]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    assert torch.equal(steps_of(model, {**kwargs, "position_ids": positions})[0], expected)


def test_without_a_cache() -> None:
    model, kwargs = gpt2().eval(), {"input_ids": ids()}
    expected = model.generate(**kwargs, max_new_tokens=N, do_sample=False)  # type: ignore[operator]
    made, cached = steps_of(model, {**kwargs, "use_cache": False})
    assert torch.equal(made, expected)
    assert not cached


def test_a_static_cache() -> None:
    model, kwargs = llama().eval(), {"input_ids": ids()}
    expected = model.generate(**kwargs, max_new_tokens=N, do_sample=False)  # type: ignore[operator]
    cache = hf.StaticCache(model.config, max_cache_len=T + N)
    made, cached = steps_of(model, {**kwargs, "past_key_values": cache})
    assert torch.equal(made, expected)
    assert cached
    assert cache.get_seq_length() == 0  # a copy was used


def test_whisper_as_step_by_step_without_a_cache() -> None:
    model, features = whisper().eval(), torch.randn(B, 8, 20)
    expected = torch.full((B, 1), 2)
    with torch.no_grad():
        for _ in range(N):
            logits = model(features, decoder_input_ids=expected, use_cache=False).logits
            expected = torch.cat([expected, logits[:, -1].argmax(-1, keepdim=True)], 1)
    made, cached = steps_of(model, {"input_features": features})
    assert torch.equal(made, expected)
    assert cached


def test_a_model_without_a_head_is_told_what_it_returned() -> None:
    with pytest.raises(attnprof.AttnprofError, match=r"GPT2Model returned \w+\(last_hidden_state, past_key_values\)"):
        attnprof.run(hf.GPT2Model(gpt2().config), (), {"input_ids": ids()}, generate=2)


@pytest.mark.parametrize("build", [llama, mistral, mamba, t5], ids=lambda b: b.__name__)
def test_fake_equals_real(build: Callable[[], nn.Module]) -> None:
    model, kwargs = build().eval(), {"input_ids": ids()}

    def found(fake: bool) -> list[Any]:
        report = attnprof.run(model, (), kwargs, generate=4, fake=fake)
        assert report.unpriced == {}
        return [(step.label, step.phases) for step in report.steps]

    assert found(fake=True) == found(fake=False)


def test_fake_equals_real_in_matmul_flops_where_a_model_looks_at_values() -> None:
    """GPT-2 looks whether its positions are those of packed sequences, which a fake run cannot."""
    model, kwargs = gpt2().eval(), {"input_ids": ids()}

    def found(fake: bool) -> list[int]:
        return [step.cost.matmul_flops for step in attnprof.run(model, (), kwargs, generate=4, fake=fake).steps]

    assert found(fake=True) == found(fake=False)
