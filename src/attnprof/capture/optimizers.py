"""Optimizers by name, as on the command line, or a user's own."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

from attnprof.core.errors import AttnprofError, closest

#: A name, as :func:`parse` reads it, an optimizer or several, or what makes them of the parameters.
OptimizerLike = str | Optimizer | Sequence[Optimizer] | Callable[[list[nn.Parameter]], Optimizer | Sequence[Optimizer]]

_KINDS = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}
_NAME = re.compile(r"\s*(?P<name>\w+)\s*(:\s*(?P<variant>\w*)\s*)?(,(?P<options>.*))?", re.DOTALL)
_WORDS = {"true": True, "false": False, "none": None}
#: What a step is run as: keyword arguments by the name of a variant.
_VARIANTS = {
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimizer of ``torch.optim`` with its keyword arguments."""

    text: str
    kind: type[Optimizer]
    options: Mapping[str, Any]


# By name


def parse(text: str) -> OptimizerSpec:
    """The meaning of ``NAME[:VARIANT][,KEY=VALUE...]``; :class:`AttnprofError` says what is wrong with it."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise AttnprofError(f'optimizer "{text}" does not parse: write NAME[:VARIANT][,KEY=VALUE...], such as {_LIKE}.')
    kind = _KINDS.get(match["name"].lower())
    if kind is None:
        near = closest(match["name"].lower(), _KINDS) or f" torch.optim has {', '.join(sorted(_KINDS))}."
        raise AttnprofError(f'no optimizer "{match["name"]}".{near}')
    _check_steps_alone(kind)
    taken = _taken(kind)
    options = {} if match["variant"] is None else _variant(text, kind, match["variant"].lower(), taken)
    for part in _split(match["options"] or ""):
        key, equals, value = (word.strip() for word in part.partition("="))
        known = [name for name in taken if name not in ("foreach", "fused")]
        if key not in known:
            raise AttnprofError(
                f'optimizer "{text}": {kind.__name__} takes no "{key}"; it takes {", ".join(known)}.'
                f"{closest(key, known, 1)}"
            )
        options[key] = _value(text, key, value if equals else "", taken[key])
    return OptimizerSpec(text, kind, options)


def as_foreach(text: str) -> str | None:
    """The name with the variant ``foreach``; None where one is asked for already, or the optimizer has none."""
    match = _NAME.fullmatch(text)
    if match is None or match["variant"] is not None or "foreach" not in _taken(parse(text).kind):
        return None
    return f"{match['name']}:foreach" + ("" if match["options"] is None else f",{match['options']}")


_LIKE = "adamw, adamw:fused or sgd,momentum=0.9"


def _taken(kind: type[Optimizer]) -> dict[str, Any]:
    """The options of an optimizer, and their defaults."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "params")}


