"""Decoding steps of transformers: how many keys a layer finds in its cache is recorded, and predicted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import attnprof
from attnprof.analysis.report import Report
from models import shrinking
from models.configs import CASES
from models.test_predicted import assert_predicted

#: Prompt, tokens made, and what a decoder's layer is made of below.
B, T, STEPS, L, d, H, f, V = 2, 5, 4, 2, 32, 4, 64, 50


def llama(**changed: Any) -> nn.Module:
    config = hf.LlamaConfig(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=H, num_hidden_layers=L, intermediate_size=f,
        vocab_size=V, **changed,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config).eval()


def mistral(window: int) -> nn.Module:
    config = hf.MistralConfig(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=H, num_hidden_layers=L, intermediate_size=f,
        vocab_size=V, sliding_window=window,
    )  # fmt: skip
    return hf.MistralForCausalLM(config).eval()


def tokens(length: int) -> Tensor:
    return torch.randint(V, (B, length))


def of_attention(report: Report, layer: int = 0) -> int:
    """What is predicted of a layer's scores and weighted sums, all calls together."""
    name = f"model.layers.{layer}.self_attn"
    (found,) = [c for c in report.comparisons if (c.module, c.phase, c.quantity) == (name, "forward", "matmul_flops")]
    return sum(term.value for term in found.terms if term.name in ("scores", "weighted_sum"))


def test_every_step_sees_the_tokens_before_it() -> None:
    """A prompt of T, then STEPS - 1 single tokens: T² pairs and T + 1, T + 2, ... more, 4 B d FLOPs each."""
    report = attnprof.run(llama(), kwargs={"input_ids": tokens(T)}, generate=STEPS, strict_prediction=True)
    assert_predicted(report)
    pairs = T * T + sum(T + step for step in range(1, STEPS))
    assert of_attention(report) == of_attention(report, 1) == 4 * B * d * pairs


@pytest.mark.parametrize("window", [3, T, T + 1, T + 2, 20])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_of_a_window_only_what_is_kept_is_seen(window: int, attention: str) -> None:
    """The prompt is computed in full; a new token sees itself and at most the window less one before it."""
    model = mistral(window)
    model.set_attn_implementation(attention)  # type: ignore[operator]
    report = attnprof.run(model, kwargs={"input_ids": tokens(T)}, generate=STEPS, strict_prediction=True)
    assert_predicted(report)
    pairs = T * T + sum(min(T + step, window) for step in range(1, STEPS))
    assert of_attention(report) == 4 * B * d * pairs


@pytest.mark.parametrize("chunks", [(T, 3, 1), (1, 1), (1, T)])
def test_several_tokens_after_a_cache(chunks: tuple[int, ...]) -> None:
    model, before, pairs = llama(), 0, 0
    cache = hf.DynamicCache()
    with attnprof.profile(model) as prof, torch.no_grad():
        for chunk in chunks:
            model(input_ids=tokens(chunk), past_key_values=cache)
            before += chunk
            pairs += chunk * before
    report = prof.report()
    report.theory.require_exact()
    assert_predicted(report)
    assert of_attention(report) == 4 * B * d * pairs


def test_a_static_cache_is_seen_whole() -> None:
    """Its slots are there from the start, and a token computes with all; for the prompt, transformers cuts them off."""
    model, slots = llama(), 16
    cache = hf.StaticCache(config=model.config, max_cache_len=slots)
    with attnprof.profile(model) as prof, torch.no_grad():
        model(input_ids=tokens(T), past_key_values=cache)
        model(input_ids=tokens(1), past_key_values=cache)
    report = prof.report()
    report.theory.require_exact()
    assert of_attention(report) == 4 * B * d * (T * T + slots)


def test_one_token_without_a_cache_sees_itself() -> None:
    report = attnprof.run(
        llama(), kwargs={"input_ids": tokens(1), "use_cache": False}, backward=True, strict_prediction=True
    )
    assert_predicted(report)
    assert of_attention(report) == 4 * B * d


