"""Which module is which: names, parents, parameters, without keeping any module alive."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.metas import tensor_meta
from attnprof.core.trace import OPTIMIZER, OUTSIDE, ROOT, SPREAD, ModuleRecord, ParameterRecord

#: Attributes under which wrappers hold the module they wrap; they vanish from names.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_PARALLEL = ("DistributedDataParallel", "DataParallel")
#: Classes of torch.distributed that a wrapped module's class is mixed with.
_MIXED_IN = ("FSDPModule", "ReplicateModule", "DDP")


def unwrap(module: nn.Module) -> nn.Module:
    """The module a user wrote, under ``torch.compile``, DDP, FSDP and checkpoint wrappers."""
    while (inner := _inner(module)) is not None:
        module = inner
    return module


def _inner(module: nn.Module) -> nn.Module | None:
    children = dict(module._modules.items())  # a ScriptModule's is no dict
    for name in _WRAPPED:
        if children.get(name) is not None:
            return children[name]
    return children.get("module") if type(module).__name__ in _PARALLEL else None


class Modules:
    """The records of every module seen, found by identity.

    A module that is not part of the profiled model gets a name when it first runs: its class in brackets
    below the module that ran it. A short-lived one (built anew in each forward) takes over the record of
    its dead predecessor.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.records = [
            ModuleRecord("", "", None),
            ModuleRecord("(outside)", "", ROOT),
            ModuleRecord("(optimizer)", "", ROOT),
        ]
        self.indices: dict[int, int] = {}  # by id of the module
        self._alive: dict[int, weakref.ref[nn.Module]] = {}
        self._owner: dict[int, int] = {}  # id of a parameter -> module index
        self._parameter_ids: dict[int, int] = {}
        self._new_ident = itertools.count()
        self._lock = threading.RLock()
        self._foreign: dict[tuple[int, str], list[int]] = {}
        self._built_of: dict[int, list[tuple[str, str, int]]] = {}  # of a foreign module: its parts' names, classes
        self._lazy: set[int] = set()
        self.on_meta = False  # some module lives on meta: its ops there are its own
        self.outermost = {ROOT}  # modules that were called from outside any module
        self.wrappers: set[int] = set()
        self.met: list[int] = []  # the record of each module that became known
        self._died: list[int] = []  # the record of each that died since the last look
        self._vacant: dict[int, set[int]] = {}  # a foreign record -> those of its siblings whose module died
        if model is not None:
            inner = unwrap(model)
            self.records[ROOT].class_name, self.records[ROOT].home = _class_of(inner)
            self._add(model, "", None, ROOT)

    def index_of(self, module: nn.Module, parent: int) -> int:
        """The record of ``module``, made when it is new; ``parent`` is the module that runs it."""
        index = self.indices.get(id(module))
        if index is None:
            with self._lock:
                index = self.indices.get(id(module))
                if index is None:
                    index = self._adopt(module, parent)
        return index

    def alive(self, since: int = 0) -> list[nn.Module]:
        """Every module that is still alive, in the order in which they became known; from this number on."""
        found = (self._alive[index]() for index in dict.fromkeys(self.met[since:]))
        return [module for module in found if module is not None]

    def is_record(self, module: object, index: int) -> bool:
        """Whether ``module`` is the one that record ``index`` describes."""
        return self.indices.get(id(module)) == index

    def owner_of(self, parameter: Tensor) -> int:
        """The module that owns a parameter; OUTSIDE for a tensor that is nobody's."""
        index = self._owner.get(id(parameter), OUTSIDE)
        reference = self._alive.get(index)
        module = None if reference is None else reference()
        if module is not None:
            for held in module._parameters.values():
                if held is parameter:
                    return index
            return OUTSIDE
        return index

    def refresh(self) -> None:
        """Read lazy parameters once more: they have a shape only after the first forward."""
        for index in self._lazy:
            module = self._alive[index]()
            if module is not None:
                self._describe(module, index)
        self._lazy.clear()

    def _adopt(self, module: nn.Module, parent: int) -> int:
        parent = ROOT if parent in (OUTSIDE, OPTIMIZER) else parent
        label = f"({_class_of(unwrap(module))[0]})"
        siblings = self._foreign.setdefault((parent, label), [])
        vacant = self._vacant[siblings[0]] if siblings else set()
        self._look_at_dead()
        for index in sorted(vacant):
            if self._takes_over(module, index):
                vacant.discard(index)
                return index
        name = label if not siblings else f"{label[:-1]} {len(siblings) + 1})"
        prefix = self.records[parent].fqn
        index = self._add(module, f"{prefix}.{name}" if prefix else name, parent, None)
        siblings.append(index)
        self._vacant[index] = vacant
        self._built_of[index] = [
            (name, type(part).__name__, self.indices.get(id(part), index)) for name, part in module.named_modules()
        ]
        if parent == ROOT:
            self.outermost.add(index)
        return index

    def _look_at_dead(self) -> None:
        while self._died:
            index = self._died.pop()
            if index in self._vacant:
                self._vacant[index].add(index)

    def _takes_over(self, module: nn.Module, index: int) -> bool:
        """Give ``module`` the records of a dead one that was built the same; False when there is none at ``index``."""
        before, parts = self._built_of[index], list(module.named_modules())
        if [(name, type(part).__name__) for name, part in parts] != [(name, kind) for name, kind, _ in before]:
            return False
        pairs = [(part, record) for (_, part), (_, _, record) in zip(parts, before, strict=True)]
        pairs = [(part, record) for part, record in pairs if self.indices.get(id(part)) != record]
        if any(id(part) in self.indices or self._is_alive(record) for part, record in pairs):
            return False
        for part, record in pairs:
            self._remember(part, record)
            self._describe(part, record)
        return True

    def _is_alive(self, index: int) -> bool:
        reference = self._alive.get(index)
        return reference is not None and reference() is not None

    def _holds(self, index: int, parameter: Tensor) -> bool:
        """Whether the module of a record is alive and holds this parameter: an id alone may be used again."""
        reference = self._alive.get(index)
        module = None if reference is None else reference()
        return module is not None and any(p is parameter for p in module._parameters.values())

    def _add(self, module: nn.Module, fqn: str, parent: int | None, index: int | None) -> int:
        known = self.indices.get(id(module))
        if known is not None:
            if self.records[known].fqn != fqn:
                self.records[known].aliases += (fqn,)
            return known
        if index is None:
            index = len(self.records)
            class_name, home = _class_of(unwrap(module))
            self.records.append(ModuleRecord(fqn, class_name, parent, home=home))
        self._remember(module, index)
        inner = _inner(module)
        if inner is not None:
            self.wrappers.add(id(module))
            self._add_wrapped(inner, fqn, parent, index)
            return index
        self._describe(module, index)
        for name, child in module._modules.items():
            if child is not None:
                self._add(child, f"{fqn}.{name}" if fqn else name, index, None)
        return index

    def _add_wrapped(self, inner: nn.Module, fqn: str, parent: int | None, index: int) -> None:
        known = self.indices.get(id(inner))
        if known is None:
            self._add(inner, fqn, parent, index)

    def _remember(self, module: nn.Module, index: int) -> None:
        key = id(module)

        def died(_: Any, key: int = key, table: dict[int, int] = self.indices, log: list[int] = self._died) -> None:
            table.pop(key, None)
            log.append(index)

        self.indices[key] = index
        self._alive[index] = weakref.ref(module, died)
        self.met.append(index)

    def _describe(self, module: nn.Module, index: int) -> None:
        record = self.records[index]
        with torch._C.DisableTorchFunction():  # a user's parameter subclass or mode need not see us asking
            record.parameters = tuple(self._parameters(module, index))
        record.training = module.training
        record.hyperparameters = {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and name != "training" and _is_scalar(value)
        }
        if _is_spread(module):
            record.hyperparameters[SPREAD] = True

    def _parameters(self, module: nn.Module, index: int) -> Iterator[ParameterRecord]:
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if nn.parameter.is_lazy(parameter):
                self._lazy.add(index)
                continue
            if not self._holds(self._owner.get(id(parameter), OUTSIDE), parameter):
                self._owner[id(parameter)] = index
                self._parameter_ids[id(parameter)] = next(self._new_ident)
            ident = self._parameter_ids[id(parameter)]
            meta = tensor_meta(parameter)
            self.on_meta |= meta.device == "meta"
            yield ParameterRecord(name, meta.shape, meta.dtype, parameter.requires_grad, ident)


