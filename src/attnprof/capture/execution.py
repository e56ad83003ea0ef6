"""How each op is run from inside the handler so that its result is what it would have been without us.

Most ops are simply called. The exceptions:

- metadata queries of fake tensors are not ops and are not recorded;
- composites reach a dispatch mode whole under ``inference_mode``: their own C++ definition is run under
  the mode, so that the same ops are seen as under ``no_grad``;
- foreach ops in place count as a change of their tensors only where the in-place ops that they run on the CPU
  are seen by autograd, which is not so inside a handler: the versions are put right;
- inside a handler autocast is switched off, so an op that dispatches again inside (a composite, a native
  fast path) would leave autocast: it is switched on again when it was on outside;
- higher-order ops are opened so that what they run is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator, OpOverload

from attnprof.capture import higher_order
from attnprof.capture.higher_order import Opener

if TYPE_CHECKING:
    from attnprof.capture.mode import ThreadRecorder

_AUTOCAST = ((DispatchKey.AutocastCPU, "cpu"), (DispatchKey.AutocastCUDA, "cuda"))


def _has_kernel(name: str, key: str) -> bool:
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    except RuntimeError:  # an op of TorchScript's that the dispatcher does not know
        return False


def is_query(func: Any) -> bool:
    """A question about a tensor's metadata, which torch routes through dispatch for fake tensors."""
    return isinstance(func, OpOverload) and func.namespace == "prim"


def opener(func: Any) -> Opener | None:
    """How to run ``func`` so that the ops inside reach the mode; None when there is nothing to open."""
    if isinstance(func, HigherOrderOperator):
        return higher_order.OPENERS.get(func.name())
    return _open_composite if is_composite(func) else None


def is_composite(func: OpOverload) -> bool:
    """Defined by other ops only: an implicit composite without a kernel of its own for dense tensors."""
    name = func.name()
    return _has_kernel(name, "CompositeImplicitAutograd") and not any(_has_kernel(name, k) for k in ("CPU", "CUDA"))


def has_kernel_for(func: OpOverload, args: tuple[Any, ...]) -> bool:
    """Whether a composite has a kernel of its own for one of these tensors: a sparse, nested or mkldnn one."""
    for arg in args:
        if isinstance(arg, torch.Tensor) and (arg.is_nested or arg.layout is not torch.strided):
            keys = torch._C._dispatch_keys(arg)
            return any(keys.has(key) and _has_kernel(func.name(), key.name) for key in _SPECIAL_LAYOUTS)
    return False


_SPECIAL_LAYOUTS = tuple(
    getattr(DispatchKey, kind + device)
    for kind in ("Sparse", "SparseCsr", "NestedTensor", "Mkldnn", "Quantized")
    for device in ("CPU", "CUDA")
    if hasattr(DispatchKey, kind + device)
)


def redispatches(func: Any) -> bool:
    """Whether the op calls ops inside that autocast may change: a composite or a native fast path."""
    return isinstance(func, OpOverload) and (is_composite(func) or func.name() in _FAST_PATHS)


_FAST_PATHS = {
    "aten::_transformer_encoder_layer_fwd",
    "aten::_native_multi_head_attention",
    "aten::_trilinear",
    "aten::_transform_bias_rescale_qkv",
}


def autocast_outside() -> tuple[DispatchKey, ...]:
    """The autocast keys that were on where the op was called."""
    with torch._C._RestorePythonTLSSnapshot():  # type: ignore[attr-defined]
        return tuple(key for key, device in _AUTOCAST if torch.is_autocast_enabled(device))


def below_autocast(func: Any, keys: tuple[DispatchKey, ...]) -> tuple[DispatchKey, ...]:
    """Of the autocast keys that were on, those that are still on inside ``func``: it may have used them up."""
    return tuple(key for key in keys if not _has_kernel(func.name(), key.name))


def is_foreach_in_place(func: Any) -> bool:
    """Whether the op changes a list of tensors, and on the CPU does so by an in-place op for each."""
    return isinstance(func, OpOverload) and func.name().startswith("aten::_foreach_") and func._schema.is_mutable


@contextmanager
def versions_counted(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """What is changed inside, and does not say so yet, says so afterwards, as it would have outside a handler."""
    found = [(t, t._version) for t in tensors if t.device.type == "cpu" and not t.is_inference()]
    yield
    torch.autograd.graph.increment_version([t for t, version in found if t._version == version])


@contextmanager
def switched_on(keys: tuple[DispatchKey, ...]) -> Iterator[None]:
    """Dispatch keys that are off inside a handler, on again."""
    with ExitStack() as stack:
        for key in keys:
            guard: AbstractContextManager[Any] = torch._C._SetExcludeDispatchKeyGuard(key, False)
            stack.enter_context(guard)
        yield


#: On outside a handler, also in inference_mode: lazy conjugation and negation are resolved, and a view of
#: a parameter is known to need a gradient, which decides how ``matmul`` folds.
_BELOW_AUTOGRAD = (DispatchKey.ADInplaceOrView, DispatchKey.Conjugate, DispatchKey.Negative, DispatchKey.ZeroTensor)


def _open_composite(recorder: ThreadRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if has_kernel_for(func, args):
        return higher_order.CLOSED
    with recorder.reopened(), switched_on(_BELOW_AUTOGRAD):
        return func._op_dk(DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
