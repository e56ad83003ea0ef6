"""What attnprof measures of a mechanism, once for every set of sizes."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree

import attnprof
from attnprof import zoo


class Measured(NamedTuple):
    """One call and its backward. FLOPs are matmul FLOPs but for ``vector``, those of the forward.

    ``core``: FLOPs of the forward in batched products, which in attention written out are scores and weighted sum.
    ``traffic``: bytes of the forward.
    """

    forward: int
    backward: int
    recompute: int
    vector: int
    core: int
    traffic: int
    saved: int
    parameters: int
    trainable: int

    @property
    def step(self) -> int:
        return self.forward + self.backward


@cache
def measured(name: str, T: int, B: int = 1, backward: bool = True, input_grad: bool = True, **symbols: Any) -> Measured:
    """A mechanism of the zoo on fake tensors: what is counted depends on shapes alone."""
    shape = zoo.find(name).shape
    lengths = {"S": T} if shape["T"] == 1 else {"T": T}
    with attnprof.fake_tensors():
        net = zoo.build(name, **symbols)
        args = zoo.inputs(name, **symbols, B=B, **lengths)
    return of(net, args, backward, input_grad, fake=True)


@cache
def experts(n: int, d: int, E: int, k: int, backward: bool = False) -> Measured:
    """A mixture of experts of width 4 d on real tensors: its router looks at values."""
    torch.manual_seed(0)
    return of(zoo.build("moe", d=d, f=4 * d, E=E, k=k), (torch.randn(1, n, d),), backward)


def of(
    net: torch.nn.Module,
    args: tuple[Any, ...],
    backward: bool = True,
    input_grad: bool = True,
    fake: bool = False,
    **options: Any,
) -> Measured:
    """Any module. With ``input_grad`` every floating input needs a gradient, as inside a model."""
    if input_grad:
        args = _pytree.tree_map_only(Tensor, lambda t: t.requires_grad_() if t.is_floating_point() else t, args)
    report = attnprof.run(net, args, backward=backward, fake=fake, strict=True, **options)
    assert report.memory is not None
    forward = report.phases["forward"]
    batched = report.by_operator("forward").get("aten.bmm.default")
    return Measured(
        forward.matmul_flops,
        report.phases["backward"].matmul_flops,
        report.phases["recompute"].matmul_flops,
        forward.vector_flops,
        0 if batched is None else batched.matmul_flops,
        forward.bytes,
        report.memory.saved_bytes,
        sum(p.numel() for p in net.parameters()),
        sum(p.numel() for p in net.parameters() if p.requires_grad),
    )


@cache
def states(name: str, d: int, dtype: str = "fp16", **symbols: Any) -> dict[str, int]:
    """Bytes of parameters, gradients and Adam's moments after a step (its step counters left out)."""
    with attnprof.fake_tensors():
        net, args = zoo.build(name, d=d, **symbols), zoo.inputs(name, d=d, **symbols, T=2)
    report = attnprof.run(net, args, optimizer="adam", plan=attnprof.Plan(dtype=dtype), fake=True)
    memory = report.memory
    assert memory is not None
    adam = sum(size for state, size in memory.optimizer_states.items() if state != "step")
    return {"parameters": memory.parameter_bytes, "gradients": memory.gradient_bytes, "adam": adam}
