"""Where a dispatch mode can be put on and taken off: torch restores, at the end of some blocks, what it found.

Whether ops go to dispatch modes at all is a flag of the thread. ``torch.inference_mode`` gives it back, at its end,
the value of its beginning: with no mode left the next op fails, and with a new one no op reaches it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

_lock = threading.Lock()
_open = 0
_bare = torch.inference_mode.__exit__
_is_included = torch._C._dispatch_tls_is_dispatch_key_included
_stack_length = torch._C._len_torch_dispatch_stack


def _exit(block: torch.inference_mode, exc_type: Any, exc_value: Any, traceback: Any) -> None:
    """The method while a capture is open."""
    _bare(block, exc_type, exc_value, traceback)
    if _is_included(DispatchKey.Python) != (_stack_length() > 0):
        _put_right()


def _put_right() -> None:
    """Torch sets the flag with the first mode on the stack, and with the last one off it."""
    modes = [_pop_mode() for _ in range(_stack_length())]
    if not modes:
        _push_mode(TorchDispatchMode())
        _pop_mode()
    for mode in reversed(modes):
        _push_mode(mode)


@contextmanager
def across_inference_mode() -> Iterator[None]:
    """Modes can be put on and taken off inside ``torch.inference_mode``, in whatever thread."""
    global _open
    kind: Any = torch.inference_mode
    with _lock:
        if not _open:
            kind.__exit__ = _exit
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open and kind.__exit__ is _exit:
                kind.__exit__ = _bare


def is_inside_compiled() -> bool:
    """Whether this is called from a compiled function, which runs eagerly or has a part that is not compiled.

    It puts back how ops are dispatched as well. Slow: asked where a mode would be put on or taken off.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "compile_wrapper" and frame.f_globals.get("__name__") == "torch._dynamo.eval_frame":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
