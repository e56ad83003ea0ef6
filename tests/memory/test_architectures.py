"""Live bytes of whole training steps of real architectures, op by op, are those of a poll without the profiler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from memory.readings import read
from memory.reference import poll
from models.configs import CASES

NAMES = ["gpt2", "llama-dropout", "mixtral", "bert", "t5", "vit", "mamba", "whisper"]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name].build().train(), CASES[name].inputs()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)

    def step() -> None:
        torch.manual_seed(1)  # of the dropouts, and so of the rows that are routed
        model(**inputs).logits.square().sum().backward()
        optimizer.step()
        model.zero_grad()

    step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    given = (*model.parameters(), *model.buffers(), *states, *tree_leaves(inputs))
    polled = poll(step, (tensor for tensor in given if isinstance(tensor, Tensor)))
    reading = read(step, model)
    assert reading.live_at_ops == reading.as_bare(polled)
    assert reading.saved.held == {}
    assert reading.memory.state_bytes["parameter"] == sum(p.nbytes for p in model.parameters())
    assert reading.memory.state_bytes["gradient"] == sum(p.nbytes for p in model.parameters() if p.requires_grad)
