"""Traces made by hand: a few modules, a few ops, every cost known."""

from __future__ import annotations

from attnprof.analysis.report import Report
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta, contiguous_stride
from attnprof.core.trace import OUTSIDE, ROOT, ModuleRecord, ParameterRecord, Scope, Trace


def tensor(*shape: int, ident: int = -1) -> TensorMeta:
    return TensorMeta(shape, contiguous_stride(shape), "float32", ident=ident)


def mm(m: int, k: int, n: int) -> OpSignature:
    """2 m k n matmul FLOPs; reads m k + k n elements of 4 bytes, writes m n."""
    args = (("self", tensor(m, k, ident=0)), ("mat2", tensor(k, n, ident=1)))
    return OpSignature("aten.mm.default", args, (tensor(m, n, ident=2),))


def unknown(name: str = "mylib.mystery.default", n: int = 25) -> OpSignature:
    """An op that nobody priced: reads and writes n elements of 4 bytes by the default rule."""
    return OpSignature(name, (("x", tensor(n, ident=0)),), (tensor(n, ident=1),))


class Hand:
    """A trace in the making: ``add`` modules by dotted name, ``ran`` ops in them."""

    def __init__(self, class_name: str = "Net") -> None:
        self.trace = Trace([], [], [], [], [])
        self.trace.modules += [
            ModuleRecord("", class_name, None, calls={("float32[4,8]",): 1} if class_name else {}),
            ModuleRecord("(outside)", "", ROOT),
            ModuleRecord("(optimizer)", "", ROOT),
        ]

    def add(
        self,
        fqn: str,
        class_name: str = "Linear",
        calls: int = 1,
        params: dict[int, int] | None = None,
        aliases: tuple[str, ...] = (),
    ) -> Hand:
        parent = self.index(fqn.rpartition(".")[0])
        record = ModuleRecord(fqn, class_name, parent, aliases)
        record.parameters = tuple(
            ParameterRecord(f"p{ident}", (n,), "float32", True, ident) for ident, n in (params or {}).items()
        )
        record.calls = {("float32[4,8]",): calls} if calls else {}
        self.trace.modules.append(record)
        return self

    def ran(self, fqn: str | None, op: OpSignature, phase: str = "forward", times: int = 1) -> Hand:
        scope = Scope(OUTSIDE if fqn is None else self.index(fqn), phase)
        if scope not in self.trace.scopes:
            self.trace.scopes.append(scope)
        if op not in self.trace.signatures:
            self.trace.signatures.append(op)
        self.trace.event_signatures += [self.trace.signatures.index(op)] * times
        self.trace.event_scopes += [self.trace.scopes.index(scope)] * times
        return self

    def index(self, fqn: str) -> int:
        return next(i for i, record in enumerate(self.trace.modules) if record.fqn == fqn)

    def report(self) -> Report:
        return Report(self.trace)


def stack(layers: int = 3, extra: int = 0) -> Hand:
    """``embed``, ``h`` with equal layers of two Linears each, and a head whose weight is embed's."""
    hand = Hand().add("embed", "Embedding", params={0: 800}).add("h", "ModuleList", calls=0)
    for i in range(layers):
        hand.add(f"h.{i}", "Block")
        for j, name in enumerate(("up", "down")):
            hand.add(f"h.{i}.{name}", params={1 + 2 * i + j: 128})
            hand.ran(f"h.{i}.{name}", mm(4, 8, 16)).ran(f"h.{i}.{name}", mm(8, 4, 16), "backward", times=2)
        for _ in range(extra if i == layers - 1 else 0):
            hand.ran(f"h.{i}", mm(4, 8, 16))
    return hand.add("head", params={0: 800}).ran("head", mm(4, 8, 100)).ran("head", mm(4, 100, 8), "backward")
