"""What captures change for the whole process: once, while any of them is open, in whatever order they close."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from attnprof.capture import higher_order


class ProcessState:
    """Compiled code runs eagerly, control flow runs as plain Python, compiled modules do not warn of our hooks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captures = 0
        self._installed = ExitStack()
        self.stance_is_set = False

    def enter(self) -> None:
        """One more capture is open."""
        with self._lock:
            self._captures += 1
            if self._captures == 1:
                with ExitStack() as stack:
                    stack.enter_context(_without_hook_warning())
                    stack.enter_context(higher_order.eager_control_flow())
                    self._installed = stack.pop_all()
        self.use_eager_stance()

    def leave(self) -> None:
        """One capture closed; the last one puts everything back."""
        with self._lock:
            self._captures -= 1
            if self._captures == 0:
                self._installed.close()

    def use_eager_stance(self) -> None:
        """Compiled code runs its eager program; left to itself, dynamo would remember us and stay eager.

        Where dynamo is not imported nothing is compiled: asked again before each module runs.
        """
        if self.stance_is_set or "torch._dynamo" not in sys.modules:
            return
        with self._lock:
            if not self.stance_is_set and self._captures:
                stance = torch.compiler.set_stance("force_eager")
                self.stance_is_set = True
                self._installed.callback(self._restore, stance)

    def _restore(self, stance: torch._dynamo.decorators.set_stance) -> None:
        stance.__exit__(None, None, None)
        self.stance_is_set = False


@contextmanager
def _without_hook_warning() -> Iterator[None]:
    """A compiled module warns that global hooks fire twice for it: ours know that."""
    warnings.filterwarnings("ignore", message="Using `torch.compile\\(module\\)` when there are global hooks")
    ours = warnings.filters[0]
    try:
        yield
    finally:
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]


PROCESS = ProcessState()