def test_a_backward_through_a_step() -> None:
    """The cached keys take no gradient; what computes with all keys does as much as ever."""
    model, cache = llama(), hf.DynamicCache()
    with torch.no_grad():
        model(input_ids=tokens(T), past_key_values=cache)
    with attnprof.profile(model) as prof:
        model(input_ids=tokens(2), past_key_values=cache).logits.sum().backward()
    report = prof.report()
    report.theory.require_exact()
    assert_predicted(report)
    assert report.phases["backward"].matmul_flops > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["gpt2", "gptj", "gemma3_text", "mixtral", "opt", "phi", "qwen2"])
def test_decoders(model_type: str) -> None:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(shrinking.small_config(hf.CONFIG_MAPPING[model_type])).eval()
    ids = torch.randint(4, 60, (B, T))
    assert_predicted(attnprof.run(model, kwargs={"input_ids": ids}, generate=STEPS, strict_prediction=True))


@pytest.mark.parametrize("name", ["whisper", "t5"])
def test_decoders_of_another_sequence(name: str) -> None:
    """The encoder's keys and values are projected once, and attended to in every step."""
    case = CASES[name]
    model = case.build().eval()
    given = case.inputs()
    given.pop("labels", None)
    start, cache = given.pop("decoder_input_ids"), None
    with attnprof.profile(model) as prof, torch.no_grad():
        encoded = model.get_encoder()(given.get("input_ids", given.get("input_features")))
        for ids in (start, start[:, :1], start[:, :2]):
            out = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
    report = prof.report()
    report.theory.require_exact()
    assert_predicted(report)


@pytest.mark.parametrize("value_width", [8, 12])
def test_latent_attention(value_width: int) -> None:
    """Keys of 4 + 4 numbers a head, values of another width: 2 B H (8 + value) FLOPs for each pair."""
    config = hf.DeepseekV3Config(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=H, num_hidden_layers=1, intermediate_size=f,
        vocab_size=V, q_lora_rank=6, kv_lora_rank=10, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=value_width,
        first_k_dense_replace=1,
    )  # fmt: skip
    model = hf.DeepseekV3ForCausalLM(config).eval()
    report = attnprof.run(model, kwargs={"input_ids": tokens(T)}, generate=STEPS, strict_prediction=True)
    assert_predicted(report)
    pairs = T * T + sum(T + step for step in range(1, STEPS))
    assert of_attention(report) == 2 * B * H * (8 + value_width) * pairs
    training = attnprof.run(model, kwargs={"input_ids": tokens(T)}, backward=True, strict_prediction=True)
    assert_predicted(training)


def test_a_saved_generation_is_predicted_without_the_model(tmp_path: Path) -> None:
    report = attnprof.run(llama(), kwargs={"input_ids": tokens(T)}, generate=STEPS)
    report.save(tmp_path / "run.json")
    assert attnprof.load(tmp_path / "run.json").comparisons == report.comparisons


def test_a_cache_of_another_kind_is_said_to_be_unknown() -> None:
    """One whose layers keep no keys that can be asked."""

    class Opaque(hf.DynamicCache):
        def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any) -> tuple[Tensor, Tensor]:
            keys, values = super().update(key_states, value_states, layer_idx, *rest)
            self.hidden = [layer.__dict__.copy() for layer in self.layers]
            self.layers = []
            return keys, values

    model = llama()
    with attnprof.profile(model) as prof, torch.no_grad():
        model.model.layers[0].self_attn(
            torch.randn(B, 1, d),
            position_embeddings=(torch.ones(1, 1, d // H), torch.zeros(1, 1, d // H)),
            attention_mask=None,
            past_key_values=Opaque(),
        )
    assert prof.report().theory.reasons == {
        "model.layers.0.self_attn": "it was given a cache, and nothing says how many tokens are in it"
    }
