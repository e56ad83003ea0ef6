"""``--input`` on the command line: ``x=float32[2,128,768]``, ``input_ids=int64[2,128]<50257``, ``n=3``."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.tensor import width
from attnprof.core.units import Units

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attnprof.cli.target import Target

GRAMMAR = (
    "write [NAME=]DTYPE[SHAPE], such as 'x=float32[2,128,768]', 'ids=int64[2,128]<50257' (random below 50257) or "
    "'mask=int64[2,128]=1' (all ones), or a scalar, such as 'n=3' or 'flag=true'"
)
_TENSOR = re.compile(
    r"(?P<dtype>[A-Za-z]\w*)\s*\[(?P<shape>[\d\s,]*)\]\s*((?P<how><|=)\s*(?P<value>[+-]?[\w.]+))?", re.ASCII
)
_NAMED = re.compile(r"(?P<name>[A-Za-z_]\w*|\d+)\s*=\s*(?P<rest>.+)", re.ASCII | re.DOTALL)
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
#: What a size, a bound or a position must be below: torch keeps them as int64.
_INT64 = 2**63
#: What a random integer is below when the spec names no bound: valid for any vocabulary.
_BELOW = 2


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to make: integers random below ``below``, or all equal ``fill``, or standard normal."""

    dtype: str
    shape: tuple[int, ...]
    below: int | None = None
    fill: float | None = None

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


Value = TensorSpec | int | float | bool | None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One ``--input``: a value for the argument of this name, or at this position, or the next one."""

    text: str
    name: str | int | None
    value: Value


def parse(text: str) -> InputSpec:
    """The meaning of one ``--input``; raises :class:`AttnprofError` with the grammar when there is none."""
    name: str | int | None = None
    rest = text.strip()
    named = _NAMED.fullmatch(rest)
    if named:
        rest = named["rest"].strip()
        name = _whole(text, named["name"]) if named["name"].isdigit() else named["name"]
    tensor = _TENSOR.fullmatch(rest)
    if tensor:
        return InputSpec(text, name, _tensor(text, tensor))
    known, scalar = _scalar(rest)
    if not known or name is None:
        raise AttnprofError(f"--input '{text}' does not parse: {GRAMMAR}.")
    return InputSpec(text, name, scalar)


def apply(specs: Sequence[InputSpec], target: Target, seed: int = 0, fake: bool = False) -> None:
    """Put the inputs into the target's arguments, in place of those it returned under the same name.

    Values are random but the same for the same seed. Raises :class:`AttnprofError` for a name that
    ``forward`` does not have, for an argument given twice and for one it needs and nobody gave.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    signature = _signature(target.model)
    args, kwargs = list(target.args), dict(target.kwargs or {})
    names = _positional(signature) if signature else []
    by_position: dict[int, tuple[InputSpec, Any]] = {}
    for argument, spec in _arguments(specs, signature, target.model).items():
        value: Any = spec.value
        if isinstance(value, TensorSpec):
            value = make(spec, generator, _device(target.model, fake), fake)
        position = names.index(argument) if argument in names else argument
        if isinstance(position, int) and (not isinstance(spec.name, str) or position < len(args)):
            by_position[position] = spec, value
        else:
            kwargs[str(argument)] = value
    for position, (spec, value) in sorted(by_position.items()):
        while len(args) < position:  # those before it may have been given by name
            before = names[len(args)] if len(args) < len(names) else ""
            if before not in kwargs:
                raise AttnprofError(
                    f"--input '{spec.text}': position {position} is given but not position {len(args)}."
                )
            args.append(kwargs.pop(before))
        if position == len(args) and position < len(names):
            kwargs.pop(names[position], None)
        args[position : position + 1] = [value]
    target.args, target.kwargs = tuple(args), kwargs
    _check_complete(signature, target)


def make(spec: InputSpec, generator: torch.Generator, device: Any = "cpu", fake: bool = False) -> Tensor:
    """The tensor of a spec, with values drawn from ``generator`` (none under ``fake`` and on ``meta``)."""
    import torch

    want = spec.value
    assert isinstance(want, TensorSpec)
    dtype = _dtypes()[want.dtype]
    try:
        if fake or str(device) == "meta":
            return torch.empty(want.shape, dtype=dtype, device=device)
        if want.fill is not None:
            return torch.full(want.shape, want.fill, dtype=dtype, device=device)
        if dtype.is_floating_point or dtype.is_complex:
            drawn_as = torch.complex64 if dtype.is_complex else torch.float32
            return torch.randn(want.shape, generator=generator, dtype=drawn_as).to(device, dtype)
        drawn = torch.randint(want.below or _BELOW, want.shape, generator=generator)
        return drawn.to(device, dtype)
    except (RuntimeError, NotImplementedError, MemoryError, OverflowError) as error:
        size = Units().text(math.prod(want.shape) * width(want.dtype), "bytes")
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AttnprofError(f"--input '{spec.text}': cannot make {want} ({size}): {first}") from None


