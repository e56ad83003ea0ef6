"""Which of a module's op calls use its parameters, told by shape: a trace does not follow tensors from op to op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import prod

from attnprof.analysis.tree import ModuleNode
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.trace import ParameterRecord

Shape = tuple[int, ...]


class Weights:
    """The parameters that a module's own ``ops`` can use: its own, and those of parts that are never called.

    An operand is a parameter when it has its dimensions, in whatever order. Where no op has such an operand
    (the weight was reshaped), the number of elements decides. Parameters of parts that are called can be used
    as well (an output layer that takes the embedding's): by exactly their shape, or its transpose.
    """

    def __init__(self, node: ModuleNode, ops: Sequence[OpSignature]) -> None:
        self._frozen: dict[Shape, list[bool]] = {}
        self._below: dict[Shape, list[bool]] = {}
        for parameter in {p.ident: p for below in node.walk() for p in below.record.parameters}.values():
            for shape in {parameter.shape, parameter.shape[::-1]}:
                self._below.setdefault(shape, []).append(not parameter.trainable)
        self._key = _dimensions
        self._group(node)
        if not any(self.frozen_part(op) is not None for op in ops):
            self._key = _elements
            self._group(node)

    def _group(self, node: ModuleNode) -> None:
        self._frozen.clear()
        for parameter in _parameters(node):
            self._frozen.setdefault(self._key(parameter.shape), []).append(not parameter.trainable)

    def frozen_part(self, op: OpSignature) -> Fraction | None:
        """How much of the weight that an op uses is frozen; None for an op that uses none.

        Parameters of one shape cannot be told apart: each is taken to have an equal share in their ops.
        """
        for operand in _factors(op):
            frozen = self._frozen.get(self._key(operand.shape))
            if frozen:
                return Fraction(sum(frozen), len(frozen))
        for operand in _factors(op):
            frozen = self._below.get(operand.shape)
            if frozen:
                return Fraction(sum(frozen), len(frozen))
        return None

    def gradient_part(self, op: OpSignature) -> Fraction:
        """How much of a backward op's work can be for the gradients of weights: all, or one of its two gradients."""
        gradients = [out for out in op.outs if len(out.shape) > 1]
        if not any(self._key(out.shape) in self._frozen or out.shape in self._below for out in gradients):
            return Fraction(0)
        return Fraction(1, 2 if len(gradients) == 2 else 1)


def _parameters(node: ModuleNode) -> Iterator[ParameterRecord]:
    yield from node.record.parameters
    for child in node.children:
        if not child.calls:
            yield from _parameters(child)


def _factors(op: OpSignature) -> list[TensorMeta]:
    """The tensors an op multiplies, weights before inputs, as most ops take them; what it only adds is left out."""
    added = "self" if op.packet in ("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv") else "bias"
    factors = [value for name, value in op.args if isinstance(value, TensorMeta) and name != added]
    lists = [tensor for name, value in op.args if isinstance(value, tuple) for tensor in op.tensors(name)]
    return [*reversed(factors), *lists]


def _dimensions(shape: Shape) -> Shape:
    return tuple(sorted(size for size in shape if size != 1))


def _elements(shape: Shape) -> Shape:
    return (prod(shape),)
