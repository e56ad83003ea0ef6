"""The dispatch mode of one thread: runs every op as it would have run, and notes what it was and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves

from attnprof.capture import execution, higher_order
from attnprof.capture.attribution import Attribution
from attnprof.capture.calls import Calls
from attnprof.capture.ledger import Clock
from attnprof.capture.signatures import Plan
from attnprof.core.trace import OUTSIDE

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder

_current_node = torch._C._current_autograd_node
_next_number = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
_FAKE = (FakeTensor,)
#: A tensor that autograd keeps of its own op's outputs is detached, and that call names its class, whatever it is.
_PLAIN = ((torch.Tensor,), (torch.nn.Parameter,), (torch.nn.Buffer,))
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_DEVICE_QUERY = torch.ops.prim.device.default


class ThreadRecorder(TorchDispatchMode):
    """The dispatch mode of one thread: runs each op, then notes its signature and scope."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled: capture runs under the force_eager stance

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.events: list[int] = []
        self.scopes: list[int] = []
        self.attribution = Attribution(
            recorder.scopes, self.scopes, recorder.modules.owner_of, recorder.numbers_trusted
        )
        self.calls = Calls()
        self._note_event, self._note_scope = self.events.append, self.scopes.append
        self._signatures = recorder.signatures
        self._id_of = recorder.signatures.id_of
        self._plans = recorder.signatures.plans
        self.memory = recorder.memory
        self.clock = Clock(self.events, 0) if self.memory is None else self.memory.clock(self.events)
        self.since = 0  # of the outermost module call: the first block of memory that it can make
        self._dtensors = False
        self.entered = 0  # how often its thread is inside the profiler
        self.visiting = False  # pushed by a hook on a thread that is not inside, for one call
        self._autocast: tuple[Any, ...] | None = None  # inside an opened op: the autocast it runs under

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plan = self._plans.get(id(func))
        if plan is None:
            plan = self._signatures.plan(func)
        if plan.special or (types and types not in _PLAIN):
            return self._special(plan, func, types, args, kwargs or {})
        out = plan.call(*args, **kwargs) if kwargs else plan.call(*args)
        node, attribution = _current_node(), self.attribution
        if node is None:
            scope = attribution.scope
            if scope is None:
                scope = attribution.forward()
            else:
                attribution.last = _next_number()
        else:
            scope = attribution.backward(node)
        signature = plan.only
        if signature is None:  # not one of the ops that make views
            signature = self._id_of(plan, args, kwargs, out)
            if self.memory is not None and not plan.shapeless:
                if node is not None:
                    self.memory.watch_backward(node)
                self.memory.note(self.clock, plan, args, kwargs, out)
        self._note_event(signature)
        self._note_scope(scope)
        return out

    def _special(self, plan: Plan, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Subclasses are sent on to open themselves; composites and higher-order ops are opened here."""
        if func is _DEVICE_QUERY and types == _FAKE:
            return FakeTensor.__torch_dispatch__(func, types, args)  # two of three calls of a fake run
        if types != _FAKE and any(is_traceable_wrapper_subclass_type(t) for t in types):
            self._note_wrappers(types, args)
            return NotImplemented
        if plan.query or (FakeTensor in types and self._is_tracing(args)):
            return func(*args, **kwargs)
        if types and FakeTensor not in types:
            return self._by_subclass(plan, func, types, args, kwargs)
        keys = self._autocast_for(plan, func)
        with execution.switched_on(keys) if keys else ExitStack():
            if plan.opener is not None:
                before, self._autocast = self._autocast, keys
                try:
                    out = plan.opener(self, func, args, kwargs)
                finally:
                    self._autocast = before
                if out is not higher_order.CLOSED:
                    return out
            with execution.versions_counted(args[0]) if plan.counts_versions else ExitStack():
                out = func(*args, **kwargs)
        if plan.opens_block:
            self.attribution.mark_block(plan.opens_block)
        self._note(plan, args, kwargs, out)
        return out

    def _note(self, plan: Plan, args: Any, kwargs: Any, out: Any) -> None:
        """Record one op call."""
        node, attribution = _current_node(), self.attribution
        scope = attribution.backward(node) if node is not None else attribution.forward()
        signature = self._id_of(plan, args, kwargs, out)
        if self.memory is not None and not plan.shapeless:
            if node is not None:
                self.memory.watch_backward(node)
            self.memory.note(self.clock, plan, args, kwargs, out)
        self.events.append(signature)
        self.scopes.append(scope)

    def drop_half_an_event(self) -> None:
        """An interrupt came between an op's signature and its scope: the op is as good as not run."""
        del self.events[len(self.scopes) :]

    def module_of(self, event: int) -> int:
        """The module of one of this thread's op calls; what came after the last is taken for a part of it."""
        scopes = self.scopes
        return self.recorder.scopes.known[scopes[min(event, len(scopes) - 1)]].module if scopes else OUTSIDE

    def _autocast_for(self, plan: Plan, func: Any) -> tuple[Any, ...]:
        if not plan.redispatches:
            return ()
        keys = execution.autocast_outside() if self._autocast is None else self._autocast
        return execution.below_autocast(func, keys)

    def _by_subclass(self, plan: Plan, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A subclass of the user's runs the op its own way: what that runs is seen, or else the op itself counts."""
        for kind in types:
            before = len(self.events)
            with self.reopened():
                out = kind.__torch_dispatch__(func, types, args, kwargs)
            if out is not NotImplemented:
                if len(self.events) == before:
                    self._note(plan, args, kwargs, out)
                return out
        return NotImplemented

    def _note_wrappers(self, types: Any, args: Any) -> None:
        """From the first DTensor on, fake tensors may be its shape propagation."""
        if any(t.__name__ == "DTensor" for t in types):
            self._dtensors = True
            locals_ = (getattr(t, "_local_tensor", None) for t in tree_leaves(args))
            self.recorder.fake_modes.update(id(t.fake_mode) for t in locals_ if isinstance(t, FakeTensor))

    def _is_tracing(self, args: Any) -> bool:
        """Fake tensors that are no work of this run: a graph being traced, or DTensors finding their shapes."""
        if TracingContext.try_get() is not None or torch._C._get_dispatch_mode(_PROXY) is not None:
            return True
        if not self._dtensors:
            return False
        modes = {id(t.fake_mode) for t in tree_leaves(args) if isinstance(t, FakeTensor)}
        return not modes & self.recorder.fake_modes

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """From inside the handler, let inner ops come back to it."""
        with self:
            yield


class Retired(ThreadRecorder):
    """A recorder left on the stack of a thread that was inside a module when the profile closed: it notes nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if types and any(is_traceable_wrapper_subclass_type(t) for t in types if t is not FakeTensor):
            return NotImplemented
        return func(*args, **(kwargs or {}))
