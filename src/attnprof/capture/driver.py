"""One call of a model, with its backward, that leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from attnprof.capture.fake import faked
from attnprof.core.errors import AttnprofError


class Counting(Protocol):
    """A profile: a context that counts, with a way to leave ops out."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def unseen(self) -> AbstractContextManager[None]: ...


def drive(
    counting: Counting,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    backward: bool,
    fake: bool,
) -> None:
    """``model(*args, **kwargs)``, and the backward of its loss, inside ``counting``."""
    args = (args,) if isinstance(args, Tensor) else tuple(args)
    with ExitStack() as stack:
        if fake:
            args, kwargs = stack.enter_context(faked(model, args, dict(kwargs)))
        stack.enter_context(_unchanged(model, (args, kwargs)))
        if backward:
            stack.enter_context(torch.enable_grad())
        with counting:
            output = model(*args, **kwargs)
            if backward:
                with counting.unseen():
                    roots, gradients = _roots(output)
                torch.autograd.backward(roots, gradients)


def _roots(output: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What to differentiate, and the gradient to start from: ones, that of a sum."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor) and loss.requires_grad:
        return [loss], [torch.ones_like(loss)]
    values = tree_leaves(output if not hasattr(output, "to_tuple") else output.to_tuple())
    roots = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    if not roots:
        raise AttnprofError(
            f"backward was asked for, but nothing in the model's output ({type(output).__name__}) needs a gradient: "
            "give it trainable parameters or an input with requires_grad."
        )
    return roots, [torch.ones_like(root) for root in roots]


@contextmanager
def _unchanged(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Put gradients, buffers and random states back."""
    leaves = [t for t in (*model.parameters(), *tree_leaves(inputs)) if isinstance(t, Tensor) and t.is_leaf]
    gradients = [(t, t.grad) for t in leaves if t.requires_grad]
    buffers = [
        (module._buffers, name, tensor, tensor.detach().clone(), _version(tensor))
        for module in model.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None and not isinstance(tensor, FakeTensor) and not is_lazy(tensor) and not tensor.is_meta
    ]
    devices = sorted({t.device.index or 0 for t in leaves if t.device.type == "cuda" and not isinstance(t, FakeTensor)})
    with torch.random.fork_rng(devices=devices):
        try:
            for tensor, _ in gradients:
                tensor.grad = None
            yield
        finally:
            for tensor, gradient in gradients:
                tensor.grad = gradient
            with torch.no_grad():
                for table, name, tensor, before, version in buffers:
                    table[name] = tensor
                    if _changed(tensor, before, version):
                        tensor.copy_(before)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _changed(tensor: Tensor, before: Tensor, version: int) -> bool:
    """By value where torch can compare (batch norm changes its buffers without saying so), else by version."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return _version(tensor) != version
    return not torch.equal(tensor, before)
