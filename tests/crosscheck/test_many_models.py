"""The zoo and models of transformers: whatever they run, every FLOP by which others differ has a cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import attnprof
from attnprof import zoo
from attnprof.zoo import registry

#: One of each way to attend is always checked; the others when there is time.
_QUICK = ("mha", "sdpa", "flash", "gqa")
#: Those that look at a size as a number, which a trace does not let them.
_UNTRACED = {"block-window", "clustered"}


def explained(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, **how: Any) -> list[str]:
    """Cross-checks a run; the counters that could not count it."""
    report = attnprof.crosscheck(model, args, kwargs, **how)
    for check in report.crosschecks:
        assert check.unexplained == 0
        for module in check.modules.values():
            assert sum(cause.flops for cause in module.causes) == module.difference
    return [check.tool for check in report.crosschecks if check.problem]


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in registry.names()]
)
def test_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    model, args = zoo.build(name), zoo.inputs(name)
    backward = any(p.requires_grad for p in model.parameters())
    assert explained(model, args, backward=backward) == (["fvcore"] if name in _UNTRACED else [])


_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def _tokens(length: int = 8) -> torch.Tensor:
    return torch.randint(0, 100, (2, length))


def _gpt2() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config), {"input_ids": _tokens(), "labels": _tokens()}


def _llama() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.LlamaConfig(**_TINY, num_key_value_heads=2, vocab_size=100)
    return transformers.LlamaForCausalLM(config), {"input_ids": _tokens(), "attention_mask": torch.ones_like(_tokens())}


def _mixtral() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.MixtralConfig(**_TINY, num_key_value_heads=2, num_local_experts=4, vocab_size=100)
    return transformers.MixtralForCausalLM(config), {"input_ids": _tokens()}


def _vit() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.ViTConfig(**_TINY, image_size=16, patch_size=8)
    return transformers.ViTModel(config), {"pixel_values": torch.randn(2, 3, 16, 16)}


def _whisper() -> tuple[nn.Module, dict[str, Any]]:
    layers = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in _WHISPER_LAYERS.items()}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    sizes = {"d_model": 32, "vocab_size": 100, "num_mel_bins": 8, "max_source_positions": 20}
    config = transformers.WhisperConfig(**layers, **ids, **sizes, max_target_positions=20)
    model = transformers.WhisperModel(config)
    return model, {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": _tokens(5)}


def _mamba() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=100, state_size=4)
    return transformers.MambaForCausalLM(config), {"input_ids": _tokens()}


def _convnext() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1])
    return transformers.ConvNextModel(config), {"pixel_values": torch.randn(1, 3, 32, 32)}


_WHISPER_LAYERS = {"layers": 1, "attention_heads": 2, "ffn_dim": 64}
_MODELS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "gpt2": _gpt2,
    "whisper": _whisper,
    "llama": _llama,
    "mixtral": _mixtral,
    "vit": _vit,
    "mamba": _mamba,
    "convnext": _convnext,
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "name", [n if n in ("gpt2", "whisper") else pytest.param(n, marks=pytest.mark.slow) for n in _MODELS]
)
def test_models_of_transformers(name: str, training: bool) -> None:
    torch.manual_seed(0)
    model, kwargs = _MODELS[name]()
    assert explained(model.train(training), (), kwargs, backward=True) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"plan": attnprof.Plan(autocast="bf16"), "backward": True},
        {"plan": attnprof.Plan(dtype="bf16"), "backward": True},
        {"plan": attnprof.Plan(checkpoint=True), "backward": True},
        {"plan": attnprof.Plan(freeze=("*.attn.*",)), "backward": True},
        {"optimizer": "adamw"},
        {"fake": True, "backward": True},
        {"generate": 3},
    ],
    ids=["autocast", "bf16", "checkpoint", "freeze", "adamw", "fake", "generate"],
)
def test_every_way_to_run_a_model(how: dict[str, Any]) -> None:
    model, kwargs = _gpt2()
    if "generate" in how:
        kwargs.pop("labels")
    failed = explained(model, (), kwargs, **how)
    assert failed == (["fvcore"] if "fake" in how or "generate" in how else [])
