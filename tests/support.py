"""What tests share: the signatures a piece of code makes, seen through a bare dispatch mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from attnprof.capture.signatures import Signatures
from attnprof.core.cost import Cost
from attnprof.core.signature import OpSignature
from attnprof.costs.pricing import price


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.signatures = Signatures()
        self.calls: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append(self.signatures.id_of(self.signatures.plan(func), args, kwargs, out))
        return out


def ops_of(run: Callable[[], Any]) -> list[OpSignature]:
    """The op calls that ``run()`` makes, in order (composites arrive decomposed unless in inference_mode)."""
    recorder = _Recorder()
    with recorder:
        run()
    return [recorder.signatures.known[i] for i in recorder.calls]


def only_op(run: Callable[[], Any], name: str) -> OpSignature:
    """The one call of ``name`` (an overload or a packet) that ``run()`` makes."""
    found = [op for op in ops_of(run) if name in (op.op, op.packet)]
    assert len(found) == 1, f"{name} ran {len(found)} times: {[op.op for op in ops_of(run)]}"
    return found[0]


def cost_of(run: Callable[[], Any], name: str) -> Cost:
    """The cost of the one call of ``name`` that ``run()`` makes."""
    priced = price(only_op(run, name))
    assert priced.status == "priced", f"{name} is {priced.status}"
    return priced.cost


def traffic_of(run: Callable[[], Any], name: str) -> tuple[int, int]:
    """(bytes read, bytes written) by the one call of ``name`` that ``run()`` makes."""
    cost = cost_of(run, name)
    return cost.read_bytes, cost.write_bytes
