"""GPT-2 and Llama of transformers: what autograd keeps, layer by layer, written from the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memory.readings import Reading, read_call
from models.configs import gpt2, llama
from training.test_huggingface_checkpointing import without_dropout

pytestmark = [
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing_:FutureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]

E, LONG = 4, 8
B, T, L = 2, 5, 2
labelled = pytest.mark.parametrize("labelled", [False, True], ids=["logits", "loss"])
both_kinds = pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])


def call(case: Any, vocabulary: int, labelled: bool, fake: bool = False, **checkpointing: Any) -> Reading:
    model = without_dropout(case.build().train())
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
    ids = torch.randint(5, vocabulary, (B, T))
    return read_call(model, (), {"input_ids": ids} | ({"labels": ids} if labelled else {}), fake=fake)


def loss_bytes(vocabulary: int) -> int:
    """log-softmax over the vocabulary, the targets moved by one, and the number of targets that count."""
    return B * T * (E * vocabulary + LONG) + E


# GPT-2

D, H, V, F = 12, 3, 31, 20
GPT2 = gpt2(B=B, T=T, d=D, H=H, L=L, V=V, f=F, dropout=0.0)


def gpt2_attention(masked: bool) -> int:
    """q, k and v in one storage, the weighted sum and its logsumexp; and the mask, as one is added to the scores."""
    return E * B * T * (3 * D + D + H + masked * T)


def gpt2_layer(masked: bool) -> dict[str, int]:
    """The GELU is written out: it saves x, x/2, tanh and 1 + tanh."""
    norm = E * B * T * (D + 2)
    return {
        "ln_1": norm,
        "attn.c_attn": E * B * T * D,
        "attn": gpt2_attention(masked),
        "ln_2": norm,
        "mlp.c_fc": E * B * T * D,
        "mlp.act": E * B * T * 4 * F,
        "mlp.c_proj": E * B * T * F,
    }


def gpt2_around(labelled: bool) -> dict[str, int]:
    """Ids, positions, the last norm and its output."""
    return {
        "transformer.wte": LONG * B * T,
        "transformer.wpe": LONG * T,
        "transformer.ln_f": E * B * T * (D + 2),
        "lm_head": E * B * T * D,
    } | ({"": loss_bytes(V)} if labelled else {})


@labelled
@both_kinds
def test_gpt2(labelled: bool, fake: bool) -> None:
    """On fake tensors transformers cannot see that nothing is masked, and makes a causal mask."""
    reading = call(GPT2, V, labelled, fake)
    layers = {f"transformer.h.{i}.{name}": size for i in range(L) for name, size in gpt2_layer(masked=fake).items()}
    assert reading.saved_by_name() == layers | gpt2_around(labelled)
    assert reading.saved.input_bytes == LONG * B * T
    assert reading.saved.held == {}


@labelled
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_gpt2_with_gradient_checkpointing(use_reentrant: bool, labelled: bool) -> None:
    """L B T d e of the layers' inputs, beside what is around them."""
    reading = call(GPT2, V, labelled, use_reentrant=use_reentrant)
    layers = {f"transformer.h.{i}": E * B * T * D for i in range(L)}
    assert reading.saved_by_name() == layers | gpt2_around(labelled)


# Llama: HQ query heads and KV key-value heads of width W

HQ, KV, W = 4, 2, 8
D_LLAMA, V_LLAMA = 16, 37
LLAMA = llama(B=B, T=T, d=D_LLAMA, H=HQ, Hkv=KV, dh=W, L=L, V=V_LLAMA, f=F, dropout=0.0)

#: An RMS norm written out: its input, 1/rms of each row, and the product of the two, which the weight scales.
NORM = E * B * T * (2 * D_LLAMA + 1)
#: Tables of cosines and sines, of the first layer that uses them.
ROTARY = E * 2 * T * W


def llama_layer(masked: bool) -> dict[str, int]:
    """Without a mask the fused kernel takes the key-value heads as they are; with one they are repeated."""
    heads = HQ if masked else KV
    return {
        "input_layernorm": NORM,
        "self_attn.q_proj": E * B * T * D_LLAMA,
        "self_attn": E * B * T * (HQ * W + 2 * heads * W + HQ * W + HQ + masked * T),
        "post_attention_layernorm": NORM,
        "mlp.gate_proj": E * B * T * D_LLAMA,
        "mlp.act_fn": E * B * T * F,
        "mlp": E * B * T * 2 * F,
        "mlp.down_proj": E * B * T * F,
    }


def llama_around(labelled: bool) -> dict[str, int]:
    return {
        "model.embed_tokens": LONG * B * T,
        "model.norm": NORM,
        "lm_head": E * B * T * D_LLAMA,
    } | ({"": loss_bytes(V_LLAMA)} if labelled else {})


@labelled
@both_kinds
def test_llama(labelled: bool, fake: bool) -> None:
    reading = call(LLAMA, V_LLAMA, labelled, fake)
    layers = {f"model.layers.{i}.{name}": size for i in range(L) for name, size in llama_layer(masked=fake).items()}
    layers["model.layers.0.self_attn"] += ROTARY
    assert reading.saved_by_name() == layers | llama_around(labelled)
    assert reading.saved.held == {}


@labelled
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_llama_with_gradient_checkpointing(use_reentrant: bool, labelled: bool) -> None:
    """Each layer keeps its input; the first one the positions and their tables, which all are given by name."""
    reading = call(LLAMA, V_LLAMA, labelled, use_reentrant=use_reentrant)
    layers = {f"model.layers.{i}": E * B * T * D_LLAMA for i in range(L)}
    layers["model.layers.0"] += ROTARY + LONG * T
    assert reading.saved_by_name() == layers | llama_around(labelled)
    assert reading.saved.held == {}
