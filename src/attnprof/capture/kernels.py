"""The kernels a calibration times: matmuls, pointwise work in cache, STREAM, and ops too small to count.

Each is a callable without arguments and the work of one call. Operands are random, since zeros cost a GPU less
power, from a generator of their own, so that the program's random numbers stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnprof.core.device import peak_dtype

Call = Callable[[], Any]

#: Multiply-adds of each chain below: times around the loop, and in it. Chains side by side hide their latency.
_LOOPS, _UNROLLED, _CHAINS = 32, 8, 4
_CHAIN_SOURCE = f"""
template <typename T> T chains(T x, T y) {{
  T a = x, b = x + T(1), c = x + T(2), d = x + T(3);
  for (int i = 0; i < {_LOOPS}; ++i) {{
    {"a = a * y + x; b = b * y + x; c = c * y + x; d = d * y + x; " * _UNROLLED}
  }}
  return a + b + c + d;
}}
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """``work`` of one call: FLOPs, bytes, or 1 op; ``at`` is its size in words."""

    name: str
    work: int
    at: str
    call: Call


def matmul(dtype: torch.dtype, n: int, transposed: bool, device: torch.device) -> Kernel:
    """An n × n × n GEMM, 2 n³ FLOPs, whose second operand is laid out by rows, or by columns as in a Linear."""
    a, b = (_random((n, n), dtype, device, seed) for seed in (0, 1))
    if transposed:
        b = b.t()
    call: Call
    if dtype == torch.int8:
        out = torch.empty((n, n), dtype=torch.int32, device=device)
        call = lambda: torch._int_mm(a, b, out=out)  # noqa: E731
    elif peak_dtype(str(dtype)) == "float8":
        one = torch.ones((), device=device, dtype=torch.float32)
        call = lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # noqa: E731
    else:
        out = torch.empty((n, n), dtype=dtype, device=device)
        call = lambda: torch.mm(a, b, out=out)  # noqa: E731
    layout = "A·Bᵀ" if transposed else "A·B"
    return Kernel(peak_dtype(str(dtype)), 2 * n**3, f"{layout} of {n} × {n}", call)


def pointwise(dtype: torch.dtype, n: int, device: torch.device) -> Iterator[Kernel]:
    """Kernels that do much arithmetic for each element they load, on n elements that stay in cache.

    FLOPs per element: lerp 3 (sub, mul, add), hardswish 5 (add, max, min, mul, div), the norm 2 (mul, add);
    for integers an add with a factor 2 (mul, add), a sum 1.
    """
    x, y = (_random((n,), dtype, device, seed) for seed in (0, 1))
    out = torch.empty_like(x)
    name = peak_dtype(str(dtype))
    size = f"of {n:,} elements"
    if dtype.is_floating_point:
        yield Kernel(name, 5 * n, f"hardswish {size}", lambda: torch.ops.aten.hardswish.out(x, out=out))
        yield Kernel(name, 3 * n, f"lerp {size}", lambda: torch.lerp(x, y, 0.25, out=out))
        yield Kernel(name, 2 * n, f"norm {size}", lambda: torch.linalg.vector_norm(x))
    else:
        yield Kernel(name, 2 * n, f"add {size}", lambda: torch.add(x, y, alpha=3, out=out))
        yield Kernel(name, n, f"sum {size}", lambda: torch.sum(x))


def chains(dtype: torch.dtype, n: int, device: torch.device) -> Kernel:
    """CUDA alone: multiply-adds in registers, in a pointwise kernel that PyTorch compiles at run time.

    FLOPs per element: 2 for each multiply-add, 3 to begin the chains and 3 to add them up. RuntimeError where
    PyTorch has no such compiler, which is a beta feature.
    """
    try:
        from torch.cuda.jiterator import _create_jit_fn
    except ImportError as error:
        raise RuntimeError(str(error)) from None
    function: Any = _create_jit_fn(_CHAIN_SOURCE)
    x, y = (_random((n,), dtype, device, seed) for seed in (0, 1))
    work = (2 * _LOOPS * _UNROLLED * _CHAINS + 3 + 3) * n
    return Kernel(peak_dtype(str(dtype)), work, f"multiply-adds of {n:,} elements", lambda: function(x, y))


def stream(n: int, device: torch.device) -> Iterator[Kernel]:
    """McCalpin's STREAM on arrays of n float32, and a sum, which only reads.

    Bytes as the kernel asks for them: what a cache reads of a line before it is written is not counted.
    """
    a, b, c = (torch.full((n,), 1.0, device=device, dtype=torch.float32) for _ in range(3))
    each = f"arrays of {4 * n // 2**20:,} MiB"
    yield Kernel("copy", 2 * 4 * n, each, lambda: c.copy_(a))
    yield Kernel("scale", 2 * 4 * n, each, lambda: torch.mul(c, 3.0, out=b))
    yield Kernel("add", 3 * 4 * n, each, lambda: torch.add(a, b, out=c))
    yield Kernel("triad", 3 * 4 * n, each, lambda: torch.add(b, c, alpha=3.0, out=a))
    yield Kernel("read", 4 * n, each, lambda: torch.sum(a))


def launch(device: torch.device) -> Kernel:
    """The negation of one number in its place, called from Python, many times in a row."""
    one = torch.ones(1, device=device, dtype=torch.float32)
    return Kernel("throughput", 1, "neg_ of 1 element", one.neg_)


def latency(device: torch.device) -> Kernel:
    """The same on a device that the host waits for: launched, computed, and known to be done."""
    one = torch.ones(1, device=device, dtype=torch.float32)
    wait = torch.get_device_module(device).synchronize

    def call() -> None:
        one.neg_()
        wait()

    return Kernel("latency", 1, "neg_ of 1 element, and waiting for it", call)


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    if not dtype.is_floating_point:
        return torch.randint(-8, 8, shape, generator=generator, device=device, dtype=dtype)
    made = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    return made.to(dtype)
