"""What a program may switch in a model between two calls of it, or replace."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attnprof.capture.sampling import STRIDE, Sampled

_FIELDS = frozenset(["training", "_parameters", "_modules", "_forward_hooks", "_forward_pre_hooks"])
#: What a module has, by name.
Fields = dict[str, Any]
_Parameter, _Plainly = nn.Parameter, torch._C.DisableTorchFunction
_requires_grad, _grad, _nbytes = attrgetter("requires_grad"), attrgetter("grad"), attrgetter("nbytes")


class ModelState(Sampled[nn.Module]):
    """Its modules' modes, which weights are frozen, which have a gradient that the next one is added to; and which
    modules, parameters and hooks there are: equal where they were replaced by others of the same size and kind.
    """

    def __init__(self, late: Callable[[], None]) -> None:
        super().__init__({}, late)
        self._modules: list[nn.Module] = []  # while a capture is open
        self._samples: list[tuple[list[Fields], list[Fields]]] = []  # of these, and of those with weights

    def whole(self, model: nn.Module) -> tuple[Hashable, int]:
        modules = _modules_of(model)
        if len(modules) != len(self._modules) or not all(map(is_, modules, self._modules)):
            self._modules = modules
            owners = [module for module in modules if module._parameters]
            self._samples = [
                (list(map(vars, modules[which::STRIDE])), list(map(vars, owners[which::STRIDE])))
                for which in range(STRIDE)
            ]
            self.is_another = True
        modes = tuple([module.training for module in modules])
        kinds = tuple([module.__class__ for module in modules])
        hooked = [m for m in modules if m._forward_hooks or m._forward_pre_hooks]
        hooks = tuple([len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hooked])
        with _Plainly():
            weights = _weights([p for module in modules for p in module._parameters.values() if p is not None])
        in_every_sample = all(map(all, self._samples))
        plain = all(map(_FIELDS.issubset, map(vars, modules)))  # no module of TorchScript
        return (kinds, modes, hooks, weights), len(modules) + len(weights[0]) if in_every_sample and plain else 0

    def sample(self, model: nn.Module, which: int) -> Hashable:
        """In one loop, by dictionary, with few calls: after a step nothing of this is in a cache, and all is slow."""
        found: list[Hashable] = []
        modules, owners = self._samples[which]
        for own in modules:
            found.append(own["training"])
            found.append(len(own["_parameters"]))
            if own["_forward_hooks"] or own["_forward_pre_hooks"]:
                found.append((len(own["_forward_hooks"]), len(own["_forward_pre_hooks"])))
            for child in own["_modules"].values():
                found.append(id(child))
        with _Plainly():
            for own in owners:
                weight = None
                for weight in own["_parameters"].values():
                    if weight.__class__ is _Parameter:
                        found.append(weight.requires_grad if weight.grad is None else 2 + weight.requires_grad)
                    elif weight is not None:
                        found.append(_any_kind(weight))
                if weight.__class__ is _Parameter:  # where a module was converted, the last is as the others
                    found.append(weight.nbytes)
        return tuple(found)

    def forget(self) -> None:
        super().forget()
        self._modules, self._samples = [], []


def _modules_of(model: nn.Module) -> list[nn.Module]:
    """All of them, those of a module after it; one that is in several is there once for each, without its own."""
    found, left, seen = [], [model], set()
    while left:
        module = left.pop()
        found.append(module)
        children = module._modules
        if children and id(children) not in seen:
            seen.add(id(children))
            left += [child for child in reversed(children.values()) if child is not None]
    return found


def _weights(parameters: Sequence[Tensor]) -> tuple[tuple[Hashable, ...], ...]:
    """Which need a gradient, which have one, and their sizes."""
    if {p.__class__ for p in parameters} <= {_Parameter}:
        ungrown = tuple([gradient is None for gradient in map(_grad, parameters)])
        return tuple(map(_requires_grad, parameters)), ungrown, tuple(map(_nbytes, parameters))
    return (tuple(map(_any_kind, parameters)),)


def _any_kind(parameter: Tensor) -> Hashable:
    """Also of a lazy one, a subclass, or what ``functional_call`` put in the place of a parameter."""
    if is_lazy(parameter):
        return type(parameter)
    has_gradient = parameter.is_leaf and parameter.grad is not None
    return type(parameter), parameter.requires_grad, has_gradient, parameter.shape, parameter.dtype
