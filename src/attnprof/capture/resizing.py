"""Storages that a program gives another size itself: ``UntypedStorage.resize_``, which reaches no dispatch mode.

FSDP frees and fills the storages of its parameters so, around every forward and backward.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_told: list[Callable[[Any], None]] = []
_bare = torch.UntypedStorage.resize_


def _resize(storage: torch.UntypedStorage, size: int) -> Any:
    """The method while a capture is open."""
    resized = _bare(storage, size)
    for tell in list(_told):
        tell(storage)
    return resized


@contextmanager
def tells(tell: Callable[[Any], None]) -> Iterator[None]:
    """``tell(storage)`` after each resize, in whatever thread."""
    kind: Any = torch.UntypedStorage
    with _lock:
        if not _told:
            kind.resize_ = _resize
        _told.append(tell)
    try:
        yield
    finally:
        with _lock:
            _told.remove(tell)
            if not _told and vars(kind).get("resize_") is _resize:
                del kind.resize_  # the method of the class above shows again
