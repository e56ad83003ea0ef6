"""The global hooks of one capture, put on and taken off whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from attnprof.capture.process import PROCESS
from attnprof.capture.switching import across_inference_mode

Hook = Callable[..., None]


class Hooks:
    """Those of modules come off while steps run bare; those of optimizers stay, as they cost once a step.

    They are global: hooks on the modules themselves would switch off native fast paths.
    """

    def __init__(self, *, before_forward: Hook, after_forward: Hook, before_step: Hook, after_step: Hook) -> None:
        self._of_modules = before_forward, after_forward
        self._of_optimizers = before_step, after_step
        self._counting, self._watching = ExitStack(), ExitStack()

    def count(self, also: Callable[[], Any] | None = None) -> None:
        """Modules are seen, and ``torch.compile`` is in eager stance; all or nothing, with what ``also`` does."""
        before, after = self._of_modules
        with ExitStack() as stack:
            PROCESS.enter()
            stack.callback(PROCESS.leave)
            hook = register_module_forward_hook(after, with_kwargs=True, always_call=True)
            stack.callback(_global_forward_hooks_with_kwargs.pop, hook.id, None)  # which torch forgets to remove
            stack.callback(hook.remove)
            stack.callback(register_module_forward_pre_hook(before).remove)
            if also is not None:
                also()
            self._counting = stack.pop_all()

    def stop_counting(self) -> None:
        """Modules are no longer seen."""
        self._counting.close()  # which forgets what it closed

    def watch(self) -> None:
        """The steps of optimizers are seen, and modes can be switched in ``inference_mode``."""
        before, after = self._of_optimizers
        self._watching.callback(register_optimizer_step_pre_hook(before).remove)
        self._watching.callback(register_optimizer_step_post_hook(after).remove)
        self._watching.enter_context(across_inference_mode())

    def stop_watching(self) -> None:
        """They are no longer."""
        self._watching.close()
