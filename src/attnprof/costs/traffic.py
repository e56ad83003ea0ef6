"""The default byte rule: every distinct input element read once, every output element written once.

What an op writes to in place is read and written; the alias it returns is not a second output. Ops whose
traffic is not a function of whole tensors (gathers, scatters, masks of outputs) state their own rule with
``@traffic`` beside their formula.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta


def stored_bytes(tensor: TensorMeta) -> int:
    """Bytes of the distinct stored elements: of a sparse tensor its values and its indices."""
    return tensor.bytes if tensor.nnz is None else tensor.nnz * tensor.width + tensor.index_bytes


def distinct_bytes(tensors: Iterable[TensorMeta]) -> int:
    """Bytes of several tensors, the same tensor counted once."""
    total, seen = 0, set()
    for tensor in tensors:
        if tensor.ident >= 0 and tensor.ident in seen:
            continue
        seen.add(tensor.ident)
        total += stored_bytes(tensor)
    return total


def default(op: OpSignature) -> tuple[int, int]:
    """(bytes read, bytes written): all inputs read; all outputs that were asked for, and what is mutated, written."""
    inputs = {t.ident for t in op.inputs}
    written = [t for t in _asked_for(op) if t.ident not in inputs]
    for name in (*op.mutated, *op.overwritten):
        written.extend(op.tensors(name))
    reads = [t for name, _ in op.args if name not in op.overwritten for t in op.tensors(name)]
    return distinct_bytes(reads), distinct_bytes(written)


def _asked_for(op: OpSignature) -> Iterable[TensorMeta]:
    """The outputs, but for those that ``output_mask`` does not ask for: some kernels return one all the same."""
    unasked = [i for i, asked in enumerate(op.flags("output_mask")) if not asked]
    if not unasked:
        return op.outs
    return replace(op, outputs=tuple(o for i, o in enumerate(op.outputs) if i not in unasked)).outs


def write_only(op: OpSignature) -> tuple[int, int]:
    """Nothing is read: fills, creations, random draws."""
    return 0, default(op)[1]


def reading(op: OpSignature, *names: str) -> tuple[int, int]:
    """The default rule when only the named arguments are read."""
    return distinct_bytes(t for name in names for t in op.tensors(name)), default(op)[1]
