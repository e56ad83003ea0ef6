"""The time of a run in which every module is one perfect kernel: the roofline of its FLOPs on its footprint.

What no module's call ran (a loss, the optimizer) is not fused: it takes the time of its ops, and its traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnprof.analysis.footprint import CALLED_IN, calls_in, footprint, is_called
from attnprof.analysis.roofline_clock import Clock
from attnprof.analysis.tree import ModuleNode


@dataclass(frozen=True, slots=True)
class Fused:
    """Bytes and ticks of some work when it is fused, or None where they are not known."""

    bytes: int | None = 0
    ticks: int | None = 0

    def __add__(self, other: Fused) -> Fused:
        return Fused(_sum(self.bytes, other.bytes), _sum(self.ticks, other.ticks))


@dataclass(frozen=True, slots=True)
class Amount:
    """Work as it is: bytes of traffic, ticks of arithmetic alone, and ticks op by op."""

    bytes: int = 0
    arithmetic: int = 0
    ticks: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.bytes + other.bytes, self.arithmetic + other.arithmetic, self.ticks + other.ticks)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.bytes - other.bytes, self.arithmetic - other.arithmetic, self.ticks - other.ticks)


_NO_WORK = Amount()
_Amounts = Mapping[str, Amount]  # by phase


def fuse(nodes: Sequence[ModuleNode], own: Sequence[_Amounts], clock: Clock) -> list[dict[str, Fused]]:
    """Each module with what is below it, by phase.

    ``nodes`` are in the order of the tree, and ``own`` is what each ran itself.
    """
    position = {id(node): index for index, node in enumerate(nodes)}
    inclusive = [dict(amounts) for amounts in own]
    found: list[dict[str, Fused]] = [{} for _ in nodes]
    for index in reversed(range(len(nodes))):  # what is below a module comes after it
        node = nodes[index]
        for child in node.children:
            for phase, amount in inclusive[position[id(child)]].items():
                inclusive[index][phase] = inclusive[index].get(phase, _NO_WORK) + amount
        beside = [position[id(child)] for child in node.children if not is_called(node) or _is_beside(node, child)]
        for phase in inclusive[index]:
            if is_called(node):
                within = {
                    p: amount - sum((inclusive[child].get(p, _NO_WORK) for child in beside), _NO_WORK)
                    for p, amount in inclusive[index].items()
                }
                part = _called(node, phase, within, clock)
            else:
                amount = own[index].get(phase, _NO_WORK)
                part = Fused(amount.bytes, amount.ticks)
            found[index][phase] = sum((found[child].get(phase, Fused()) for child in beside), part)
    return found


def _is_beside(node: ModuleNode, child: ModuleNode) -> bool:
    """Whether a child of the root ran outside its calls: what no module ran, and modules that are no part of it.

    The names of both are in brackets.
    """
    return node.fqn == "" and child.fqn.startswith("(")


def _called(node: ModuleNode, phase: str, within: _Amounts, clock: Clock) -> Fused:
    """What the calls of a module amount to, which is never more than op by op: what is only passed on is not moved."""
    work = within[phase]
    if phase not in CALLED_IN or not work.ticks + work.bytes + work.arithmetic:
        return Fused(work.bytes, work.ticks)
    if phase == "recompute" and not calls_in(node, phase):  # a fused attention backward, which rebuilds the scores
        return _rebuilt(node, within, clock)
    size = footprint(node, phase)
    if size is None:
        return Fused(None, None)
    size = min(size, work.bytes)
    return Fused(size, min(_time(node, phase, size, work.arithmetic, clock), work.ticks))


def _rebuilt(node: ModuleNode, within: _Amounts, clock: Clock) -> Fused:
    """What rebuilding adds to the time of the backward; it moves nothing."""
    backward, again = within.get("backward", _NO_WORK), within["recompute"]
    size = footprint(node, "backward")
    if size is None:
        return Fused(None, None)
    size = min(size, backward.bytes)
    without = _time(node, "backward", size, backward.arithmetic, clock)
    whole = _time(node, "backward", size, backward.arithmetic + again.arithmetic, clock)
    return Fused(0, min(whole - without, again.ticks))


def _time(node: ModuleNode, phase: str, size: int, arithmetic: int, clock: Clock) -> int:
    return max(arithmetic, clock.traffic(size), clock.launches(calls_in(node, phase)))


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
