"""The graph of an exported program, cut into the calls of modules that its nodes came from.

Each node of an exported graph says in which modules' forwards it was recorded (its ``nn_module_stack``). Nodes that
follow each other in one call of a module make a segment; segments are nested as the calls were.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

#: What tells one call from another, outermost first: a name and number of each module on the way. The root is ().
Stack = tuple[str, ...]
#: In a program, what makes the context in which a region of it ran: gradients off, autocast on or off.
Context = Callable[[], AbstractContextManager[Any]]


@dataclass
class Segment:
    """A piece of the graph that runs as one: one call of the module at ``path``, or a region in a ``context``.

    ``inputs`` are the nodes that it takes from before it, ``outputs`` those that are needed after it.
    """

    path: str
    context: Context | None = None
    items: list[fx.Node | Segment] = field(default_factory=list)
    inputs: tuple[fx.Node, ...] = ()
    outputs: tuple[fx.Node, ...] = ()
    last_uses: dict[int, tuple[fx.Node, ...]] = field(default_factory=dict)  # after which item values may go


@dataclass
class Cut:
    """A whole graph cut into segments: what it takes, its body, what it gives, and the classes by module path."""

    placeholders: tuple[fx.Node, ...]
    body: Segment
    results: Sequence[Any]
    classes: Mapping[str, str]
    same: Mapping[fx.Node, Any]  # nodes that are only another name of a value


def cut(graph_module: fx.GraphModule) -> Cut:
    """Cut the graph of ``ExportedProgram.module()``."""
    cutting = _Cutting(graph_module)
    body = Segment("")
    cutting.fill(_Open(body, ()), graph_module.graph.nodes)
    results = next(node for node in graph_module.graph.nodes if node.op == "output").args[0]
    placeholders = tuple(node for node in graph_module.graph.nodes if node.op == "placeholder")
    results = fx.node.map_arg(results, cutting.value)
    _connect(body, set(_nodes_in(results)), cutting.uses)
    body.inputs = placeholders
    _free(body, cutting.uses, {*_nodes_in(results)})
    return Cut(placeholders, body, results, cutting.classes, cutting.same)


@dataclass
class _Open:
    """Segments that are open while nodes are put into them: that of a graph or region, and calls inside it."""

    base: Segment
    stack: Stack  # of the base
    calls: list[tuple[str, Segment]] = field(default_factory=list)

    def segment(self, keys: Sequence[tuple[str, str]]) -> Segment:
        """The segment of a node with these (key, path) below the base: calls that are over end, new ones begin."""
        common = 0
        while common < min(len(keys), len(self.calls)) and keys[common][0] == self.calls[common][0]:
            common += 1
        del self.calls[common:]
        for key, path in keys[common:]:
            new = Segment(path)
            self.innermost.items.append(new)
            self.calls.append((key, new))
        return self.innermost

    @property
    def innermost(self) -> Segment:
        return self.calls[-1][1] if self.calls else self.base


class _Cutting:
    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.root = graph_module
        self.classes: dict[str, str] = {}
        self.same: dict[fx.Node, Any] = {}
        self._paths: dict[str, str] = {}  # of a module's key, the first path that it was called by

    def value(self, node: fx.Node) -> Any:
        """The node that a node is another name of; itself, for most."""
        while isinstance(node, fx.Node) and node in self.same:
            node = self.same[node]
        return node

    def uses(self, node: fx.Node) -> list[fx.Node]:
        """What a node takes: neither weights nor subgraphs, which are looked up."""
        found = (self.value(used) for used in node.all_input_nodes)
        return [used for used in _nodes_in(list(found)) if used.op != "get_attr"]

    def fill(self, into: _Open, nodes: Sequence[fx.Node] | fx.graph._node_list) -> None:
        for node in nodes:
            if node.op in ("placeholder", "get_attr", "output"):
                continue
            inner = self._region(node)
            if inner is not None:
                self._fill_region(into, node, *inner)
            elif not self._is_another_name(node):
                self._segment_of(into, node).items.append(node)

    def _segment_of(self, into: _Open, node: fx.Node) -> Segment:
        keys = self._keys(node)
        if keys is None:  # from no module: what torch put in. Picking an output apart leaves no call.
            return into.innermost if node.target is operator.getitem else into.segment(())
        return into.segment(keys[len(into.stack) :])

    def _keys(self, node: fx.Node) -> list[tuple[str, str]] | None:
        """(key of the call, path of the module) for each module that a node was recorded in, below the root."""
        stack = node.meta.get("nn_module_stack")
        if not stack:
            return None
        found = []
        for key, (path, kind) in stack.items():
            if key.startswith("_empty_nn_module_stack"):  # what stands in for none
                return None
            name, _, _ = path.partition("@")
            name = self._paths.setdefault(key.partition("@")[0], name)
            self.classes.setdefault(name, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}")
            if name:
                found.append((f"{key} {path}", name))
        return found

    def _region(self, node: fx.Node) -> tuple[Context, fx.GraphModule, Sequence[Any]] | None:
        """Of a node that runs a subgraph in a context: the context, the subgraph, and what the latter takes."""
        if node.op != "call_function" or any(user.target is not operator.getitem for user in node.users):
            return None
        higher_order = torch.ops.higher_order
        count = 1 if node.target is higher_order.wrap_with_set_grad_enabled else 4
        if count == 4 and node.target is not higher_order.wrap_with_autocast:
            return None
        settings, subgraph, values = node.args[:count], node.args[count], node.args[count + 1 :]
        if node.kwargs or not isinstance(subgraph, fx.Node) or subgraph.op != "get_attr":
            return None
        inner = self.root.get_submodule(str(subgraph.target))
        if not isinstance(inner, fx.GraphModule):
            return None
        return _context(settings), inner, values

    def _fill_region(
        self, into: _Open, node: fx.Node, context: Context, inner: fx.GraphModule, values: Sequence[Any]
    ) -> None:
        placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
        self.same.update(zip(placeholders, values, strict=True))
        for n in inner.graph.nodes:
            if n.op == "get_attr" and n not in self.same:
                n.meta["attnprof_owner"] = inner
        stacks = [keys for n in inner.graph.nodes if (keys := self._keys(n)) is not None]
        shared = _common(stacks)
        outer = into.segment(shared[len(into.stack) :])
        region = Segment(outer.path, context)
        outer.items.append(region)
        self.fill(_Open(region, tuple(key for key, _ in shared)), inner.graph.nodes)
        results = next(n for n in inner.graph.nodes if n.op == "output").args[0]
        for user in node.users:
            self.same[user] = results[user.args[1]]

    def _is_another_name(self, node: fx.Node) -> bool:
        """Whether a node picks from a region what is known by its own name already."""
        return node in self.same


def _context(settings: Sequence[Any]) -> Context:
    if len(settings) == 1:
        return lambda: torch.set_grad_enabled(settings[0])
    device, dtype, enabled, cached = settings
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cached)


def _common(stacks: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The modules that all of some nodes were recorded in."""
    found = []
    for keys in zip(*stacks, strict=False):
        if any(key != keys[0] for key in keys):
            break
        found.append(keys[0])
    return found


