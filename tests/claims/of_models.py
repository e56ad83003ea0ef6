"""Facts about the parameters of published models, by building those without memory."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from claims.facts import source


@cache
def bert() -> BertModel:
    with torch.device("meta"):
        return BertModel(BertConfig())


@cache
def gpt2_medium() -> GPT2LMHeadModel:
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16))


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def queries_and_keys(net: nn.Module) -> int:
    """The weights of all query and key projections."""
    return sum(p.numel() for name, p in net.named_parameters() if name.endswith(("query.weight", "key.weight")))


@source("measured", r"D\.params\.bert_enc")
def encoder(L: int, d: int) -> int:
    return parameters(bert().encoder)


@source("measured", r"D\.params\.bert_enc_frozen")
def trainable_encoder(L: int, d: int) -> int:
    return parameters(bert().encoder) - queries_and_keys(bert().encoder)


@source("measured", r"D\.params\.bert_full")
def whole_bert(d: int) -> int:
    return parameters(bert())


@source("measured", r"D\.params\.gpt2m")
def whole_gpt2(d: int) -> int:
    return parameters(gpt2_medium())


@source("measured", r"D\.params\.gpt2m_frozen")
def trainable_gpt2(d: int) -> int:
    """Queries, keys and values are one matrix there: two thirds of it."""
    joined = sum(p.numel() for name, p in gpt2_medium().named_parameters() if name.endswith("attn.c_attn.weight"))
    return parameters(gpt2_medium()) - joined * 2 // 3


@source("measured", r"D\.trainable_reduction\.block")
def trainable_share(d: int) -> Fraction:
    layer = bert().encoder.layer[0]
    return Fraction(100 * queries_and_keys(layer), parameters(layer))
