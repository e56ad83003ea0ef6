"""Eight architectures as small models: for each a model, its inputs, and the closed form of its matmul FLOPs.

Symbols: B batch, T tokens, S source tokens, d model width, H heads, dh head width, f feed-forward width,
L layers (M of a decoder), V vocabulary, E experts. Sizes differ wherever the architecture lets them, so that
swapping two of them changes a count.
"""
# ruff: noqa: N803, N806 (the symbols are those of the formulas)

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

from models.terms import Term, attention, convolution, linear


@dataclass(frozen=True)
class Case:
    """A model, the keyword arguments of one call, and what that call costs."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]
    terms: list[Term]


def tokens(batch: int, length: int, vocabulary: int) -> torch.Tensor:
    """Random token ids, the special ones at the start of the vocabulary avoided."""
    return torch.randint(5, vocabulary, (batch, length))


def gpt2(B: int, T: int, d: int, H: int, L: int, V: int, f: int, dropout: float) -> Case:
    """Decoder-only; one c_attn makes q, k and v. Dropout in the attention takes the unfused path in training."""
    config = hf.GPT2Config(
        n_embd=d, n_head=H, n_layer=L, vocab_size=V, n_inner=f, n_positions=64, attn_pdrop=dropout, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    terms = []
    for i in range(L):
        h = f"transformer.h.{i}"
        terms.append(linear(f"{h}.attn.c_attn", B * T, d, 3 * d))
        terms += attention(f"{h}.attn", B * H * T * T, d // H, fused=dropout == 0)
        terms.append(linear(f"{h}.attn.c_proj", B * T, d, d))
        terms.append(linear(f"{h}.mlp.c_fc", B * T, d, f))
        terms.append(linear(f"{h}.mlp.c_proj", B * T, f, d))
    terms.append(linear("lm_head", B * T, d, V))
    return Case("gpt2", lambda: hf.GPT2LMHeadModel(config), lambda: {"input_ids": tokens(B, T, V)}, terms)


def llama_attention(a: str, B: int, T: int, d: int, H: int, Hkv: int, dh: int, fused: bool) -> list[Term]:
    """Grouped queries: keys and values have Hkv heads, but every one of the H query heads meets all keys.

    The rotary tables and the rotation are element by element: no contraction.
    """
    return [
        linear(f"{a}.q_proj", B * T, d, H * dh),
        linear(f"{a}.k_proj", B * T, d, Hkv * dh),
        linear(f"{a}.v_proj", B * T, d, Hkv * dh),
        *attention(a, B * H * T * T, dh, fused),
        linear(f"{a}.o_proj", B * T, H * dh, d),
    ]


def llama(B: int, T: int, d: int, H: int, Hkv: int, dh: int, L: int, V: int, f: int, dropout: float) -> Case:
    """Decoder-only with grouped queries and a gated MLP."""
    config = hf.LlamaConfig(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=Hkv, head_dim=dh, num_hidden_layers=L,
        vocab_size=V, intermediate_size=f, attention_dropout=dropout, use_cache=False,
    )  # fmt: skip
    terms = []
    for i in range(L):
        layer = f"model.layers.{i}"
        terms += llama_attention(f"{layer}.self_attn", B, T, d, H, Hkv, dh, fused=dropout == 0)
        terms.append(linear(f"{layer}.mlp.gate_proj", B * T, d, f))
        terms.append(linear(f"{layer}.mlp.up_proj", B * T, d, f))
        terms.append(linear(f"{layer}.mlp.down_proj", B * T, f, d))
    terms.append(linear("lm_head", B * T, d, V))
    return Case("llama", lambda: hf.LlamaForCausalLM(config), lambda: {"input_ids": tokens(B, T, V)}, terms)


def mixtral(B: int, T: int, d: int, H: int, Hkv: int, L: int, V: int, f: int, E: int, k: int) -> Case:
    """Every token goes to k of E experts: however they are shared out, B T k rows are computed in all."""
    config = hf.MixtralConfig(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=Hkv, num_hidden_layers=L, vocab_size=V,
        intermediate_size=f, num_local_experts=E, num_experts_per_tok=k, use_cache=False,
    )  # fmt: skip
    terms = []
    for i in range(L):
        layer = f"model.layers.{i}"
        terms += llama_attention(f"{layer}.self_attn", B, T, d, H, Hkv, d // H, fused=True)
        terms.append(linear(f"{layer}.mlp.gate", B * T, d, E))  # the router
        terms.append(linear(f"{layer}.mlp.experts", B * T * k, d, 2 * f))  # gate and up in one
        terms.append(linear(f"{layer}.mlp.experts", B * T * k, f, d))  # down
    terms.append(linear("lm_head", B * T, d, V))
    return Case(
        "mixtral", lambda: hf.MixtralForCausalLM(copy.deepcopy(config)), lambda: {"input_ids": tokens(B, T, V)}, terms
    )


def bert(B: int, T: int, d: int, H: int, L: int, V: int, f: int, dropout: float) -> Case:
    """Encoder with a masked-word head: a dense layer, then the vocabulary."""
    config = hf.BertConfig(
        hidden_size=d, num_attention_heads=H, num_hidden_layers=L, vocab_size=V, intermediate_size=f,
        attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    terms = []
    for i in range(L):
        layer = f"bert.encoder.layer.{i}"
        terms += [linear(f"{layer}.attention.self.{x}", B * T, d, d) for x in ("query", "key", "value")]
        terms += attention(f"{layer}.attention.self", B * H * T * T, d // H, fused=dropout == 0)
        terms.append(linear(f"{layer}.attention.output.dense", B * T, d, d))
        terms.append(linear(f"{layer}.intermediate.dense", B * T, d, f))
        terms.append(linear(f"{layer}.output.dense", B * T, f, d))
    terms.append(linear("cls.predictions.transform.dense", B * T, d, d))
    terms.append(linear("cls.predictions.decoder", B * T, d, V))
    return Case("bert", lambda: hf.BertForMaskedLM(config), lambda: {"input_ids": tokens(B, T, V)}, terms)


def t5(B: int, S: int, T: int, d: int, H: int, dh: int, L: int, M: int, V: int, f: int) -> Case:
    """Encoder of L layers over S tokens, decoder of M layers over T, with heads that need not make up d.

    Self-attention adds a learned position bias to its scores; as the bias needs a gradient, training does
    not take the fused kernel there. The bias is a look-up, not a contraction. Cross-attention has a constant one.
    """
    config = hf.T5Config(
        d_model=d, num_heads=H, d_kv=dh, num_layers=L, num_decoder_layers=M, vocab_size=V, d_ff=f,
        dropout_rate=0.0, use_cache=False,
    )  # fmt: skip

    def attend(a: str, queries: int, keys: int, fused: bool) -> list[Term]:
        return [
            linear(f"{a}.q", B * queries, d, H * dh),
            linear(f"{a}.k", B * keys, d, H * dh),
            linear(f"{a}.v", B * keys, d, H * dh),
            *attention(a, B * H * queries * keys, dh, fused),
            linear(f"{a}.o", B * queries, H * dh, d),
        ]

    def feed_forward(a: str, rows: int) -> list[Term]:
        return [linear(f"{a}.wi", rows, d, f), linear(f"{a}.wo", rows, f, d)]

    terms = []
    for i in range(L):
        terms += attend(f"encoder.block.{i}.layer.0.SelfAttention", S, S, fused=False)
        terms += feed_forward(f"encoder.block.{i}.layer.1.DenseReluDense", B * S)
    for i in range(M):
        terms += attend(f"decoder.block.{i}.layer.0.SelfAttention", T, T, fused=False)
        terms += attend(f"decoder.block.{i}.layer.1.EncDecAttention", T, S, fused=True)
        terms += feed_forward(f"decoder.block.{i}.layer.2.DenseReluDense", B * T)
    terms.append(linear("lm_head", B * T, d, V))

    def inputs() -> dict[str, Any]:
        return {"input_ids": tokens(B, S, V), "decoder_input_ids": tokens(B, T, V)}

    return Case("t5", lambda: hf.T5ForConditionalGeneration(config), inputs, terms)


def vit(B: int, size: int, patch: int, channels: int, d: int, H: int, L: int, f: int, labels: int) -> Case:
    """Patches by a convolution whose input, the image, needs no gradient; one class token beside the patches."""
    config = hf.ViTConfig(
        image_size=size, patch_size=patch, num_channels=channels, hidden_size=d, num_attention_heads=H,
        num_hidden_layers=L, intermediate_size=f, num_labels=labels,
    )  # fmt: skip
    patches = (size // patch) ** 2
    T = patches + 1
    projection = "vit.embeddings.patch_embeddings.projection"
    terms = [convolution(projection, B * patches * d, channels * patch * patch, input_grad=False)]
    for i in range(L):
        layer = f"vit.layers.{i}"
        terms += [linear(f"{layer}.attention.{x}_proj", B * T, d, d) for x in "qkvo"]
        terms += attention(f"{layer}.attention", B * H * T * T, d // H, fused=True)
        terms.append(linear(f"{layer}.mlp.fc1", B * T, d, f))
        terms.append(linear(f"{layer}.mlp.fc2", B * T, f, d))
    terms.append(linear("classifier", B, d, labels))  # of the class token alone

    def inputs() -> dict[str, Any]:
        return {"pixel_values": torch.randn(B, channels, size, size)}

    return Case("vit", lambda: hf.ViTForImageClassification(config), inputs, terms)


def mamba(B: int, T: int, d: int, expand: int, N: int, rank: int, kernel: int, L: int, V: int) -> Case:
    """Selective state space, step by step: width D = expand d, state N. The recurrence is element by element."""
    config = hf.MambaConfig(
        hidden_size=d, expand=expand, state_size=N, time_step_rank=rank, conv_kernel=kernel, num_hidden_layers=L,
        vocab_size=V, use_cache=False,
    )  # fmt: skip
    D = expand * d
    terms = []
    for i in range(L):
        mixer = f"backbone.layers.{i}.mixer"
        terms.append(linear(f"{mixer}.in_proj", B * T, d, 2 * D))  # the states and their gate
        # depthwise, padded by kernel - 1 on both sides; what sticks out at the end is cut off afterwards
        terms.append(convolution(mixer, B * D * (T + kernel - 1), kernel))
        terms.append(linear(f"{mixer}.x_proj", B * T, D, rank + 2 * N))  # time step, B and C
        terms.append(linear(mixer, B * T, rank, D))  # time steps: the weight of dt_proj, used without calling it
        terms.append(linear(mixer, B * T * D, N, 1))  # each step's outputs: states [B, D, N] x C [B, N, 1]
        terms.append(linear(f"{mixer}.out_proj", B * T, D, d))
    terms.append(linear("lm_head", B * T, d, V))
    return Case("mamba", lambda: hf.MambaForCausalLM(config), lambda: {"input_ids": tokens(B, T, V)}, terms)


def whisper(B: int, S: int, T: int, mels: int, d: int, H: int, Hd: int, L: int, M: int, f: int, g: int, V: int) -> Case:
    """Speech encoder over S positions, from 2 S frames; text decoder over T tokens with Hd heads."""
    config = hf.WhisperConfig(
        d_model=d, encoder_attention_heads=H, decoder_attention_heads=Hd, encoder_layers=L, decoder_layers=M,
        encoder_ffn_dim=f, decoder_ffn_dim=g, num_mel_bins=mels, max_source_positions=S, max_target_positions=64,
        vocab_size=V, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, use_cache=False,
        begin_suppress_tokens=None,
    )  # fmt: skip

    def attend(a: str, heads: int, queries: int, keys: int) -> list[Term]:
        return [
            linear(f"{a}.q_proj", B * queries, d, d),
            linear(f"{a}.k_proj", B * keys, d, d),
            linear(f"{a}.v_proj", B * keys, d, d),
            *attention(a, B * heads * queries * keys, d // heads, fused=True),
            linear(f"{a}.out_proj", B * queries, d, d),
        ]

    terms = [
        convolution("model.encoder.conv1", B * d * 2 * S, mels * 3, input_grad=False),  # kernel 3; the sound is given
        convolution("model.encoder.conv2", B * d * S, d * 3),  # kernel 3, stride 2
    ]
    for i in range(L):
        layer = f"model.encoder.layers.{i}"
        terms += attend(f"{layer}.self_attn", H, S, S)
        terms += [linear(f"{layer}.fc1", B * S, d, f), linear(f"{layer}.fc2", B * S, f, d)]
    for i in range(M):
        layer = f"model.decoder.layers.{i}"
        terms += attend(f"{layer}.self_attn", Hd, T, T)
        terms += attend(f"{layer}.encoder_attn", Hd, T, S)
        terms += [linear(f"{layer}.fc1", B * T, d, g), linear(f"{layer}.fc2", B * T, g, d)]
    terms.append(linear("proj_out", B * T, d, V))

    def inputs() -> dict[str, Any]:
        return {"input_features": torch.randn(B, mels, 2 * S), "decoder_input_ids": tokens(B, T, V)}

    return Case("whisper", lambda: hf.WhisperForConditionalGeneration(config), inputs, terms)


CASES = {
    "gpt2": gpt2(B=2, T=7, d=24, H=3, L=2, V=41, f=40, dropout=0.0),
    "gpt2-dropout": gpt2(B=1, T=11, d=32, H=4, L=1, V=37, f=72, dropout=0.1),
    "llama": llama(B=2, T=9, d=24, H=6, Hkv=2, dh=8, L=2, V=43, f=56, dropout=0.0),
    "llama-mqa": llama(B=3, T=5, d=40, H=4, Hkv=1, dh=12, L=1, V=47, f=72, dropout=0.0),
    "llama-dropout": llama(B=1, T=6, d=16, H=4, Hkv=2, dh=4, L=3, V=53, f=24, dropout=0.2),
    "mixtral": mixtral(B=2, T=7, d=32, H=4, Hkv=2, L=2, V=41, f=48, E=5, k=2),
    "mixtral-few-rows": mixtral(B=1, T=3, d=16, H=2, Hkv=1, L=1, V=37, f=24, E=16, k=3),  # most experts get none
    "bert": bert(B=2, T=10, d=24, H=3, L=2, V=41, f=56, dropout=0.0),
    "bert-dropout": bert(B=3, T=4, d=16, H=2, L=1, V=37, f=40, dropout=0.1),
    "t5": t5(B=2, S=9, T=5, d=24, H=3, dh=6, L=2, M=1, V=41, f=40),
    "t5-deep-decoder": t5(B=1, S=4, T=7, d=16, H=2, dh=12, L=1, M=3, V=37, f=56),
    "vit": vit(B=2, size=32, patch=8, channels=3, d=24, H=3, L=2, f=40, labels=7),
    "vit-one-channel": vit(B=3, size=20, patch=4, channels=1, d=16, H=2, L=1, f=56, labels=5),
    "mamba": mamba(B=2, T=6, d=12, expand=2, N=5, rank=3, kernel=4, L=2, V=41),
    "mamba-wide": mamba(B=1, T=9, d=8, expand=3, N=7, rank=2, kernel=3, L=1, V=37),
    "whisper": whisper(B=2, S=10, T=6, mels=14, d=24, H=3, Hd=2, L=2, M=1, f=40, g=56, V=41),
    "whisper-deep-decoder": whisper(B=1, S=7, T=3, mels=9, d=16, H=2, Hd=4, L=1, M=2, f=24, g=48, V=37),
}
