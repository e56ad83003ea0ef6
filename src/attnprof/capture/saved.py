"""What autograd keeps for the backward: read off the graph, without unpacking anything.

``node._raw_saved_*`` names what a node saved and runs no hook, no version check and no recomputation;
``torch.autograd.graph.saved_tensors_hooks``, the documented way, changes what it watches. Three things are
not on the nodes themselves and are looked up where they are: what a custom Function keeps as attributes of
its context, what a checkpoint keeps to run again, and what a user's own hooks packed.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import Parameter
from torch.utils.checkpoint import _CheckpointFrame, _Holder, _VersionWrapper

_SavedTensor: Any = torch._C._autograd.SavedTensor
_names: dict[type, tuple[str, ...]] = {}
_UNREADABLE = {"CppFunction", "CopySlices"}
_UNNUMBERED = 2**64 - 1  # AccumulateGrad has no number of its own
#: So many numbers of nodes take some 10 MB.
_REMEMBERED = 100_000


class Walked:
    """The graphs that earlier calls left, of one thread: a call that goes on from one need not walk it again.

    Each call is what it saved, as blocks with their modules, and the calls it went on from. Nodes are known
    by their numbers, so no graph is kept alive. Forgetting is always right: it is only walked again.
    """

    def __init__(self) -> None:
        self.call_of: dict[int, int] = {}  # the number of a node -> a call
        self._calls: list[tuple[dict[int, int], set[int]]] = []
        self._most = _REMEMBERED

    def begin(self) -> None:
        """A graph is about to be walked: what has become too much is forgotten."""
        if len(self.call_of) > self._most:
            self.forget()

    def add(self, numbers: Iterable[int], saved: dict[int, int], behind: set[int]) -> None:
        """A graph was walked: these nodes, which saved this, and what is ``behind`` them."""
        self.call_of.update(dict.fromkeys(numbers, len(self._calls)))
        self.call_of.pop(_UNNUMBERED, None)
        if not self._calls:  # all of a graph, which has room to become twice as large
            self._most = max(_REMEMBERED, 2 * len(self.call_of))
        self._calls.append((saved, behind))

    def saved_by(self, calls: set[int]) -> dict[int, int]:
        """What these calls saved, and those that they went on from; the first that saved a block has it."""
        found: set[int] = set()
        todo = list(calls)
        while todo:
            call = todo.pop()
            if call not in found:
                found.add(call)
                todo.extend(self._calls[call][1])
        together: dict[int, int] = {}
        for call in sorted(found, reverse=True):
            together |= self._calls[call][0]
        return together

    def forget(self) -> None:
        self.call_of.clear()
        self._calls.clear()


def nodes_behind(roots: Iterable[Tensor], walked: Mapping[int, int]) -> tuple[dict[Any, int], set[int]]:
    """The nodes of the graph behind ``roots`` with their numbers, in the order in which they were made.

    What was walked before is left out, and said instead: the values in ``walked`` of the numbers met.
    """
    found: dict[Any, int] = {}
    behind: set[int] = set()
    todo = [root.grad_fn for root in roots if root.grad_fn is not None]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        number = node._sequence_nr()
        if number in walked:
            behind.add(walked[number])
            continue
        found[node] = number
        todo += [before for before, _ in node.next_functions if before is not None]
    return dict(sorted(found.items(), key=itemgetter(1))), behind


def parameters_among(nodes: Mapping[Any, int]) -> list[Tensor]:
    """The parameters whose gradients these nodes accumulate: also those of modules that are gone."""
    leaves = (getattr(node, "variable", None) for node, number in nodes.items() if number == _UNNUMBERED)
    return [leaf for leaf in leaves if isinstance(leaf, Parameter)]


def are_readable(nodes: Iterable[Any]) -> bool:
    """Whether nodes tell what they saved; foreach ops, functions in C++ and in-place ops on views do not."""
    return _UNREADABLE.isdisjoint({type(node).__name__ for node in nodes})


def kept_by_graph(
    nodes: Mapping[Any, int], owner: Callable[[Any, int], int], frames: Mapping[Any, int]
) -> Iterator[tuple[Any, int]]:
    """What these nodes keep, each with a module: tensors, or whatever hooks made of them.

    ``owner`` gives the module of a node with its number, ``frames`` that of the checkpoints it is known for.
    """
    holders: dict[int, int] = {}
    for node, number in nodes.items():
        module = -1
        for value in kept_by(node):
            if module < 0:
                module = owner(node, number)
            if isinstance(value, _Holder):
                holders.setdefault(id(value), module)
            else:
                yield value, module
    while holders:  # of checkpoints, and then of those around them
        inside, holders = holders, {}
        for frame in _frames_of(set(inside), list(frames)):
            module = frames.get(frame, -1)
            if module < 0:  # a checkpoint around no module: whoever ran the first op inside
                module = min(inside[holder] for holder in _holders_of(frame) if holder in inside)
            for value in kept_by_checkpoint(frame):
                if isinstance(value, _Holder):
                    holders.setdefault(id(value), module)
                else:
                    yield value, module


def kept_by(node: Any) -> Iterable[Any]:
    """What a node saved: tensors, or whatever hooks made of them."""
    kind = type(node)
    names = _names.get(kind)
    if names is None:
        if isinstance(node, BackwardCFunction):  # a class of the user's: not remembered
            return [*_tensors_among(vars(node)), *_saved_as(node, ("_raw_saved_tensors",))]
        names = _names[kind] = tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))
    return _saved_as(node, names) if names else ()


def _saved_as(node: Any, names: tuple[str, ...]) -> list[Any]:
    found = []
    for name in names:
        try:
            value = getattr(node, name)
        except RuntimeError:  # freed by a backward that has run
            continue
        for saved in value if isinstance(value, tuple | list) else (value,):
            if isinstance(saved, _SavedTensor):
                data = saved.data
                if data is not None:
                    found.append(data)
    return found


def _frames_of(holders: set[int], known: Iterable[Any]) -> list[Any]:
    """The checkpoints that these of their place-holders (by id) belong to; looked for among ``known`` first."""
    found: list[Any] = []
    for frames in (known, _every_frame()):
        if not holders:
            break
        for frame in frames:
            own = _holders_of(frame)
            if own & holders:
                found.append(frame)
                holders -= own
    return found


def _holders_of(frame: Any) -> set[int]:
    """The ids of a checkpoint's living place-holders."""
    return {id(holder) for reference in frame.weak_holders if (holder := reference()) is not None}


