"""What ``attnprof run`` was asked to count: a target, its inputs, and how to run it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprof import api
from attnprof.cli import inputs as input_specs
from attnprof.cli import target
from attnprof.cli.saved import Saved
from attnprof.cli.users_code import their_own

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnprof.capture.plans import Plan


@dataclass(frozen=True, slots=True)
class Request:
    """A run that can be made again, under another plan too."""

    text: str
    found: Callable[[], Any] | nn.Module | Saved
    inputs: Sequence[input_specs.InputSpec]
    seed: int
    fake: bool
    training: bool | None
    backward: bool
    loss: Callable[[Any], Tensor] | None
    optimizer: str | None
    plan: Plan
    generate: int | None = None
    time: bool | int = False

    @property
    def differentiates(self) -> bool:
        return self.backward or self.loss is not None or self.optimizer is not None

    def build(self) -> target.Target:
        """The model and its arguments, anew."""
        if isinstance(self.found, Saved):
            made = self.found()
            input_specs.apply(self.inputs, made, self.seed, self.fake or made.fake)
            if self.training is not None:
                made.model.train(self.training)
            elif self.found.is_configuration and self.differentiates:
                made.model.train()  # nobody has left it in another mode
            return made
        with api.fake_tensors() if self.fake else nullcontext():
            with their_own(f"building {self.text}"):
                made = target.build(self.found, self.text)
            input_specs.apply(self.inputs, made, self.seed, self.fake)
        if self.training is not None:
            made.model.train(self.training)
        return made

    def drive(self, counting: api.Profile, made: target.Target) -> None:
        """Run it into a profile; on a terminal, a bar shows how far the timing is."""
        with ExitStack() as stack:
            api.drive(
                counting,
                made.model,
                made.args,
                made.kwargs,
                backward=self.backward,
                loss=self.loss,
                optimizer=self.optimizer,
                plan=self.plan,
                generate=self.generate,
                fake=self.fake or made.fake,
                notes=made.notes,
                time=self.time,
                told=_Bar(stack),
            )


class _Bar:
    """The steps that have run for their time: a bar on a terminal, from the first one on."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            bar = tqdm(total=total, desc="timing", file=sys.stderr, disable=None, leave=False)
            self._bar = self._stack.enter_context(bar)
        self._bar.update()
