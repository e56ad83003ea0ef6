"""Every model type of ``transformers`` that runs, shrunk: all ops priced, the books balance, nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from attnprof.api import Report
from attnprof.core.cost import Cost
from models import shrinking

#: The types that run bare as shrinking.py builds them. Not among them: those that need a package beside torch
#: (timm, torchaudio, scipy, natten, detectron2), that take inputs with a structure of their own (video
#: sessions, task prompts), or whose sizes no generic rule makes fit.
MODEL_TYPES = Path(__file__).with_name("model_types.txt").read_text().split()


def test_the_sweep_is_broad() -> None:
    assert len(set(MODEL_TYPES)) == len(MODEL_TYPES)
    assert len(MODEL_TYPES) >= 150


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_model_type(model_type: str) -> None:
    torch.manual_seed(0)
    model = shrinking.build(model_type)
    inputs = shrinking.inputs(model)

    torch.manual_seed(1)
    train = attnprof.run(model.train(), kwargs=inputs, backward=True)
    assert_books_balance(train)
    assert train.phases["forward"].matmul_flops > 0
    assert train.phases["backward"].matmul_flops > 0

    model.eval()
    bare = evaluated(model, inputs)
    with attnprof.profile(model) as profile:
        profiled = evaluated(model, inputs)
    evaluation = profile.report()
    assert_books_balance(evaluation)
    assert evaluation.total.matmul_flops == train.phases["forward"].matmul_flops
    torch.testing.assert_close(profiled, bare, rtol=0, atol=0, equal_nan=True)


def evaluated(model: nn.Module, inputs: dict[str, Any]) -> list[torch.Tensor]:
    torch.manual_seed(2)
    with torch.no_grad():
        return list(shrinking.tensors(model(**inputs)))


def assert_books_balance(report: Report) -> None:
    """No op without a price; the modules' own costs, and the phases, add up to the total."""
    assert report.unpriced == {}
    assert Cost.sum(report.by_module(inclusive=False).values()) == report.total
    assert report.by_module()[""] == report.total
    assert Cost.sum(report.phases.values()) == report.total
