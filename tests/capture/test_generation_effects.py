"""Generation inside a profile: which ops belong to the model, and what is left as it was."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.capture.generation import generate
from capture.decoders import IDS, B, Cached, Given, Labels, Naive, T, V, generated


class WithDropout(Cached):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Dropout(0.5).eval()
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids: Tensor, cache: Tensor | None = None, **given: Any) -> tuple[Tensor, Tensor]:
        logits, cache = super().forward(ids, cache, training=(self.training, self.dropout.training))
        return self.dropout(self.frozen(logits)), cache


def test_choosing_a_token_belongs_to_no_module() -> None:
    model = Cached()
    report = attnprof.run(model, (IDS,), generate=3)
    assert set(report.trace.step_labels.values()) == {"prefill", "decode 1", "decode 2"}
    assert report.operator_calls("other")["aten.argmax.default"] == 3
    assert "aten.cat.default" not in report.operator_calls("other")  # the loop need not join what it makes
    assert report.operator_calls("forward")["aten.cat.default"] == 2  # the model's cache
    assert report.ran == {"forward", "other"}
    assert attnprof.run(Naive(), (IDS,), generate=3).operator_calls("other")["aten.cat.default"] == 3


def test_no_gradients_and_evaluation_mode() -> None:
    model = WithDropout()
    report = attnprof.run(model, (IDS,), generate=2)
    assert model.given("training") == [(False, False)] * 2
    assert (model.training, model.dropout.training, model.frozen.training) == (True, True, False)
    assert report.meta["grad"] is False
    assert "aten.native_dropout.default" not in report.operator_calls()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_in_training_mode_when_told() -> None:
    model = WithDropout().eval()
    generate(Labels(), model, (IDS,), {}, 2, training=True)
    assert model.given("training") == [(True, True)] * 2
    assert not any(module.training for module in model.modules())


def test_flags_are_set_without_calling_train() -> None:
    class Merging(Naive):
        def train(self, mode: bool = True) -> Merging:
            raise AssertionError("train() may change weights")

    model = Merging()
    generated(model, IDS)
    assert model.training


def test_an_error_of_the_model_passes_and_leaves_nothing() -> None:
    class Fails(WithDropout):
        def forward(self, ids: Tensor, cache: Tensor | None = None, **given: Any) -> tuple[Tensor, Tensor]:
            if len(self.calls) == 2:
                raise MemoryError("no more")
            return super().forward(ids, cache)

    model = Fails()
    counting = attnprof.profile(model)
    with pytest.raises(MemoryError, match="no more"):
        generate(counting, model, (IDS,), {}, 5)
    assert model.training
    assert counting.trace.step_labels == {0: "prefill", 1: "decode 1"}
    assert torch.is_grad_enabled()


def test_nothing_is_kept() -> None:
    model = Cached()
    report = attnprof.run(model, (IDS,), generate=3)
    dead = [weakref.ref(model), weakref.ref(model.given("cache")[-1])]
    del model
    gc.collect()
    assert [reference() for reference in dead] == [None, None]
    assert len(report.steps) == 3


@pytest.mark.parametrize("model", [Naive(), Cached()])
def test_fake_equals_real(model: Given) -> None:
    def tables(fake: bool) -> list[Any]:
        return [(step.label, step.phases) for step in attnprof.run(model, (IDS,), generate=4, fake=fake).steps]

    assert tables(fake=True) == tables(fake=False)
    model.calls.clear()


def test_autocast_and_dtype() -> None:
    class Wide(Cached):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(V, V)

        def forward(self, ids: Tensor, cache: Tensor | None = None, **given: Any) -> tuple[Tensor, Tensor]:
            logits, cache = super().forward(ids, cache)
            return self.head(logits), cache

    for plan in (attnprof.Plan(dtype="bf16"), attnprof.Plan(autocast="bf16")):
        report = attnprof.run(Wide(), (IDS,), generate=2, plan=plan)
        flops = 2 * B * (T + 1) * V * V  # the prompt and one token
        assert ("matmul", "bfloat16", flops) in report.total.split
