"""Scopes that torch's profiler sees: one around each module's forward, one around each optimizer's step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from attnprof.capture.modules import Modules
from attnprof.capture.process import PROCESS
from attnprof.core.trace import OPTIMIZER, ROOT

_Scope: Any = torch._C._profiler._RecordFunctionFast
_MODULE = "attnprof module "
OPTIMIZER_STEP, UNSEEN, STEP = "attnprof optimizer", "attnprof unseen", "attnprof step"


class ScopeMarks:
    """Opens a scope, with the index of its record, around each module that runs while :meth:`installed` is open.

    The hooks are global ones: hooks on the modules themselves would switch off native fast paths.
    """

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._local = threading.local()  # the scopes open in each thread, the innermost last

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, modules and optimizers are marked. Scopes that an interrupt left open end with it."""
        with ExitStack() as stack:
            stack.callback(self._close, self._open_scopes(), 0)
            for handle in (
                register_module_forward_hook(self._after_forward, always_call=True),
                register_module_forward_pre_hook(self._before_forward),
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            yield

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """A scope of the profiler's own; those that are left open in it end with it."""
        scopes = self._open_scopes()
        depth = len(scopes)
        self._begin(scopes, -1, name)
        try:
            yield
        finally:
            self._close(scopes, depth)

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if is_compiling():
            return
        if not PROCESS.stance_is_set:
            PROCESS.use_eager_stance()
        scopes = self._open_scopes()
        index = self._modules.indices.get(id(module))
        if index is None:
            index = self._modules.index_of(module, scopes[-1][0] if scopes and scopes[-1][0] >= 0 else ROOT)
        self._begin(scopes, index, f"{_MODULE}{index}")

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if not is_compiling():
            self._end(self._modules.indices.get(id(module), ROOT))

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._begin(self._open_scopes(), OPTIMIZER, OPTIMIZER_STEP)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._end(OPTIMIZER)

    def _open_scopes(self) -> list[tuple[int, Any]]:
        scopes: list[tuple[int, Any]] | None = getattr(self._local, "scopes", None)
        if scopes is None:
            scopes = self._local.scopes = []
        return scopes

    def _begin(self, scopes: list[tuple[int, Any]], index: int, name: str) -> None:
        scope = _Scope(name)
        scope.__enter__()
        scopes.append((index, scope))

    def _end(self, index: int) -> None:
        """End the innermost scope of this module, and what was left open in it."""
        scopes = self._open_scopes()
        for depth in range(len(scopes) - 1, -1, -1):
            if scopes[depth][0] == index:
                self._close(scopes, depth)
                return
            if scopes[depth][0] < 0:  # never beyond the profiler's own
                return

    def _close(self, scopes: list[tuple[int, Any]], depth: int) -> None:
        while len(scopes) > depth:
            scopes.pop()[1].__exit__(None, None, None)


def module_of(name: str) -> int | None:
    """The index in the name of a module's scope; None for any other event."""
    return int(name.removeprefix(_MODULE)) if name.startswith(_MODULE) else None