def _tensor(text: str, match: re.Match[str]) -> TensorSpec:
    word = _SHORT.get(match["dtype"], match["dtype"])
    if word not in _dtypes():
        raise AttnprofError(f"--input '{text}': no dtype \"{match['dtype']}\".{closest(word, sorted(_canonical()), 2)}")
    dtype = _dtypes()[word]
    sizes = [size.strip() for size in match["shape"].split(",")] if match["shape"].strip() else []
    if not all(size.isdigit() for size in sizes):
        raise AttnprofError(f"--input '{text}' does not parse: {GRAMMAR}.")
    shape, below, fill = tuple(_whole(text, size) for size in sizes), None, None
    known, value = _scalar(match["value"] or "none")
    if match["how"] == "<":
        if dtype.is_floating_point or dtype.is_complex or word == "bool":
            raise AttnprofError(f"--input '{text}': a bound is for integers, and {word} is not one.")
        if not known or type(value) is not int or value < 1:
            raise AttnprofError(f"--input '{text}': the bound after < is a whole number above 0.")
        below = _whole(text, match["value"].lstrip("+"))
    elif match["how"] == "=":
        if not known or value is None:
            raise AttnprofError(f"--input '{text}': the value after ] is a number, true or false.")
        fill = value
    return TensorSpec(str(dtype).removeprefix("torch."), shape, below, fill)


def _whole(text: str, digits: str) -> int:
    """The number of a size, a bound or a position; one that int64 cannot hold is said."""
    digits = digits.replace("_", "").lstrip("0") or "0"
    if len(digits) > len(str(_INT64)) or int(digits) >= _INT64:
        shown = digits if len(digits) <= 40 else f"{digits[:40]}..."
        raise AttnprofError(f"--input '{text}': {shown} is too large: it must be below 2**63.")
    return int(digits)


def _scalar(text: str) -> tuple[bool, int | float | bool | None]:
    """Whether the text is a scalar, and which."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return True, words[text.lower()]
    for kind in (int, float):
        try:
            return True, kind(text)
        except ValueError:
            continue
    return False, None


@cache
def _dtypes() -> dict[str, torch.dtype]:
    """torch's dtypes by every name it gives them, those of quantised and raw bits left out."""
    import torch

    found = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    return {name: value for name, value in found.items() if not re.match(r"torch\.(q|bits)", str(value))}


def _canonical() -> set[str]:
    """Each dtype's own name, aliases such as ``half`` left out."""
    return {str(dtype).removeprefix("torch.") for dtype in _dtypes().values()}


def _device(model: nn.Module, fake: bool) -> Any:
    """Where the model's parameters are; the CPU for one without, and under ``fake`` for one on ``meta``."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), "cpu")
    return "cpu" if fake and str(device) == "meta" else device


def _arguments(
    specs: Sequence[InputSpec], signature: inspect.Signature | None, model: nn.Module
) -> dict[str | int, InputSpec]:
    """Each input by the name of its argument, or by its position where no parameter is at it."""
    names = _positional(signature) if signature else []
    found: dict[str | int, InputSpec] = {}
    unnamed = 0
    for spec in specs:
        _check_name(spec, signature, model)
        argument = spec.name
        if argument is None:
            argument, unnamed = unnamed, unnamed + 1
        if isinstance(argument, int) and argument < len(names):
            argument = names[argument]
        if argument in found:
            called = f"position {argument}" if isinstance(argument, int) else f'"{argument}"'
            raise AttnprofError(
                f"--input '{found[argument].text}' and --input '{spec.text}' are both for the argument {called}."
            )
        found[argument] = spec
    return found


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None


def _positional(signature: inspect.Signature) -> list[str]:
    return [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _check_name(spec: InputSpec, signature: inspect.Signature | None, model: nn.Module) -> None:
    if signature is None or not isinstance(spec.name, str):
        return
    kinds = {p.kind for p in signature.parameters.values()}
    if spec.name in signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return
    names = list(signature.parameters)
    raise AttnprofError(
        f"--input '{spec.text}': {type(model).__name__}.forward has no argument \"{spec.name}\"; "
        f"it has {', '.join(names) or 'none'}.{closest(spec.name, names)}"
    )


def _check_complete(signature: inspect.Signature | None, target: Target) -> None:
    """A missing or surplus argument is said here, in terms of ``--input``, not by Python from inside torch."""
    if signature is None:
        return
    try:
        signature.bind(*target.args, **(target.kwargs or {}))
    except TypeError as error:
        forward = f"{type(target.model).__name__}.forward{signature}"
        raise AttnprofError(
            f"the arguments do not fit {forward}: {error}. Return them from the target, or give them with --input, "
            "such as --input 'x=float32[2,128,768]'."
        ) from None
