"""The graph of a TorchScript method, run node by node: the ops that it states, before the JIT fuses any.

TorchScript runs in C++, where no module call can be seen. Its graphs, however, say which submodule each call is of.
What they are made of is small: constants, attributes, calls, containers, conditions and loops; all else are ops.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

#: Nodes that are not ops and have a meaning of their own below.
_STRUCTURE = {
    *("prim::Constant", "prim::GetAttr", "prim::SetAttr", "prim::CallMethod", "prim::CallFunction", "prim::If"),
    *("prim::Loop", "prim::TupleConstruct", "prim::ListConstruct", "prim::DictConstruct", "prim::TupleUnpack"),
    *("prim::ListUnpack", "prim::TupleIndex", "prim::unchecked_cast", "prim::unchecked_unwrap_optional"),
    *("prim::Uninitialized", "prim::RaiseException", "prim::Print"),
}


class Owner(Protocol):
    """The module that a method is of, as its graph sees it."""

    def _attnprof_attribute(self, name: str) -> Any: ...
    def _attnprof_set_attribute(self, name: str, value: Any) -> None: ...
    def _attnprof_call(self, method: str, *args: Any) -> Any: ...
    def _attnprof_call_function(self, name: str, args: Sequence[Any]) -> Any: ...


def nodes(block: Any) -> Iterator[Any]:
    """Every node of a graph or block, those in its conditions and loops included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes(inner)


def can_run(graph: Any, has_function: Callable[[str], bool]) -> bool:
    """Whether each node of a graph has a meaning here: no objects, exceptions caught, asynchronous calls."""
    modules = {value.debugName() for value in graph.inputs() if _is_object(value)}
    for node in nodes(graph):
        kind = node.kind()
        first: Any = next(iter(node.inputs()), None)
        if kind == "prim::GetAttr":
            if first.debugName() not in modules:
                return False
            if _is_object(node.output()):
                modules.add(node.output().debugName())
        elif kind in ("prim::SetAttr", "prim::CallMethod"):
            if first.debugName() not in modules:
                return False
        elif kind == "prim::CallFunction":
            if not has_function(first.type().annotation_str):
                return False
        elif kind not in _STRUCTURE and operation(node.schema()) is None:
            return False
        if kind != "prim::GetAttr" and any(_is_object(value) for value in node.outputs()):
            return False
    return True


def run(graph: Any, owner: Owner, args: Sequence[Any]) -> Any:
    """What a method returns for these arguments, the owner first among its inputs."""
    inputs = [value.debugName() for value in graph.inputs()]
    known: dict[str, Any] = dict(zip(inputs, (owner, *args), strict=True))
    _run_block(graph, known)
    results = [known[value.debugName()] for value in graph.outputs()]
    return results[0] if len(results) == 1 else tuple(results)


def run_function(graph: Any, owner: Owner, args: Sequence[Any]) -> Any:
    """The same of a function, which is of no module; ``owner`` knows the other functions."""
    known: dict[str, Any] = {value.debugName(): given for value, given in zip(graph.inputs(), args, strict=True)}
    known[_OWNER] = owner
    _run_block(graph, known)
    results = [known[value.debugName()] for value in graph.outputs()]
    return results[0] if len(results) == 1 else tuple(results)


_OWNER = " owner"  # no name of a value has a space


def _run_block(block: Any, known: dict[str, Any]) -> None:
    for node in block.nodes():
        kind = node.kind()
        if kind == "prim::Constant":
            _constant(node, known)
            continue
        values = [known[value.debugName()] for value in node.inputs()]
        outputs = [value.debugName() for value in node.outputs()]
        if kind == "prim::If":
            inner = list(node.blocks())[0 if values[0] else 1]
            _run_block(inner, known)
            found = [known[value.debugName()] for value in inner.outputs()]
        elif kind == "prim::Loop":
            found = _loop(node, values, known)
        else:
            result = _result(kind, node, values, known)
            found = [result] if len(outputs) == 1 else list(result or ())
        known.update(zip(outputs, found, strict=True))


def _constant(node: Any, known: dict[str, Any]) -> None:
    value = node.output()
    known[value.debugName()] = value.type().annotation_str if _is_function(value) else value.toIValue()


def _loop(node: Any, values: list[Any], known: dict[str, Any]) -> list[Any]:
    most, goes_on, *carried = values
    body = next(iter(node.blocks()))
    names = [value.debugName() for value in body.inputs()]
    count = 0
    while goes_on and count < most:
        known.update(zip(names, (count, *carried), strict=True))
        _run_block(body, known)
        goes_on, *carried = (known[value.debugName()] for value in body.outputs())
        count += 1
    return carried


