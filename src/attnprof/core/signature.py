"""One op call as a value: the name, the arguments by schema name, the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from attnprof.core.tensor import TensorMeta

Argument: TypeAlias = "TensorMeta | int | float | bool | str | tuple[Argument, ...] | None"


def tensors_in(value: Argument) -> Iterator[TensorMeta]:
    """Every tensor in an argument, in order, lists opened."""
    if isinstance(value, TensorMeta):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors_in(item)


@dataclass(frozen=True)
class Declared:
    """A price that came with the op instead of from attnprof's formulas.

    ``source`` says from where: torch's ``register_flop_formula``, or a formula of the user's when the
    trace was saved. Bytes of None follow the default rule.
    """

    source: str
    matmul_flops: int = 0
    vector_flops: int = 0
    useful_matmul_flops: int | None = None
    recompute_matmul_flops: int = 0
    recompute_vector_flops: int = 0
    read_bytes: int | None = None
    write_bytes: int | None = None


@dataclass(frozen=True)
class OpSignature:
    """What decides the cost of one op call: interned, so a trace stores each distinct call once.

    ``op`` is torch's full name with overload (``aten.add.Tensor``). ``args`` holds every argument of
    the schema by name, defaults filled in: tensors as :class:`TensorMeta`, lists as tuples, dtypes,
    devices and layouts as strings. Floats other than 0, 1, -1, 2, 0.5 and the infinities are one
    representative value: no cost depends on them. ``mutated`` names the arguments the op changes in place,
    ``overwritten`` those it only writes to (``out=``); ``view`` says that torch's schema makes the output
    an alias of an input.
    """

    op: str
    args: tuple[tuple[str, Argument], ...] = ()
    outputs: tuple[Argument, ...] = ()
    mutated: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    view: bool = False
    declared: Declared | None = None

    @cached_property
    def _by_name(self) -> dict[str, Argument]:
        return dict(self.args)

    @property
    def packet(self) -> str:
        """The name without the overload: ``aten.add`` for ``aten.add.Tensor``."""
        namespace, name, *_ = self.op.split(".")
        return f"{namespace}.{name}"

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def value(self, name: str, default: Argument = None) -> Argument:
        """The argument called ``name``, or ``default`` when the schema has none."""
        return self._by_name.get(name, default)

    def tensor(self, name: str) -> TensorMeta:
        """The tensor argument called ``name``."""
        found = self._by_name.get(name)
        if not isinstance(found, TensorMeta):
            raise KeyError(f"{self.op} has no tensor argument {name!r}; it has {', '.join(self._by_name)}")
        return found

    def maybe(self, name: str) -> TensorMeta | None:
        """The tensor argument called ``name``, or None when it was not given."""
        found = self._by_name.get(name)
        return found if isinstance(found, TensorMeta) else None

    def tensors(self, name: str) -> tuple[TensorMeta, ...]:
        """Every tensor of the list argument called ``name``."""
        return tuple(tensors_in(self._by_name.get(name)))

    def number(self, name: str, default: float = 0) -> float:
        """The int, float or bool argument called ``name``; ``default`` when absent or None."""
        found = self._by_name.get(name)
        return found if isinstance(found, int | float) else default

    def ints(self, name: str) -> tuple[int, ...]:
        """The ints of a list argument (or of a single int); empty when absent."""
        found = self._by_name.get(name)
        if isinstance(found, int):
            return (int(found),)
        return tuple(int(v) for v in found if isinstance(v, int)) if isinstance(found, tuple) else ()

    def flags(self, name: str) -> tuple[bool, ...]:
        """The bools of a list argument such as ``output_mask``; empty when absent."""
        return tuple(bool(v) for v in self.ints(name))

    @cached_property
    def inputs(self) -> tuple[TensorMeta, ...]:
        """Every tensor argument, in schema order, lists opened."""
        return tuple(t for _, value in self.args for t in tensors_in(value))

    @cached_property
    def outs(self) -> tuple[TensorMeta, ...]:
        """Every output tensor, lists opened."""
        return tuple(tensors_in(self.outputs))

    @property
    def out(self) -> TensorMeta:
        """The first output tensor."""
        if not self.outs:
            raise KeyError(f"{self.op} has no output tensor")
        return self.outs[0]
