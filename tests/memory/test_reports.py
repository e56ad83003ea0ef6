"""The memory section of real reports: what a step of a block holds, and what a checkpoint saves of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from memory.nets import Stack, block_bytes
from training.attention import Attention, Block

E = 4
N, D, H, LAYERS = 512, 256, 4, 8
PARAMETERS = 12 * D * D + 13 * D  # of a block


class Checkpointed(Stack):
    """The same blocks, each run again in its backward."""

    use_reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.use_reentrant)
        return x


class Reentrant(Checkpointed):
    use_reentrant = True


def step_of(kind: type[Stack]) -> attnprof.Report:
    """Forward and backward of eight blocks, N = 512, d = 256, 4 heads; on fake tensors."""
    with attnprof.fake_tensors():
        model, x = kind(LAYERS, D, H), torch.randn(1, N, D, requires_grad=True)
    return attnprof.run(model, (x,), backward=True, fake=True)


#: What is alive when the softmax of a block is differentiated, elements: its input, the norm's output and
#: statistics, q, k, the gradients of its output and of v; the probabilities, their gradient and the scores'.
AT_SOFTMAX = 6 * N * D + 2 * N + 3 * H * N * N
#: The gradients that a block has by then: all but those of q, k, v and the first norm.
GRADIENTS_AT_SOFTMAX = PARAMETERS - 3 * (D * D + D) - 2 * D


def test_a_checkpointed_stack_saves_its_inputs_only() -> None:
    """95.8 % less is saved."""
    bare, checkpointed = (step_of(kind).memory.saved_bytes for kind in (Stack, Checkpointed))
    assert bare == LAYERS * block_bytes(1, N, D, H, E, fused=False)
    assert checkpointed == LAYERS * N * D * E
    assert round(100 * (1 - Fraction(checkpointed, bare)), 1) == Fraction("95.8")


def test_the_peak_without_checkpoints() -> None:
    """In the backward of the last block, with everything that the others saved."""
    peak = step_of(Stack).memory.peak
    parameters = LAYERS * PARAMETERS + GRADIENTS_AT_SOFTMAX
    assert peak.bytes == E * (parameters + AT_SOFTMAX) + (LAYERS - 1) * block_bytes(1, N, D, H, E, fused=False)
    assert (peak.op, peak.module, peak.phase) == (
        "aten._softmax_backward_data.default",
        "blocks.7.attention",
        "backward",
    )


def test_the_peak_with_checkpoints() -> None:
    """In the backward of the first block, with the gradients of all the others; it is half of that without.

    Of what is not parameters, 62 % less.
    """
    bare, checkpointed = (step_of(kind).memory.peak for kind in (Stack, Checkpointed))
    gradients = (LAYERS - 1) * PARAMETERS + GRADIENTS_AT_SOFTMAX
    assert checkpointed.bytes == E * (LAYERS * PARAMETERS + gradients + AT_SOFTMAX)
    assert (checkpointed.module, checkpointed.phase) == ("blocks.0.attention", "backward")
    parameters = E * LAYERS * PARAMETERS
    assert round(100 * (1 - Fraction(checkpointed.bytes - parameters, bare.bytes - parameters))) == 62


def test_the_peak_with_reentrant_checkpoints() -> None:
    """Their second run keeps, while it lasts, the block's output and the gradient it was given: 2 N d more."""
    checkpointed, reentrant = (step_of(kind).memory.peak for kind in (Checkpointed, Reentrant))
    assert reentrant.bytes - checkpointed.bytes == 2 * E * N * D


def test_what_is_alive_at_the_peak_adds_up() -> None:
    memory = step_of(Stack).memory
    assert sum(block.bytes for block in memory.blocks_at_peak) == sum(memory.peak.by_kind.values()) == memory.peak.bytes
    assert memory.peak.by_kind["parameter"] == memory.parameter_bytes == E * LAYERS * PARAMETERS
    assert max(memory.timeline.totals) == memory.peak.bytes


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_a_training_step(fake: bool) -> None:
    """A steady step of AdamW: 16 bytes for each parameter, a counter for each tensor."""
    d, heads, n = 12, 3, 5
    model = Block(d, heads, fused=False)
    report = attnprof.run(model, (torch.randn(1, n, d),), backward=True, optimizer="adamw", fake=fake)
    memory, count = report.memory, 12 * d * d + 13 * d
    assert memory.parameter_bytes == memory.trainable_bytes == memory.gradient_bytes == E * count
    tensors = len(list(model.parameters()))
    assert memory.optimizer_states == {"step": E * tensors, "exp_avg": E * count, "exp_avg_sq": E * count}
    assert memory.saved_bytes == block_bytes(1, n, d, heads, E, fused=False)
    assert memory.saved_input_bytes == E * n * d
    assert memory.saved_by_module()[""] == memory.saved_bytes
    assert memory.saved_by_module()["attention"] == E * (5 * n * d + heads * n * n)
    assert memory.held_bytes == 0


@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_frozen_queries_and_keys_do_not_shrink_the_activations(fused: bool) -> None:
    """Of what a layer's training holds, the states shrink by 3/8; what is saved does not while x has a gradient."""
    d, heads, n = 12, 3, 5

    def memory(frozen: bool) -> attnprof.analysis.memory.MemorySummary:
        model = nn.Sequential(nn.Tanh(), Attention(d, heads, fused))
        if frozen:
            model[1].q.requires_grad_(False)
            model[1].k.requires_grad_(False)
        x = torch.randn(1, n, d, requires_grad=True)
        return attnprof.run(model, (x,), backward=True, optimizer="adam").memory

    trained, frozen = memory(False), memory(True)
    assert frozen.saved_bytes == trained.saved_bytes
    assert trained.gradient_bytes - frozen.gradient_bytes == E * 2 * (d * d + d)


def test_a_saved_run_has_the_same_memory(tmp_path: Path) -> None:
    report = attnprof.run(Block(12, 3, fused=False), (torch.randn(1, 5, 12),), backward=True, optimizer="adamw")
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert again.trace.memory == report.trace.memory
    assert (again.memory.peak, again.memory.saved_bytes) == (report.memory.peak, report.memory.saved_bytes)
