"""Calls of one module, told before they begin, where a hook would change what is measured.

Any global hook makes every module call slower, and a hook on the module itself switches off native fast
paths. Torch asks each module for a ``_compiled_call_impl`` before it looks at hooks, and leaves it out of
copies and pickles.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.jit._recursive import ignored_attributes

_NAME = "_compiled_call_impl"
_current_task = torch._C._current_graph_task_id


class Interception:
    """Tells ``before(model, args, kwargs)`` of each call of a module from outside of itself and of any backward, and
    ``failed()`` when an exception ended it.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None],
        failed: Callable[[], None],
    ) -> None:
        self._model = weakref.ref(model)
        self._before, self._failed = before, failed
        self._running: set[int] = set()  # the threads that are inside
        self._is_open = False
        self._theirs: Any = None
        self._ours: Any = None

    def open(self) -> None:
        """Begin to tell; also again, where the module was compiled meanwhile."""
        model = self._model()
        if model is None:
            return
        if not self._is_open:
            ignored_attributes.append(_NAME)  # torch.jit.script looks at what a module has
        self._is_open = True
        if self._ours is None or not _is_in(vars(model).get(_NAME), self._ours):
            self._theirs = vars(model).get(_NAME)
            self._ours = self._call
            vars(model)[_NAME] = self._ours

    def close(self) -> None:
        """Leave the module as it was; one that was compiled meanwhile stays compiled.

        Where others were opened later, these still call this one, which then tells nothing, until they close.
        """
        if self._is_open:
            ignored_attributes.remove(_NAME)
        self._is_open = False
        model = self._model()
        if model is None:
            return
        while (inner := _interception(vars(model).get(_NAME))) is not None and not inner._is_open:
            if inner._theirs is None:
                del vars(model)[_NAME]
            else:
                vars(model)[_NAME] = inner._theirs
            inner._ours = None

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_locals  # of the module's __call__, or of an interception around this one
        model, mine, thread = caller.get("self"), self._model(), get_ident()
        if isinstance(model, Interception):
            model = caller["model"]
        if not isinstance(model, nn.Module):
            model = mine
        call: Any = model._call_impl if self._theirs is None else self._theirs  # type: ignore[union-attr]
        if mine is not model or mine is None:  # a replica for another device has a copy of the attributes
            return call(*args, **kwargs)
        if thread in self._running or not self._is_open or is_compiling() or _current_task() >= 0:
            return call(*args, **kwargs)
        self._running.add(thread)
        try:
            self._before(mine, args, kwargs)
            return call(*args, **kwargs)
        except BaseException:
            self._failed()
            raise
        finally:
            self._running.discard(thread)


def _interception(call: Any) -> Interception | None:
    """The one that this is the call of."""
    found = getattr(call, "__self__", None)
    return found if isinstance(found, Interception) else None


def _is_in(call: Any, ours: Any) -> bool:
    """Whether one call is among those that another passes on to."""
    while (found := _interception(call)) is not None:
        if call is ours:
            return True
        call = found._theirs
    return False
