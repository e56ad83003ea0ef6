"""The stack of dispatch modes of a thread, into which others push their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode, _push_mode


def take_off(mode: TorchDispatchMode) -> None:
    """Take a mode off this thread's stack, also from below modes that were pushed later and stay on."""
    with _lifted(mode) as found:
        if found:
            mode.__exit__(None, None, None)


def put_below(mode: TorchDispatchMode) -> None:
    """Put a mode below all others: those are left in the order in which they were entered."""
    with _lifted(None):
        mode.__enter__()


@contextmanager
def _lifted(down_to: TorchDispatchMode | None) -> Iterator[bool]:
    """Without the modes above this one (or any); says whether it is there."""
    above = []
    while (top := _get_current_dispatch_mode()) is not None and top is not down_to:
        above.append(_pop_mode())
    try:
        yield top is down_to and top is not None
    finally:
        for other in reversed(above):
            _push_mode(other)
