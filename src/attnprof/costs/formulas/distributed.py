"""Collectives: this rank reads what it sends and writes what it receives.

What crosses the network, and the sums that travel with it, are not this device's memory traffic nor its
arithmetic. The schemas of ``c10d`` do not say what they change, so the rules here do.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import distinct_bytes, reading

#: Collectives with what they send and what they receive in separate arguments, named ``input...`` and ``output...``
_BETWEEN = (
    "c10d.allgather_",
    "c10d.allgather_coalesced_",
    "c10d.allgather_into_tensor_coalesced_",
    "c10d._allgather_base_",
    "c10d.reduce_scatter_",
    "c10d.reduce_scatter_tensor_coalesced_",
    "c10d._reduce_scatter_base_",
    "c10d.alltoall_",
    "c10d.alltoall_base_",
    "c10d.gather_",
    "c10d.scatter_",
)


def _moved(op: OpSignature, prefix: str) -> int:
    """Bytes of the arguments whose name starts with ``prefix``."""
    return distinct_bytes(t for name, _ in op.args if name.startswith(prefix) for t in op.tensors(name))


@traffic(*_BETWEEN)
def between(op: OpSignature) -> tuple[int, int]:
    """Inputs read, outputs written; a rank that is not the root of a gather or a scatter gives an empty list."""
    return _moved(op, "input"), _moved(op, "output")


@traffic("c10d.allreduce_", "c10d.allreduce_coalesced_")
def all_reduced(op: OpSignature) -> tuple[int, int]:
    """Each tensor read and overwritten with the sum."""
    return (_moved(op, "tensors"),) * 2


@traffic("c10d.send", "c10d.reduce_")
def sent(op: OpSignature) -> tuple[int, int]:
    """Read. The result of a reduce, which the root alone writes, is not counted: a call does not tell its rank."""
    return _moved(op, "tensors"), 0


@traffic("c10d.broadcast_", "c10d.recv_", "c10d.recv_any_source_")
def received(op: OpSignature) -> tuple[int, int]:
    """Written. The root of a broadcast reads as many bytes instead: a call does not tell its rank."""
    return 0, _moved(op, "tensors")


movement(
    (
        "_dtensor.shard_dim_alltoall",
        "fsdp.all_gather_copy_in",
        "fsdp.chunk_cat",
        "fsdp.chunk_cat_mixed_dtype",  # since PyTorch 2.15
        "fsdp.copy_",
        "fsdp.split_with_sizes_copy",
    )
)


@traffic("fsdp.all_gather_copy_in")
def copied_in(op: OpSignature) -> tuple[int, int]:
    """The shards are copied into this rank's part of the gathered buffer, which is the first output."""
    return reading(op, "all_gather_inputs")[0], op.out.bytes


@traffic("fsdp.copy_")
def copied(op: OpSignature) -> tuple[int, int]:
    """The target is only written."""
    return reading(op, "data")


@cost("c10d.check_for_nan")
def check_for_nan(op: OpSignature) -> Work:
    """A test per element, joined: n - 1."""
    return Work(vector=max(0, 2 * op.tensor("tensor").numel - 1))


free(("c10d.barrier", "c10d.monitored_barrier_"), "waits for the other ranks")
free(("_c10d_functional._wrap_tensor_autograd",), "the same tensor, wrapped to wait when it is used")
free(("_dtensor.mesh_get_process_group",), "looks up a group of ranks")