def _result(kind: str, node: Any, values: list[Any], known: dict[str, Any]) -> Any:
    match kind:
        case "prim::GetAttr":
            return values[0]._attnprof_attribute(node.s("name"))
        case "prim::SetAttr":
            return values[0]._attnprof_set_attribute(node.s("name"), values[1])
        case "prim::CallMethod":
            return values[0]._attnprof_call(node.s("name"), *values[1:])
        case "prim::CallFunction":
            owner = known.get(_OWNER) or next(iter(known.values()))
            return owner._attnprof_call_function(values[0], values[1:])
        case "prim::TupleConstruct":
            return tuple(values)
        case "prim::ListConstruct":
            return values
        case "prim::DictConstruct":
            return dict(zip(values[::2], values[1::2], strict=True))
        case "prim::TupleUnpack" | "prim::ListUnpack":
            return list(values[0])
        case "prim::TupleIndex":
            return values[0][values[1]]
        case "prim::unchecked_cast" | "prim::unchecked_unwrap_optional":
            return values[0]
        case "prim::Uninitialized" | "prim::Print":
            return None
        case "prim::RaiseException":
            raise RuntimeError(f"the model raised: {values[0]}")
    function, by_name = operation(node.schema()) or (None, ())
    assert function is not None, kind
    given = len(values) - len(by_name)
    with unset_fake_temporarily() if _are_numbers(values) else nullcontext():
        return function(*values[:given], **dict(zip(by_name, values[given:], strict=True)))


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether the tensors among some values are plain numbers, as a trace has its sizes: known on fake tensors too."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return bool(tensors) and all(type(tensor) is Tensor and tensor.dim() == 0 for tensor in tensors)


def _sliced(values: Any, start: int | None, end: int | None, step: int) -> Any:
    return values[slice(start, end, step)]


#: Ops on lists and dictionaries of anything, which are no ops on tensors.
_ON_PYTHON_VALUES: dict[str, Callable[..., Any]] = {
    "aten::__getitem__": operator.getitem,
    "aten::_set_item": operator.setitem,
    "aten::__contains__": operator.contains,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::len": len,
    "aten::append": list.append,
    "aten::extend": list.extend,
    "aten::insert": list.insert,
    "aten::pop": list.pop,
    "aten::reverse": list.reverse,
    "aten::list": list,
    "aten::keys": list,
    "aten::values": lambda d: list(d.values()),
    "aten::items": lambda d: list(d.items()),
    "aten::add": operator.add,
    "aten::mul": operator.mul,
    "aten::slice": _sliced,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::format": lambda text, *values: text.format(*values) if text.count("{}") == len(values) else text,
    "aten::warn": lambda *_: None,
}
#: A schema that is for values of any type: ``t`` as a type, which a name may be too, as in ``Tensor t``.
_GENERIC = re.compile(
    r"\bt[1-9]?(?=[\[(?* ]|$)|\bDict\(|\bAny\b|AnyList|\.\.\.|^aten::(warn|format|__is__|__isnot__)\b"
)
_SCHEMA = re.compile(r"(\w+)::(\w+)(?:\.(\w+))?\(")
_found: dict[str, tuple[Any, tuple[str, ...]] | None] = {}


def operation(schema: str) -> tuple[Any, tuple[str, ...]] | None:
    """The op of a schema, as torch.ops has it, and the names of the arguments that it takes by name alone."""
    if schema not in _found:
        _found[schema] = _operation(schema)
    return _found[schema]


def _operation(schema: str) -> tuple[Any, tuple[str, ...]] | None:
    match = _SCHEMA.match(schema)
    if match is None:
        return None
    namespace, name, overload = match.groups()
    if _GENERIC.search(schema):
        python = _ON_PYTHON_VALUES.get(f"{namespace}::{name}")
        return None if python is None else (python, ())
    packet = getattr(getattr(torch.ops, namespace), name, None)
    found = getattr(packet, overload or "default", None)
    if found is None:
        return None
    return found, tuple(argument.name for argument in found._schema.arguments if argument.kwarg_only)


def _is_function(value: Any) -> bool:
    return bool(value.type().kind() == "FunctionType")


def _is_object(value: Any) -> bool:
    """Whether a value is a module, or an object of a class that a script defined."""
    return bool(value.type().kind() in ("ClassType", "InterfaceType"))
