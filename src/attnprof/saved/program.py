"""An exported program as modules: those that it was exported from, each running its own part of the graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from attnprof.core.errors import AttnprofError
from attnprof.saved.forwards import taking_as
from attnprof.saved.segments import Cut, Segment, cut
from attnprof.saved.taking import Taking


class Part(nn.Module):
    """A module of an exported program: its parameters, and the segments of the graph that are calls of it."""

    def forward(self, run: _Run, segment: Segment, *values: Any) -> Any:
        outputs = run.segment(segment, values)
        return outputs[0] if len(outputs) == 1 else outputs


class Program(nn.Module):
    """A ``torch.export`` program that runs as the modules it was exported from.

    Takes what the program takes, and returns what it returns. Each call of a module in it is a call of a module
    here, with the original name and class. Raises :class:`AttnprofError` for arguments that the program is not for.
    """

    def __init__(self, exported: ExportedProgram) -> None:
        super().__init__()
        graph_module = exported.module(check_guards=False)
        self._attnprof_cut = cut(graph_module)
        self._attnprof_graph_module = (graph_module,)  # in a tuple: its modules are not to be counted beside those here
        self._attnprof_statistics = frozenset(_statistics(graph_module))
        self._attnprof_taking = Taking.of(exported)
        self._attnprof_out_spec = exported.call_spec.out_spec
        for entry in exported.module_call_graph:  # in the model's own order
            self._attnprof_part(entry.fqn.partition("@")[0])
        for path in self._attnprof_cut.classes:
            self._attnprof_part(path)
        self._attnprof_places: dict[
            str, tuple[str, str]
        ] = {}  # of a tensor in the graph: its module's path, its name there
        _add_tensors(self, exported, graph_module)
        self.__class__ = cast(
            Any, taking_as(_class(self._attnprof_cut.classes.get("", ""), Program), self._attnprof_taking.signature())
        )
        for module in self.modules():
            module.training = _is_training(graph_module)

    def train(self, mode: bool = True) -> Program:
        """Refused: what dropout and normalization do was decided when the program was exported."""
        raise AttnprofError(
            "a torch.export program stays in the mode it was exported in: leave out --train "
            "and --eval, or call train() or eval() on the model before torch.export.export."
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = self._attnprof_taking.flat(args, kwargs)
        run = _Run(self, self._attnprof_cut, self._attnprof_graph_module[0])
        results = run.results(values)
        spec = self._attnprof_out_spec
        known = spec is not None and spec.num_leaves == len(results)  # a program with gradients among its results: no
        return pytree.tree_unflatten(results, spec) if spec is not None and known else tuple(results)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        """A program with tensors of its own, and the same graph."""
        for name in ("cut", "graph_module", "statistics", "taking", "out_spec"):
            shared = getattr(self, f"_attnprof_{name}")
            memo[id(shared)] = shared
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def _attnprof_part(self, path: str) -> nn.Module:
        """The module at a path, made with those above it where they are not there yet."""
        module: nn.Module = self
        walked = ""
        for name in path.split(".") if path else ():
            walked = f"{walked}.{name}" if walked else name
            if name not in module._modules:
                known = self._attnprof_cut.classes.get(walked)
                # one that was never called only holds others: when those have numbers, as a list does
                listed = known is None and any(path.startswith(f"{walked}.0") for path in self._attnprof_cut.classes)
                module.add_module(name, nn.ModuleList() if listed else _part_class(known or "")())
            module = module._modules[name]  # type: ignore[assignment]
        return module


class _Run:
    """One call of a program."""

    def __init__(self, program: Program, graph: Cut, owner: fx.GraphModule) -> None:
        self._program, self._cut, self._owner = program, graph, owner

    def results(self, values: Sequence[Any]) -> list[Any]:
        known = dict(zip(self._cut.placeholders, values, strict=True))
        needed: list[fx.Node] = []
        fx.node.map_arg(self._cut.results, needed.append)
        del values
        self._items(self._cut.body, known)
        return list(fx.node.map_arg(self._cut.results, lambda node: self._value(node, known)))

    def segment(self, segment: Segment, values: Sequence[Any]) -> tuple[Any, ...]:
        known = dict(zip(segment.inputs, values, strict=True))
        del values
        with segment.context() if segment.context else nullcontext():
            self._items(segment, known)
        return tuple(known[node] for node in segment.outputs)

    def _items(self, segment: Segment, known: dict[fx.Node, Any]) -> None:
        for position, item in enumerate(segment.items):
            if isinstance(item, Segment):
                values = [known[node] for node in item.inputs]
                if item.context is not None:
                    outputs = self.segment(item, values)
                else:
                    made = self._program._attnprof_part(item.path)(self, item, *values)
                    outputs = (made,) if len(item.outputs) == 1 else made
                known.update(zip(item.outputs, outputs, strict=True))
                del values, outputs
            else:
                args = fx.node.map_arg(item.args, lambda node: self._value(node, known))
                kwargs = fx.node.map_arg(item.kwargs, lambda node: self._value(node, known))
                with _unseen(cast(Tensor, args[0])) if item in self._program._attnprof_statistics else nullcontext():
                    known[item] = item.target(*args, **kwargs)  # type: ignore[operator]
                del args, kwargs
            for node in segment.last_uses[position]:
                known.pop(node, None)

    def _value(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        found: Any = node
        while isinstance(found, fx.Node) and found in self._cut.same:
            found = self._cut.same[found]
        if not isinstance(found, fx.Node):
            return found
        if found.op != "get_attr":
            return known[found]
        place = self._program._attnprof_places.get(str(found.target))
        if place is not None:
            return getattr(self._program._attnprof_part(place[0]), place[1])
        return _attribute(found.meta.get("attnprof_owner", self._owner), str(found.target))


def _statistics(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    """The copies that write running statistics back, which a decomposed batch normalization in training has computed.

    Its backward does not look at what they were before: it has the statistics of the batch.
    """
    normalize = torch.ops.aten._native_batch_norm_legit_functional.default
    for node in graph_module.graph.nodes:
        if node.target is torch.ops.aten.copy_.default and isinstance(node.args[0], fx.Node):
            others = [user for user in node.args[0].users if user is not node]
            if others and all(
                u.target is normalize and u.args[5] is True and node.args[0] in u.args[3:5] for u in others
            ):
                yield node


def _unseen(tensor: Tensor) -> AbstractContextManager[Any]:
    """Inside, autograd takes no notice that a tensor is written to, as where normalization itself writes."""
    autograd: Any = torch.autograd  # its stubs do not have this
    return cast("AbstractContextManager[Any]", autograd._unsafe_preserve_version_counter(tensor))


def _is_training(graph_module: fx.GraphModule) -> bool:
    """Whether an op of the graph was told to train: dropout, batch normalization, recurrent networks."""
    for part in graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            schema = getattr(node.target, "_schema", None)
            for position, argument in enumerate(schema.arguments if schema is not None else ()):
                if argument.name in ("train", "training"):
                    given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
                    if given is True:
                        return True
    return False


def _attribute(owner: Any, target: str) -> Any:
    for name in target.split("."):
        owner = getattr(owner, name)
    return owner


def _add_tensors(program: Program, exported: ExportedProgram, graph_module: fx.GraphModule) -> None:
    """Give the modules their parameters and buffers, under the names they had; those that were one are one again."""
    tied: dict[Any, Tensor] = {}
    constants = {
        spec.target
        for spec in exported.graph_signature.input_specs
        if spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    }
    tensors: dict[str, Any] = {**exported.state_dict}
    for target in constants:
        if target is not None and target not in tensors and isinstance(exported.constants.get(target), Tensor):
            tensors[target] = exported.constants[target]
    for target, tensor in tensors.items():
        path, _, name = target.rpartition(".")
        module = program._attnprof_part(path)
        tensor = tied.setdefault(_identity(tensor), tensor)
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor, persistent=target in exported.state_dict)
        program._attnprof_places[target] = (path, name)


def _identity(tensor: Tensor) -> Any:
    """Equal for tensors that are the same one: a file keeps the storage that tied weights share, but not the tie."""
    if tensor.layout is not torch.strided or tensor.numel() == 0 or type(tensor) not in (Tensor, nn.Parameter):
        return id(tensor)
    where = (tensor.device, tensor.data_ptr(), tensor.storage_offset())
    return (*where, tensor.dtype, tuple(tensor.shape), tensor.stride(), isinstance(tensor, nn.Parameter))


@cache
def _part_class(full_name: str) -> type[nn.Module]:
    """One class for all modules of one class: what looks for repeated layers finds them."""
    return _class(full_name, Part)


def _class(full_name: str, base: type[nn.Module]) -> type[nn.Module]:
    """A class with the name of the one that a module had, defined where that was."""
    home, _, name = full_name.rpartition(".")
    if not name:
        name, home = ("ExportedProgram", "torch.export") if base is Program else ("Module", "torch.nn.modules.module")
    return type(name, (base,), {"__module__": home})