def _variant(text: str, kind: type[Optimizer], variant: str, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a variant; one that the optimizer does not have is said with those it has."""
    known = [name for name in _VARIANTS if name in taken or (name == "loop" and "foreach" in taken)]
    if variant not in known:
        has = f"its variants are {', '.join(known)}" if known else "it has one implementation and no variants"
        raise AttnprofError(f'optimizer "{text}": {kind.__name__} has no variant "{variant}"; {has}.')
    return {key: value for key, value in _VARIANTS[variant].items() if key in taken}


def _split(text: str) -> list[str]:
    """The parts between commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _value(text: str, key: str, value: str, default: Any) -> Any:
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if value.isidentifier() and (default is None or isinstance(default, str)):  # the name of a mode
            return value
        raise AttnprofError(
            f'optimizer "{text}": {key}={value} has no value: write a number, true, false, none or a tuple, such as '
            "betas=(0.9,0.95)."
        ) from None


# Making them


def made(optimizer: OptimizerLike, model: nn.Module) -> tuple[list[Optimizer], list[str]]:
    """The optimizers that step a model, and what the reader of the report must know of them."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise AttnprofError(f"an optimizer was asked for, but no parameter of {type(model).__name__} is trainable.")
    lazy = next((name for name, p in model.named_parameters() if is_lazy(p)), None)
    if lazy is not None:
        raise AttnprofError(f"{lazy} is lazy and has no shape to step yet: run the model once before.")
    if isinstance(optimizer, str):
        return _by_name(parse(optimizer), model, trainable)
    found: Any = optimizer
    if not isinstance(optimizer, Optimizer | Sequence):
        if not callable(optimizer):
            raise AttnprofError(
                f"optimizer takes a name such as {_LIKE}, an Optimizer or a callable(parameters) that returns one, not "
                f"a {type(optimizer).__name__}."
            )
        found = optimizer(trainable)
    optimizers = [found] if isinstance(found, Optimizer) else list(found) if isinstance(found, Sequence) else []
    if not optimizers or not all(isinstance(one, Optimizer) for one in optimizers):
        raise AttnprofError(f"optimizer gave a {type(found).__name__}; it must be a torch.optim.Optimizer.")
    for one in optimizers:
        _check_steps_alone(type(one))
    return optimizers, [_note(optimizers)]


def _check_steps_alone(kind: type[Optimizer]) -> None:
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise AttnprofError(
            f"{kind.__name__} calls the model itself, as often as it needs, so a step has no cost of its own: count "
            "your own loop under attnprof.profile()."
        )


def _note(optimizers: Iterable[Optimizer]) -> str:
    names = " and ".join(dict.fromkeys(type(one).__name__ for one in optimizers))
    return f"The step of {names} is one with its state in place: a whole step was run before, and is not counted."


def _by_name(spec: OptimizerSpec, model: nn.Module, trainable: list[nn.Parameter]) -> tuple[list[Optimizer], list[str]]:
    picks = _PICKS.get(spec.kind.__name__)
    if picks is None:
        first = _construct(spec, trainable)
        return [first], [_note([first])]
    what, pick = picks
    chosen = {id(p) for p in pick(model)}
    taken = [p for p in trainable if id(p) in chosen]
    rest = [p for p in trainable if id(p) not in chosen]
    if not taken:
        raise AttnprofError(f'optimizer "{spec.text}" steps {what}, and {type(model).__name__} has no trainable ones.')
    optimizers = [_construct(spec, taken)]
    if not rest:
        return optimizers, [_note(optimizers)]
    optimizers.append(torch.optim.AdamW(rest, **_defaults(torch.optim.AdamW, rest)))
    return optimizers, [
        f"{spec.kind.__name__} steps {what} ({len(taken):,} of {len(trainable):,} parameter tensors), AdamW the rest.",
        _note(optimizers),
    ]


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    """Muon's: weights of two dimensions; those of embeddings, which it is not meant for, are left to AdamW."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    return (p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings)


def _sparse(model: nn.Module) -> Iterator[Tensor]:
    return (m.weight for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse)


#: Optimizers that do not step everything: what they do step, in words, and which it is.
_PICKS: dict[str, tuple[str, Callable[[nn.Module], Iterator[Tensor]]]] = {
    "Muon": ("matrices that are no embeddings", _matrices),
    "SparseAdam": ("embeddings with sparse gradients", _sparse),
}


def _construct(spec: OptimizerSpec, parameters: list[nn.Parameter]) -> Optimizer:
    try:
        return spec.kind(parameters, **{**_defaults(spec.kind, parameters), **spec.options})
    except (ValueError, TypeError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise AttnprofError(f'optimizer "{spec.text}": {first}.') from None


def _defaults(kind: type[Optimizer], parameters: Iterable[Tensor]) -> dict[str, Any]:
    """torch chooses foreach by the type of the tensors, and so never for fake ones: here as for real ones."""
    devices = set(_get_foreach_kernels_supported_devices())
    fake = all(isinstance(p, FakeTensor) and p.device.type in devices for p in parameters)
    return {"foreach": True} if fake and "foreach" in _taken(kind) else {}


def steps_to_steady(optimizer: Optimizer) -> int:
    """How many steps come before one that costs what all later ones do; the first creates the state.

    RAdam does not rectify its first five.
    """
    return 5 if isinstance(optimizer, torch.optim.RAdam) else 1
