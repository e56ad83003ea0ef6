"""One step of a model, forward to optimizer, that leaves model and optimizer as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from attnprof.capture import generation
from attnprof.capture import loss as losses
from attnprof.capture import optimizers as optim
from attnprof.capture.borrowing import borrowed, parameters_of
from attnprof.capture.fake import faked, scalars_of_ones
from attnprof.capture.layer_times import Around, Step
from attnprof.capture.optimizers import OptimizerLike
from attnprof.capture.plans import Plan
from attnprof.capture.unchanged import unchanged


class Counting(Protocol):
    """A profile: a context that counts, with a way to leave ops out and to begin anew."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def step(self, label: str | None = None) -> None: ...
    def unseen(self) -> AbstractContextManager[None]: ...
    def restart(self, model: nn.Module) -> None: ...


@dataclass(frozen=True, slots=True)
class Training:
    """What follows the forward: a backward, from the output or a loss made of it, and a step of optimizers."""

    backward: bool = False
    loss: Callable[[Any], Tensor] | None = None
    optimizer: OptimizerLike | None = None

    @property
    def differentiates(self) -> bool:
        """Whether there is a backward: a loss and an optimizer are nothing without."""
        return self.backward or self.loss is not None or self.optimizer is not None


def drive(
    counting: Counting,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    training: Training,
    plan: Plan,
    fake: bool,
    notes: list[str],
    generate: int | None = None,
    timed: Callable[[Step], None] | None = None,
) -> None:
    """``model(*args, **kwargs)`` and what follows, inside ``counting``; what its reader must know goes to ``notes``.

    With ``generate``, so many tokens are generated instead, one step each. After the step that was counted,
    ``timed`` is given what runs it again, from the same values and random state, in a context that times it.

    An optimizer is counted in its steady state. The first step, which creates that state, runs before and is
    forgotten, and all else that it changed is put back: the step that counts begins from the same values. If
    the first fails, what it did until then is what was counted.
    """
    values: Any = ((args,) if isinstance(args, Tensor) else tuple(args), dict(kwargs))
    if generate is not None:
        generation.check(generate, training.differentiates or plan.checkpoint)
    if training.loss is not None:
        losses.check(training.loss)
    with ExitStack() as stack:
        own = list(model.parameters())
        loss = training.loss
        modules = nn.ModuleList([model, loss]) if isinstance(loss, nn.Module) else model
        if fake:
            values = stack.enter_context(faked(modules, *values))
        values, applied = stack.enter_context(plan.applied(model, *values))
        notes += applied
        stand_ins = {id(mine): p for mine, p in zip(own, model.parameters(), strict=True)}
        if training.differentiates:
            stack.enter_context(torch.enable_grad())
        optimizers: list[Optimizer] = []
        steady: list[str] = []
        if training.optimizer is not None:
            optimizers, steady = optim.made(training.optimizer, model)
            stack.enter_context(borrowed(optimizers, model, stand_ins))
        stepped = parameters_of(optimizers)
        state = stack.enter_context(unchanged(modules, values, stepped, fake))
        if generate is not None:
            with plan.autocasting(model):
                made = generation.generate(counting, model, values[0], values[1], generate)
            notes += made.notes
            return
        step = _Step(counting, model, values[0], values[1], training, plan, optimizers)
        if optimizers:
            with torch.random.fork_rng(devices=state.devices):
                step.run(repeated=[optim.steps_to_steady(one) for one in optimizers])
            counting.restart(model)
            notes += steady
            state.put_back(gradients=False)
        once = [1 for _ in optimizers]
        with torch.random.fork_rng(devices=state.devices):
            step.run(repeated=once)
        if timed is not None:

            def again(around: Around) -> None:
                state.put_back(gradients=False)
                with torch.random.fork_rng(devices=state.devices):
                    replace(step, counting=around).run(repeated=once)

            timed(again)


@dataclass(frozen=True, slots=True)
class _Step:
    counting: Around
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    training: Training
    plan: Plan
    optimizers: list[Optimizer]

    def run(self, repeated: Sequence[int]) -> None:
        """Forward, backward, and each optimizer as often as ``repeated`` says."""
        with self.counting:
            start = self._forward()
            if start is not None:
                torch.autograd.backward(*start)
                del start
            with scalars_of_ones(self.model):
                for optimizer, times in zip(self.optimizers, repeated, strict=True):
                    for _ in range(times):
                        optimizer.step()

    def _forward(self) -> tuple[Tensor, Tensor] | None:
        """Where the backward starts, if there is one; the output is let go, as in ``loss_of(model(x)).backward()``."""
        with self.plan.autocasting(self.model):
            output = self.model(*self.args, **self.kwargs)
            loss = None if self.training.loss is None else losses.of_callable(self.training.loss, output)
        if not self.training.differentiates:
            return None
        with self.counting.unseen():
            return losses.start(losses.roots(output) if loss is None else [loss])
