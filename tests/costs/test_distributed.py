"""Collectives on a process group of four that moves nothing: what one rank reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.distributed.fsdp._fully_shard._fsdp_collectives  # registers the fsdp ops
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from attnprof.costs.pricing import price
from support import cost_of, only_op, ops_of, traffic_of

F32 = 4  # bytes
RANKS, N = 4, 6


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    dist.destroy_process_group()


def shard() -> Tensor:
    return torch.zeros(N)


def whole() -> Tensor:
    return torch.zeros(RANKS * N)


def shards() -> list[Tensor]:
    return [shard() for _ in range(RANKS)]


ONE, ALL = F32 * N, F32 * RANKS * N

#: The op, and the bytes that rank 0 reads and writes.
COLLECTIVES: list[tuple[str, Callable[[], Any], int, int]] = [
    ("c10d.allreduce_", lambda: dist.all_reduce(shard()), ONE, ONE),
    ("c10d.broadcast_", lambda: dist.broadcast(shard(), 0), 0, ONE),
    ("c10d.reduce_", lambda: dist.reduce(shard(), 0), ONE, 0),
    ("c10d.allgather_", lambda: dist.all_gather(shards(), shard()), ONE, ALL),
    ("c10d._allgather_base_", lambda: dist.all_gather_into_tensor(whole(), shard()), ONE, ALL),
    ("c10d._reduce_scatter_base_", lambda: dist.reduce_scatter_tensor(shard(), whole()), ALL, ONE),
    ("c10d.reduce_scatter_", lambda: dist.reduce_scatter(shard(), shards()), ALL, ONE),
    ("c10d.gather_", lambda: dist.gather(shard(), shards()), ONE, ALL),  # the root
    ("c10d.gather_", lambda: dist.gather(shard(), dst=1), ONE, 0),  # another rank
    ("c10d.scatter_", lambda: dist.scatter(shard(), shards()), ALL, ONE),
    ("c10d.scatter_", lambda: dist.scatter(shard(), src=1), 0, ONE),
    ("c10d.alltoall_base_", lambda: dist.all_to_all_single(whole(), whole()), ALL, ALL),
    ("c10d.send", lambda: dist.send(shard(), 1), ONE, 0),
    ("c10d.recv_", lambda: dist.recv(shard(), 1), 0, ONE),
]


@pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")
@pytest.mark.parametrize(("name", "run", "read", "written"), COLLECTIVES)
def test_a_rank_reads_what_it_sends_and_writes_what_it_receives(
    name: str, run: Callable[[], Any], read: int, written: int
) -> None:
    cost = cost_of(run, name)
    assert (cost.flops, cost.read_bytes, cost.write_bytes) == (0, read, written)


@pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")
def test_functional_collectives_write_a_new_tensor_and_waiting_is_free() -> None:
    world = dist.group.WORLD
    assert world is not None
    runs: dict[str, tuple[Callable[[], Tensor], int, int]] = {
        "all_reduce": (lambda: functional.all_reduce(shard(), "sum", world), ONE, ONE),
        "all_gather_into_tensor": (lambda: functional.all_gather_tensor(shard(), 0, world), ONE, ALL),
        "reduce_scatter_tensor": (lambda: functional.reduce_scatter_tensor(whole(), "sum", 0, world), ALL, ONE),
    }
    for name, (run, read, written) in runs.items():
        assert traffic_of(run, f"_c10d_functional.{name}") == (read, written), name
        assert {price(op).status for op in ops_of(lambda run=run: run() + 1)} <= {"priced", "free"}, name


def test_a_barrier_moves_nothing() -> None:
    assert price(only_op(dist.barrier, "c10d.barrier")).status == "free"


def test_fsdp_copies_in_and_out_of_its_buffers() -> None:
    fsdp = torch.ops.fsdp
    gathered = whole()
    run = lambda: fsdp.all_gather_copy_in([torch.zeros(4), torch.zeros(2)], gathered, [4, 2], N, 0)  # noqa: E731
    assert traffic_of(run, "fsdp.all_gather_copy_in") == (ONE, ONE)  # this rank's part of the buffer
    parts = [torch.zeros(RANKS, 4), torch.zeros(RANKS, 2)]
    run = lambda: fsdp.split_with_sizes_copy(gathered.view(RANKS, N), [4, 2], dim=1, out=parts)  # noqa: E731
    assert traffic_of(run, "fsdp.split_with_sizes_copy") == (ALL, ALL)
    gradients, chunks = [torch.zeros(3, 2), torch.zeros(4)], torch.zeros(RANKS, 3)
    run = lambda: fsdp.chunk_cat(gradients, 0, RANKS, out=chunks)  # noqa: E731
    assert traffic_of(run, "fsdp.chunk_cat") == (F32 * (3 * 2 + 4), F32 * RANKS * 3)  # 3 rows padded to 4
    assert traffic_of(lambda: fsdp.copy_(shard(), shard()), "fsdp.copy_") == (ONE, ONE)