def _nodes_in(value: Any) -> Iterator[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(value, found.append)
    yield from dict.fromkeys(found)


def _connect(segment: Segment, after: set[fx.Node], uses: Callable[[fx.Node], list[fx.Node]]) -> None:
    """Find what each segment takes and gives; ``after`` are the nodes that are needed once it is over."""
    needed = set(after)
    for item in reversed(segment.items):
        if isinstance(item, Segment):
            _connect(item, needed, uses)
            needed.difference_update(item.outputs)
            needed.update(item.inputs)
        else:
            needed.discard(item)
            needed.update(uses(item))
    made = dict.fromkeys(_made(segment))
    segment.outputs = tuple(node for node in made if node in after)
    segment.inputs = _in_order_of_use(segment, made, uses)


def _made(segment: Segment) -> Iterator[fx.Node]:
    for item in segment.items:
        if isinstance(item, Segment):
            yield from item.outputs
        else:
            yield item


def _in_order_of_use(
    segment: Segment, made: Mapping[fx.Node, None], uses: Callable[[fx.Node], list[fx.Node]]
) -> tuple[fx.Node, ...]:
    taken: dict[fx.Node, None] = {}
    for item in segment.items:
        for node in item.inputs if isinstance(item, Segment) else uses(item):
            if node not in made:
                taken[node] = None
    return tuple(taken)


def _free(segment: Segment, uses: Callable[[fx.Node], list[fx.Node]], kept: Set[fx.Node] = frozenset()) -> None:
    """Find after which item each value is needed no longer, so that memory is let go as in the model's own code."""
    seen = {*segment.outputs, *kept}
    for position in range(len(segment.items) - 1, -1, -1):
        item = segment.items[position]
        if isinstance(item, Segment):
            _free(item, uses)
            known = (*item.inputs, *item.outputs)
        else:
            known = (item, *uses(item))
        segment.last_uses[position] = tuple(node for node in dict.fromkeys(known) if node not in seen)
        seen.update(known)
