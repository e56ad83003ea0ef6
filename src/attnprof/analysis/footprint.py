"""What perfect fusion of a module would move: its parameters, inputs and outputs, each once per call.

A forward reads its parameters and inputs and writes its outputs. A backward reads the parameters, the inputs again and
the gradients of the outputs, and writes the gradients of the inputs and parameters that need one: what lies between
could be computed again on the way. Buffers are left out, as traces do not list them; so is what a module reads that it
was not given. A parameter counts once per call, however often it is used in it, and

- not in calls in which its module did not run: an expert counts as often as it was called;
- with no more than the ops of its module read, all its parameters together: of an embedding, the rows that were
  selected.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from attnprof.analysis.tree import ModuleNode
from attnprof.core.tensor import width

#: The phases in which modules are called; what runs in others is never fused.
CALLED_IN = ("forward", "backward", "recompute")


def calls_in(node: ModuleNode, phase: str) -> int:
    """How often a module was called in a phase: in ``backward``, the calls that a backward went through."""
    if phase == "forward":
        return node.record.call_count
    if phase == "recompute":
        return node.record.recomputed_calls
    return sum(count for call, count in node.record.call_kinds.items() if call.backward)


def is_called(node: ModuleNode) -> bool:
    return bool(node.record.call_count or node.record.recomputed_calls)


def footprint(node: ModuleNode, phase: str) -> int | None:
    """The bytes of all calls of a module in a phase; None where some inputs or outputs are not known."""
    calls = calls_in(node, phase)
    moved = node.record.call_bytes.get(phase)
    if not calls or moved is None:
        return None
    if phase == "forward" and "cache" not in node.record.call_bytes:
        cached = _cached(node)
        if cached is None:
            return None
        moved += cached
    sizes: dict[int, int] = {}
    for ident, size in _parameters(node, phase, calls):
        sizes[ident] = max(sizes.get(ident, 0), size)  # shared ones count once
    return moved + sum(sizes.values())


def _cached(node: ModuleNode) -> int | None:
    """The bytes in the layers of a key-value cache that the modules below moved."""
    total = 0
    for child in node.children:
        found = child.record.call_bytes.get("cache", 0)
        if "cache" not in child.record.call_bytes:
            found = _cached(child)
        if found is None:
            return None
        total += found
    return total


def _parameters(node: ModuleNode, phase: str, calls: int) -> Iterator[tuple[int, int]]:
    """Each parameter of a module and of those below (its ident), and the bytes moved of it in so many calls."""
    left = node.own(phase).read_bytes
    is_bounded = bool(left)  # else others use its parameters
    for parameter in node.record.parameters:
        size = prod(parameter.shape) * width(parameter.dtype) * calls
        read = min(size, left) if is_bounded else size
        left -= read
        yield parameter.ident, read + (size if phase == "backward" and parameter.trainable else 0)
    for child in node.children:
        if times := _times(child, node, phase, calls):
            yield from _parameters(child, phase, times)


def _times(child: ModuleNode, parent: ModuleNode, phase: str, calls: int) -> int:
    """In how many of the calls of its parent a module ran.

    One that was never called is taken to be used directly (by a fused op, or as a list), unless one of its class
    beside it was called.
    """
    if found := calls_in(child, phase):
        return min(found, calls)
    alike = (other for other in parent.children if other.class_name == child.class_name)  # itself among them
    return 0 if any(map(is_called, alike)) else calls