def kept_by_checkpoint(frame: Any) -> Iterator[Any]:
    """The inputs of a checkpointed region, and what selective checkpointing stored of its inside.

    An input is a place-holder where the region is itself inside of another checkpoint.
    """
    for value in getattr(frame, "saved_args", ()):
        yield value.data if isinstance(value, _SavedTensor) else value
    node = getattr(frame, "input_saver", None)  # torch before 2.13
    if node is not None:
        yield from kept_by(node)
    run = _captured(frame.recompute_fn)
    yield from _tensors_among((run.get("kwargs"), run.get("fn")))
    yield from _tensors_among(getattr(run.get("recompute_context"), "storage", None))


def _captured(function: FunctionType) -> dict[str, Any]:
    """The variables of enclosing functions that a function holds on to, by name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet, or deleted
            continue
    return found


def _every_frame() -> Iterator[Any]:
    for thing in gc.get_objects():
        if type(thing) is _CheckpointFrame:
            yield thing


def _tensors_among(value: Any, depth: int = 5) -> Iterator[Tensor]:
    """Tensors in attributes, containers and functions, those in torch's version wrappers included."""
    if isinstance(value, Tensor):
        yield value
    elif depth:
        if isinstance(value, Mapping):
            items: Iterable[Any] = list(value.values())
        elif isinstance(value, list | tuple | set):
            items = value
        elif isinstance(value, functools.partial):
            items = (value.args, value.keywords, value.func)
        elif isinstance(value, FunctionType):
            items = _captured(value).values()
        elif isinstance(value, _VersionWrapper):
            items = (value.val,)
        else:
            return
        for item in items:
            yield from _tensors_among(item, depth - 1)
