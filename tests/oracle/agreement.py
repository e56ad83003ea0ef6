"""A definition, the real kernel and the price, held against each other with ``==``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnprof.core.signature import OpSignature
from attnprof.core.work import PricedOp
from attnprof.costs.pricing import price
from oracle.buffers import Buffer, Machine
from support import only_op

#: Kernels reassociate sums and fuse multiply-adds: results differ in the last digits of the dtype. Sums here
#: have at most a few hundred terms of order 1, so a thousand units in the last place is generous, and a wrong
#: definition is off by far more.
_TOLERANCE = {
    torch.float64: 1e-10,
    torch.complex128: 1e-10,
    torch.float32: 2e-4,
    torch.complex64: 2e-4,
    torch.bfloat16: 0.1,  # 8 bits of mantissa, and sums rounded once per output
}

Counts = dict[str, int]


def agree(func: Any, *args: Any, by: Callable[..., Any], **kwargs: Any) -> None:
    """Run ``by`` (a definition) and ``func`` (torch's op) on the same arguments; numbers and counts must agree.

    ``by(machine, *args, **kwargs)`` gets a :class:`Buffer` in place of every tensor and returns its outputs.
    """
    machine = Machine()
    lifted = _lift(machine, (args, kwargs))
    expected = by(machine, *lifted[0], **lifted[1])
    returned: list[Any] = []
    signature = only_op(lambda: returned.append(func(*args, **kwargs)), str(func))
    _same_numbers(returned[0], expected, f"output of {func}")
    _same_numbers((args, tuple(kwargs.values())), (lifted[0], tuple(lifted[1].values())), f"argument of {func}")
    price_says, counted = counts_of_price(signature), counts_of(machine)
    assert price_says == counted, f"{_difference(price_says, counted)} in {describe(signature)}"


def counts_of(machine: Machine) -> Counts:
    """What a reference execution did."""
    return {
        "matmul_flops": machine.matmul,
        "vector_flops": machine.vector,
        "useful_matmul_flops": machine.useful,
        "recompute_matmul_flops": machine.recompute_matmul,
        "recompute_vector_flops": machine.recompute_vector,
        "read_bytes": machine.read_bytes,
        "write_bytes": machine.write_bytes,
    }


def counts_of_price(signature: OpSignature) -> Counts:
    """What attnprof says the op call does."""
    priced: PricedOp = price(signature)
    assert priced.status == "priced", f"{signature.op} is {priced.status}"
    return {
        "matmul_flops": priced.cost.matmul_flops,
        "vector_flops": priced.cost.vector_flops,
        "useful_matmul_flops": priced.cost.useful_matmul_flops,
        "recompute_matmul_flops": priced.recompute.matmul_flops,
        "recompute_vector_flops": priced.recompute.vector_flops,
        "read_bytes": priced.cost.read_bytes,
        "write_bytes": priced.cost.write_bytes,
    }


def _difference(price_says: Counts, counted: Counts) -> str:
    return ", ".join(f"{k}: priced {v}, counted {counted[k]}" for k, v in price_says.items() if v != counted[k])


def describe(signature: OpSignature) -> str:
    """The op call in one line."""
    return f"{signature.op}({', '.join(f'{name}={_show(v)}' for name, v in signature.args)})"


def _show(argument: Any) -> str:
    if isinstance(argument, tuple):
        return f"[{', '.join(map(_show, argument))}]"
    return f"{argument}/{argument.stride}" if hasattr(argument, "stride") else str(argument)


def _lift(machine: Machine, value: Any) -> Any:
    if isinstance(value, Tensor):
        return machine.load(value)
    if isinstance(value, list | tuple):
        return type(value)(_lift(machine, v) for v in value)
    if isinstance(value, dict):
        return {name: _lift(machine, v) for name, v in value.items()}
    return value


def _same_numbers(real: Any, reference: Any, what: str) -> None:
    if isinstance(reference, Buffer):
        assert isinstance(real, Tensor), f"{what}: {type(real).__name__} where the reference has a tensor"
        assert tuple(real.shape) == reference.shape, f"{what}: shape {tuple(real.shape)} against {reference.shape}"
        ours = reference.values()
        assert real.dtype == ours.dtype, f"{what}: {real.dtype} against {ours.dtype}"
        tolerance = _TOLERANCE.get(real.dtype, 0)
        torch.testing.assert_close(
            real.detach(), ours, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m: f"{what}: {m}"
        )
    elif isinstance(reference, list | tuple):
        assert len(real) == len(reference), f"{what}: {len(real)} against {len(reference)}"
        for r, e in zip(real, reference, strict=True):
            _same_numbers(r, e, what)
    elif reference is None:
        assert real is None, f"{what}: the reference has none"
