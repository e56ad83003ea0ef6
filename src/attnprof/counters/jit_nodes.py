"""Which ops each node of a ``torch.jit`` trace runs, watched while it is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from attnprof.core.signature import OpSignature

#: Makes a value of an op call: called with the op, its arguments, keyword arguments and output.
Describe = Callable[[Any, Any, dict[str, Any], Any], OpSignature]

#: What a node is known by once the trace is done and its values have other names: its kind and scope, and sizes.
Key = tuple[Any, ...]

_TRACER = torch._C._dispatch_key_parse("Tracer")
_SCOPE = "prim::TracedModuleForward"
_FUNCTION = "prim::PythonOp"
_EDGES = ("prim::Param", "prim::Return")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the trace: ``aten::linear`` in the scope ``/model/model.h.0``."""

    kind: str
    scope: str
    key: Key


class NodeWatch(TorchDispatchMode):
    """Notes every op with the node that is being traced.

    The tracer puts a node at the end of the graph, then runs it. An op belongs to the last node that there is once it
    has run: a few ops, such as a convolution, reach a mode before the node of theirs is made.
    """

    def __init__(self, describe: Describe) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._describe = describe
        self._graph: Any = None
        self._live: list[Any] = []
        self._nodes: list[Node] = []
        self._inner: list[list[OpSignature]] = []

    @contextmanager
    def graph_of(self, state: Any) -> Iterator[None]:
        """Inside, the graph of this tracing state is what is watched."""
        self._graph = None if state is None else state.graph()
        try:
            yield
            # Now that they are complete, and before torch inlines them and drops those that nothing needs.
            self._nodes = [Node(_kind(node), node.scopeName(), key_of(node)) for node in self._live]
        finally:
            self._graph, self._live = None, []

    def calls(self) -> Iterator[tuple[Node, list[OpSignature]]]:
        """The nodes in which ops ran, in order, with the ops."""
        return zip(self._nodes, self._inner, strict=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._graph is None:
            return func(*args, **kwargs)
        if isinstance(func, OpOverload) and func.namespace != "prim":
            with self:  # inference_mode hands composites over whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        # Some ops, such as a convolution, are no node: one that they call is, and must still reach the tracer.
        with _tracer() if torch._C._get_tracing_state() is not None else nullcontext():
            out = func(*args, **kwargs)
        node = _last(self._graph)
        if node is not None:
            if not self._live or node is not self._live[-1]:
                self._live.append(node)
                self._inner.append([])
            self._inner[-1].append(self._describe(func, args, kwargs, out))
        return out


@contextmanager
def _tracer() -> Iterator[None]:
    """The tracer's dispatch key, which is off inside a handler, on again."""
    with torch._C._SetExcludeDispatchKeyGuard(_TRACER, False), torch._C._IncludeDispatchKeyGuard(_TRACER):
        yield


def key_of(node: Any) -> Key:
    """Kind, scope and sizes of a node."""
    inputs, outputs = (tuple(map(_sizes, values)) for values in (node.inputs(), node.outputs()))
    return _kind(node), node.scopeName(), inputs, outputs


def _kind(node: Any) -> str:
    kind: str = node.kind()
    return f"{kind}.{node.pyname()}" if kind == _FUNCTION else kind


def _sizes(value: Any) -> tuple[int, ...] | None:
    return tuple(value.type().sizes()) if value.isCompleteTensor() else None


def _last(graph: Any) -> Any:
    """The node that was put last into the graph, in the innermost module that is running; None in an empty one."""
    node = graph.return_node().prev()
    while node.kind() == _SCOPE:
        block = list(node.blocks())[-1]
        last = block.returnNode().prev()
        if last.kind() in _EDGES:
            break
        node = last
    return None if node.kind() in _EDGES else node
