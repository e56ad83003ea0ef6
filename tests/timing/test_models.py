"""Whole models: the products of a step are timed in the module and phase that they are counted in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from attnprof import zoo
from timing.products import PRODUCTS, profiled
from timing.test_same_places import counted

pytestmark = pytest.mark.slow

#: Mechanisms that multiply no matrices.
WITHOUT = {"depthwise-conv", "diagonal-rnn", "diagonal-rnn-brent-kung", "diagonal-rnn-hillis-steele"}


def same(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Two steps from the same random state, one counted, one profiled."""

    def step() -> None:
        torch.manual_seed(0)
        found = tree_leaves(model(*args, **kwargs))
        roots = [t for t in found if isinstance(t, Tensor) and t.requires_grad]
        if roots:
            torch.autograd.backward([root.sum() for root in roots])

    step()
    expected = counted(model, step, PRODUCTS)
    assert expected
    assert profiled(model, step, PRODUCTS) == expected


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - WITHOUT))
def test_of_the_zoo(name: str) -> None:
    same(zoo.build(name), zoo.inputs(name), {})


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_gpt2(checkpointing: dict[str, bool] | None) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    model.train()
    ids = torch.arange(40).view(2, 20)
    if checkpointing is not None:
        model.config.use_cache = False
        model.gradient_checkpointing_enable(checkpointing)
    same(model, (ids,), {"labels": ids})


def test_recurrent_layers() -> None:
    same(nn.LSTM(8, 8, 2, proj_size=4), (torch.randn(4, 2, 8, requires_grad=True),), {})
    same(nn.GRU(8, 8, 2), (torch.randn(4, 2, 8, requires_grad=True),), {})