def _class_of(module: nn.Module) -> tuple[str, str]:
    """The name of a module's class, and of the Python module that defines it.

    ``fully_shard`` and ``replicate`` put a module into a class made of their own and the user's.
    """
    kind: type = type(module)
    while len(kind.__bases__) == 2 and kind.__bases__[0].__name__ in _MIXED_IN and _is_distributed(kind.__bases__[0]):
        kind = kind.__bases__[1]
    return kind.__name__, kind.__module__


def _is_distributed(kind: type) -> bool:
    return kind.__module__.startswith("torch.distributed.")


def _is_spread(module: nn.Module) -> bool:
    """Whether it computes with a part of its weights: DTensors that no FSDP makes whole for the forward."""
    for parameter in module._parameters.values():
        if parameter is not None and type(parameter).__name__ == "DTensor" and _is_distributed(type(parameter)):
            placed: Any = parameter
            ways = zip(placed.placements, placed.device_mesh.shape, strict=True)
            parts = sum(ranks > 1 and not placement.is_replicate() for placement, ranks in ways)
            if parts > bool(getattr(module, "_is_fsdp_managed_module", False)):
                return True
    return False


def _is_scalar(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 8 and all(map(_is_scalar, value))
    return value is None or isinstance(value, bool | int | float | str)
