"""Higher-order ops (cond, scan, while_loop, flex_attention, ...): run so that what is inside is seen.

Left to itself, torch compiles them even in eager code, which a dispatch mode prevents. Two places decide
instead: at the autograd key, control flow runs as the plain Python it stands for, so that its backward is
an ordinary one; at the mode, an op is opened and its inner ops come back to the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._C import DispatchKey
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from attnprof.capture.mode import ThreadRecorder

#: Runs an op so that what is inside comes back to the recorder's handler, and returns its output, or
#: ``CLOSED`` for a call that has to be run, and recorded, whole.
Opener = Callable[["ThreadRecorder", Any, tuple[Any, ...], dict[str, Any]], Any]
CLOSED = object()


def _open_kernel(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Higher-order ops whose eager definition is plain torch code."""
    with recorder.reopened():
        return func.py_kernels[DispatchKey.CompositeExplicitAutograd](*args, **kwargs)


def _open_while(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if any(isinstance(t, FakeTensor) for t in tree_leaves(args)):
        return CLOSED  # nobody knows how often a fake condition holds
    return _open_kernel(recorder, func, args, kwargs)


def _open_cond(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    predicate, if_true, if_false, operands = args
    if isinstance(predicate, FakeTensor):
        return CLOSED  # nobody knows which branch a fake predicate takes
    with recorder.reopened():
        return (if_true if predicate else if_false)(*operands)


def _open_scan(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with recorder.reopened():
        return _eager_scan(*args, **kwargs)


def _open_call(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Higher-order ops that call their first argument on the last."""
    with recorder.reopened():
        return args[0](*args[-1])


def _open_subgraph(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    subgraph, _identifier, *operands = args
    with recorder.reopened():
        return subgraph(*operands)


#: The higher-order ops that are opened; any other is run whole and listed as unpriced.
OPENERS: dict[str, Opener] = {
    "cond": _open_cond,
    "while_loop": _open_while,
    "while_loop_stack_output": _open_while,
    "scan": _open_scan,
    "associative_scan": _open_kernel,
    "map_impl": _open_kernel,
    "flex_attention": _open_kernel,
    "flex_attention_backward": _open_kernel,
    "out_dtype": _open_kernel,
    "hints_wrapper": _open_kernel,
    "strict_mode": _open_call,
    "invoke_subgraph": _open_subgraph,
}


def _eager_cond(predicate: Any, if_true: Any, if_false: Any, operands: Any = ()) -> Any:
    return (if_true if predicate else if_false)(*operands)


def _eager_scan(combine: Any, init: Any, xs: Any, additional_inputs: Any = ()) -> Any:
    """The carry and the stacked outputs of ``carry, y = combine(carry, x)`` over the first dimension."""
    carry, rows = list(init), []
    for step in zip(*(x.unbind(0) for x in xs), strict=True):
        out = combine(*carry, *step, *additional_inputs)
        carry = list(out[: len(init)])
        rows.append(out[len(init) :])
    return (*carry, *(torch.stack(column) for column in zip(*rows, strict=True)))


_EAGER: dict[str, Callable[..., Any]] = {"cond": _eager_cond, "scan": _eager_scan}
_AUTOGRAD = (DispatchKey.AutogradCPU, DispatchKey.AutogradCUDA)
_TRACING = (torch._C._TorchDispatchModeKey.PROXY, torch._C._TorchDispatchModeKey.FUNCTIONAL)


@contextmanager
def eager_control_flow() -> Iterator[None]:
    """Control flow runs as plain Python with ordinary gradients, except while something traces it."""
    saved = []
    for name, plain in _EAGER.items():
        op = getattr(torch.ops.higher_order, name)
        for key in _AUTOGRAD:
            saved.append((op._dispatch_cache, key, op._dispatch_cache.get(key)))
            op._dispatch_cache[key] = _unless_traced(op, plain)
    try:
        yield
    finally:
        for cache, key, before in saved:
            if before is None:
                del cache[key]
            else:
                cache[key] = before


def _unless_traced(op: Any, plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        fake = any(isinstance(t, FakeTensor) for t in tree_leaves(args[0]))  # a predicate nobody knows
        if fake or any(torch._C._get_dispatch_mode(key) is not None for key in _TRACING):
            return op.py_kernels[DispatchKey.Autograd](*args, **kwargs)
        return plain(*args, **kwargs)

    return run
