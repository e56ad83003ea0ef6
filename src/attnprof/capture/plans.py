"""How a step is run: in which dtype, under autocast, with checkpoints, with what frozen; undone afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from attnprof.capture.modules import unwrap
from attnprof.capture.stand_ins import attributes_kept, replaced
from attnprof.core.errors import AttnprofError, closest

_DTYPES = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
    "fp32": torch.float32,
    "float32": torch.float32,
    "fp64": torch.float64,
    "float64": torch.float64,
}
_LOW = {name: dtype for name, dtype in _DTYPES.items() if dtype.itemsize == 2}
#: Names that wrappers put into those of parameters, and that no report shows.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True)
class Plan:
    """How to run a step.

    ``dtype`` (``"bf16"``, ``"fp16"``, ``"fp32"``, ``"fp64"`` or torch's names) is that of the parameters, buffers
    and floating inputs; integers and complex numbers stay. ``autocast`` (``"bf16"`` or ``"fp16"``) runs forward
    and loss under ``torch.autocast``; no gradient scaler is added. ``checkpoint`` puts the repeated layers into
    ``torch.utils.checkpoint``, non-reentrant; a Hugging Face model checkpoints its own way. ``freeze`` are
    shell-style patterns of parameter or module names, in order: ``*`` stands for anything, and ``!`` before a
    pattern takes names out again (``["*", "!*.lora_*"]``).

    On a user's model all of it is undone after the run.
    """

    dtype: str | torch.dtype | None = None
    autocast: str | torch.dtype | None = None
    checkpoint: bool = False
    freeze: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        _dtype("dtype", self.dtype, _DTYPES)
        _dtype("autocast", self.autocast, _LOW)
        patterns = (self.freeze,) if isinstance(self.freeze, str) else tuple(self.freeze)
        object.__setattr__(self, "freeze", patterns)

    @contextmanager
    def applied(self, model: nn.Module, *values: Any) -> Iterator[tuple[tuple[Any, ...], list[str]]]:
        """The model under this plan, but for autocast; yields the values for it, and notes for the reader."""
        notes: list[str] = []
        dtype = _dtype("dtype", self.dtype, _DTYPES)
        with ExitStack() as stack:
            if dtype is not None:
                convert = _converter(model, dtype)
                stack.enter_context(replaced(model, convert))
                values = tree_map_only(Tensor, convert, values)
            if self.freeze:
                notes.append(stack.enter_context(_frozen(model, self.freeze)))
            if self.checkpoint:
                notes.append(stack.enter_context(_checkpointed(model)))
            if self.autocast is not None:
                name = str(_dtype("autocast", self.autocast, _LOW)).removeprefix("torch.")
                notes.append(f"Forward and loss ran under autocast to {name}.")
            yield values, notes

    def autocasting(self, model: nn.Module) -> torch.autocast | ExitStack:
        """The context that forward and loss run in."""
        dtype = _dtype("autocast", self.autocast, _LOW)
        device = next((tensor.device.type for tensor in (*model.parameters(), *model.buffers())), "cpu")
        return ExitStack() if dtype is None else torch.autocast(device, dtype)


def _dtype(option: str, wanted: str | torch.dtype | None, known: dict[str, torch.dtype]) -> torch.dtype | None:
    if wanted is None:
        return None
    name = str(wanted).removeprefix("torch.").lower()
    if name not in known:
        names = ", ".join(short for short in ("bf16", "fp16", "fp32", "fp64") if short in known)
        raise AttnprofError(f'{option} "{name}" is not one of {names}.{closest(name, known, 1)}')
    return known[name]


def _converter(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    lazy = next((name for name, p in (*model.named_parameters(), *model.named_buffers()) if is_lazy(p)), None)
    if lazy is not None:
        raise AttnprofError(f"{lazy} is lazy and has no dtype to convert yet: run the model once before.")
    converted: dict[int, tuple[Tensor, Tensor]] = {}

    def convert(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            return tensor
        if id(tensor) not in converted:
            with torch.no_grad():
                made = tensor.to(dtype)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, tensor.requires_grad)
            else:
                made.requires_grad_(tensor.requires_grad)
            converted[id(tensor)] = tensor, made
        return converted[id(tensor)][1]

    return convert


# Freezing


@contextmanager
def _frozen(model: nn.Module, patterns: Sequence[str]) -> Iterator[str]:
    named = [(_plain(name), p) for name, p in unwrap(model).named_parameters(remove_duplicate=False)]
    chosen: dict[int, Tensor] = {}
    for pattern in patterns:
        text = pattern.removeprefix("!")
        found = {id(p): p for name, p in named if _matches(name, text)}
        if not found:
            known = dict.fromkeys(part for name, _ in named for part in (name, *_above(name)))
            near = closest(text, known) or f" The first of its {len(named):,} is {named[0][0]}." if named else ""
            raise AttnprofError(f'freeze "{pattern}" matches no parameter of {type(model).__name__}.{near}')
        chosen = {k: p for k, p in chosen.items() if k not in found} if text != pattern else chosen | found
    trainable = [p for p in chosen.values() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        total = len({id(p) for _, p in named})
        frozen = len({id(p) for _, p in named if not p.requires_grad})
        yield f"Frozen: {frozen:,} of {total:,} parameter tensors."
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _above(name: str) -> list[str]:
    """``h.0.attn`` and ``h.0`` and ``h``, for ``h.0.attn.weight``."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(part, pattern) for part in (name, *_above(name)))


# Checkpointing


@contextmanager
def _checkpointed(model: nn.Module) -> Iterator[str]:
    """Hugging Face layers know how to leave their cache out; others get a ``forward`` that checkpoints theirs."""
    flagged = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    layers = [] if flagged else repeated_layers(model)
    if not flagged and not layers:
        raise AttnprofError(
            f"there is nothing to checkpoint in {type(model).__name__}: no ModuleList or Sequential in it has "
            "several layers of one class; call torch.utils.checkpoint in the model instead."
        )
    if flagged and not all(module.training for module in flagged):
        raise AttnprofError(
            f"{type(model).__name__} checkpoints its layers in training mode only: call model.train() before (--train)."
        )
    with attributes_kept([*flagged, *layers]):
        for module in flagged:
            vars(module)["gradient_checkpointing"] = True
            vars(module)["_gradient_checkpointing_func"] = partial(checkpoint, use_reentrant=False)
        for layer in layers:
            vars(layer)["forward"] = partial(checkpoint, layer.forward, use_reentrant=False)
        kinds = Counter(type(layer).__name__ for layer in layers)
        what = ", ".join(f"{count:,} {kind} layers" for kind, count in kinds.items()) or "the model's own layers"
        yield f"Activation checkpointing of {what}: only their inputs are kept, and each runs again in the backward."


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists of a model of which several are of one class, each once.

    Modules of torch's own without children (a Linear, a ReLU) are no layers to checkpoint.
    """
    found: dict[int, nn.Module] = {}

    def look(module: nn.Module) -> None:
        members = list(module._modules.values())
        if isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            kinds = Counter(type(member) for member in members if member is not None and not _is_leaf(member))
        else:
            kinds = Counter()
        for member in members:
            if member is not None and kinds[type(member)] > 1:
                found[id(member)] = member
            elif member is not None:
                look(member)

    look(model)
    return list(found.values())


def _is_leaf(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.") and not module._modules
