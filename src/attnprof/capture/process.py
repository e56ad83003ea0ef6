"""What captures change for the whole process: once, while any of them is open, in whatever order they close."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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
                    stack.enter_context(_before_control_flow(self.use_eager_stance))
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

        Where dynamo is not imported nothing is compiled: asked again before each module and each control flow runs.
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


@contextmanager
def _before_control_flow(act: Callable[[], None]) -> Iterator[None]:
    """``act`` runs before torch compiles a control flow op: the first ``torch.cond`` of a process imports dynamo."""
    utils: Any = sys.modules.get("torch._higher_order_ops.utils")
    compile_and_call = getattr(utils, "_hop_compile_and_call", None)
    if compile_and_call is None:  # another torch: its eager control flow compiles elsewhere
        yield
        return

    def act_and_call(*args: Any, **kwargs: Any) -> Any:
        act()
        return compile_and_call(*args, **kwargs)

    utils._hop_compile_and_call = act_and_call
    try:
        yield
    finally:
        utils._hop_compile_and_call = compile_and_call


PROCESS = ProcessState()
