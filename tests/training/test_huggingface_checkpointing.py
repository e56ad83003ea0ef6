"""``gradient_checkpointing_enable`` of transformers: which terms of a model run again, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from models.configs import Case, gpt2, llama
from models.terms import Term

pytestmark = [
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing_:FutureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]

PHASES = ("forward", "backward", "recompute")
CASES = {
    "gpt2": gpt2(B=2, T=5, d=12, H=3, L=2, V=31, f=20, dropout=0.0),
    "llama": llama(B=2, T=6, d=16, H=4, Hkv=2, dh=8, L=2, V=37, f=20, dropout=0.0),
}
#: The modules that are checkpointed, and the last product in each.
LAYERS = {"gpt2": ("transformer.h.", "mlp.c_proj"), "llama": ("model.layers.", "mlp.down_proj")}


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def build(case: Case, dropout: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = case.build().train()
    return model if dropout else without_dropout(model)


def counted(model: nn.Module, inputs: dict[str, Any], **options: Any) -> attnprof.Report:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return attnprof.run(model, kwargs=inputs, backward=True)


def assert_terms(report: attnprof.Report, terms: list[Term], again: set[str]) -> None:
    """Forward and backward as the terms say; the modules in ``again`` do their forward once more."""
    expected: dict[tuple[str, str], int] = {}
    for term in terms:
        recompute = term.recompute + (term.forward if term.module in again else 0)
        for phase, flops in zip(PHASES, (term.forward, term.backward, recompute), strict=True):
            expected[term.module, phase] = expected.get((term.module, phase), 0) + flops
    for phase in PHASES:
        found = {m: c.matmul_flops for m, c in report.by_module(phase, inclusive=False).items() if c.matmul_flops}
        assert found == {m: flops for (m, where), flops in expected.items() if where == phase and flops}


def inside_layers(case: Case) -> set[str]:
    return {term.module for term in case.terms if term.module.startswith(LAYERS[case.name][0])}


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_reentrant(name: str, fake: bool) -> None:
    """Every layer runs again whole; the head, in no layer, does not."""
    case = CASES[name]
    model = build(case)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    report = attnprof.run(model, kwargs=case.inputs(), backward=True, fake=fake)
    assert_terms(report, case.terms, inside_layers(case))


@pytest.mark.parametrize("name", CASES)
def test_non_reentrant(name: str) -> None:
    """Each layer ends in a product whose input is the last thing the backward asks for: that product is spared."""
    case = CASES[name]
    report = counted(build(case), case.inputs(), use_reentrant=False)
    last = LAYERS[name][1]
    assert_terms(report, case.terms, {m for m in inside_layers(case) if not m.endswith(last)})


def test_a_dropout_at_the_end_leaves_nothing_to_spare() -> None:
    """GPT-2 drops out after its last product, and the mask is asked for: the product runs again to get there."""
    case = CASES["gpt2"]
    report = counted(build(case, dropout=True), case.inputs(), use_reentrant=False)
    assert_terms(report, case.terms, inside_layers(case))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("input_grad", [True, False])
def test_frozen_embeddings(reentrant: bool, input_grad: bool) -> None:
    """Frozen embeddings and a frozen first norm: the first layer's projections need no dX.

    transformers has the embeddings' output need a gradient all the same, since a reentrant checkpoint trains nothing
    without: then dX runs down to them. ``disable_input_require_grads`` takes that back.
    """
    case = CASES["llama"]
    model = build(case)
    model.get_input_embeddings().requires_grad_(False)
    first = model.model.layers[0]
    first.input_layernorm.requires_grad_(False)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.disable_input_require_grads()
    if input_grad:
        model.enable_input_require_grads()
    report = attnprof.run(model, kwargs=case.inputs(), backward=True)
    rows, d = 2 * 6, 16
    trains = input_grad or not reentrant  # a reentrant checkpoint without a gradient to pass on is forward only
    for name, n_out in (("q_proj", 4 * 8), ("k_proj", 2 * 8), ("v_proj", 2 * 8)):
        one, module = 2 * rows * d * n_out, f"model.layers.0.self_attn.{name}"
        assert report.by_module("forward")[module].matmul_flops == one
        assert report.by_module("backward")[module].matmul_flops == (input_grad + 1) * trains * one
        assert report.by_module("recompute")[module].matmul_flops == trains * one


def test_a_model_is_as_before_without() -> None:
    case = CASES["llama"]
    model = build(case)
    model.gradient_checkpointing_enable()
    model.gradient_checkpointing_disable()
    report = attnprof.run(model, kwargs=case.inputs(), backward=True)
    assert_terms(report, case.terms, set())
