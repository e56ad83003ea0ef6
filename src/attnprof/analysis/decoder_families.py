"""What the decoder-only models of one ``model_type`` have in common, by the names of Hugging Face's configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: A property of a family: the same for all its models, or a flag of the config (False where it is not there).
Flag = bool | str
_LLAMA = {
    "d": "hidden_size",
    "L": "num_hidden_layers",
    "H": "num_attention_heads",
    "V": "vocab_size",
    "f": "intermediate_size",
    "N": "max_position_embeddings",
}
_GPT2 = {"d": "n_embd", "L": "n_layer", "H": "n_head", "V": "vocab_size", "f": "n_inner", "N": "n_positions"}


@dataclass(frozen=True)
class Family:
    """What the models of one ``model_type`` have in common.

    ``norm`` is how many numbers a norm has per element of width; ``norms`` how many a layer has. ``qk_norm``: norms of
    queries and keys, over a head's width or that of all heads. ``window``: which layers are limited to
    ``sliding_window`` keys where the config does not say by ``layer_types``; ``most`` are all but each ``period``-th.
    ``head_dim``: where the config has none
    and it is not d / H. ``grouped``: the config has to say how many key heads there are. ``extra_positions``: rows of
    the position embedding beyond the longest sequence; None without one. ``experts``: the config's names of the
    number of experts and of their width. ``sinks``: a number per head beside its scores. ``unusual``: a field, and
    the value of it that has a closed form.
    """

    names: Mapping[str, str]
    gated: bool = True
    norm: int = 1
    norms: int = 2
    qk_norm: Literal["", "head", "width"] = ""
    qkv_bias: Flag = False
    out_bias: Flag = False
    mlp_bias: Flag = False
    head_bias: Flag = False
    tied: bool = False
    window: Literal["none", "all", "even", "most", "asked", "last asked"] = "none"
    usual_window: int | None = None
    period: int = 6
    extra_positions: int | None = None
    experts: tuple[tuple[str, ...], str] | None = None
    head_dim: int | None = None
    grouped: bool = False
    sinks: bool = False
    router_bias: bool = False
    unusual: tuple[str, object] | None = None


def _llama(**other: Any) -> Family:
    biases: dict[str, Flag] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias", "mlp_bias": "mlp_bias"}
    return Family(_LLAMA, **{**biases, **other})


def _gemma(**other: Any) -> Family:
    return _llama(tied=True, head_dim=256, grouped=True, **other)


def _biased(flag: Flag) -> dict[str, Any]:
    """Biases everywhere in a layer."""
    return {"qkv_bias": flag, "out_bias": flag, "mlp_bias": flag}


_PLAIN: dict[str, Any] = {"gated": False, "norm": 2}
_LOCAL = (("num_local_experts", "num_experts"), "intermediate_size")
_QWEN = (("num_experts", "num_local_experts"), "moe_intermediate_size")

FAMILIES: dict[str, Family] = {
    "arcee": _llama(gated=False),
    "cohere": _llama(norms=1, tied=True, unusual=("use_qk_norm", False)),
    "cohere2": _llama(norms=1, tied=True, head_dim=128, window="most", usual_window=4096, period=4),
    "ernie4_5": Family(_LLAMA, grouped=True, head_dim=128, **_biased("use_bias"), tied=True),
    "gemma": _gemma(),
    "gemma2": _gemma(norms=4, window="even", usual_window=4096),
    "gemma3_text": _gemma(norms=4, qk_norm="head", window="most", usual_window=4096),
    "glm": Family(_LLAMA, grouped=True, head_dim=128, qkv_bias="attention_bias=true"),
    "glm4": Family(_LLAMA, grouped=True, head_dim=128, qkv_bias="attention_bias=true", norms=4),
    "gpt2": Family(
        _GPT2, **_PLAIN, **_biased(True), tied=True, extra_positions=0, unusual=("add_cross_attention", False)
    ),
    "gpt_neox": Family(_LLAMA, **_PLAIN, qkv_bias="attention_bias=true", out_bias="attention_bias=true", mlp_bias=True),
    "gpt_oss": Family(
        _LLAMA,
        head_dim=64,
        grouped=True,
        **_biased(True),
        window="even",
        usual_window=128,
        experts=_LOCAL,
        sinks=True,
        router_bias=True,
    ),
    "gptj": Family(_GPT2, **_PLAIN, norms=1, mlp_bias=True, head_bias=True),
    "granite": _llama(),
    "granitemoe": _llama(mlp_bias=False, experts=_LOCAL),
    "hunyuan_v1_dense": _llama(qk_norm="head", mlp_bias=False),
    "llama": _llama(),
    "ministral": Family(_LLAMA, grouped=True, window="all", usual_window=4096),
    "mistral": Family(_LLAMA, grouped=True, window="all", usual_window=4096),
    "mixtral": Family(_LLAMA, grouped=True, window="all", experts=_LOCAL),
    "nemotron": _llama(**_PLAIN),
    "olmo": _llama(norm=0),
    "olmo2": _llama(qk_norm="width"),
    "olmo3": _llama(qk_norm="width", mlp_bias=False, window="most", usual_window=4096, period=4),
    "olmoe": _llama(qk_norm="width", experts=_LOCAL),
    "opt": Family(
        {**_LLAMA, "f": "ffn_dim"},
        **_PLAIN,
        **_biased("enable_bias=true"),
        tied=True,
        extra_positions=2,
        unusual=("do_layer_norm_before", True),
    ),
    "phi": Family(_LLAMA, **_PLAIN, **_biased(True), norms=1, head_bias=True, unusual=("qk_layernorm", False)),
    "phi3": Family(_LLAMA, window="all"),
    "phimoe": Family(
        _LLAMA,
        norm=2,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        head_bias="lm_head_bias",
        experts=_LOCAL,
        window="all",
    ),
    "qwen2": Family(_LLAMA, grouped=True, qkv_bias=True, window="last asked"),
    "qwen2_moe": Family(_LLAMA, grouped=True, qkv_bias="qkv_bias=true", window="last asked", experts=_QWEN),
    "qwen3": _llama(head_dim=128, grouped=True, qk_norm="head", mlp_bias=False, window="last asked"),
    "qwen3_moe": _llama(grouped=True, qk_norm="head", mlp_bias=False, window="asked", experts=_QWEN),
    "seed_oss": _llama(grouped=True, head_dim=128, qkv_bias="attention_bias=true", out_bias="attention_out_bias"),
    "smollm3": _llama(grouped=True, tied=True, window="asked"),
    "stablelm": Family(_LLAMA, norm=2, qkv_bias="use_qkv_bias", unusual=("qk_layernorm", False)),
    "starcoder2": Family(_LLAMA, grouped=True, **_PLAIN, **_biased("use_bias=true"), tied=True, window="all"),
}
