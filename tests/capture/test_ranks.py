"""Models spread over processes: what this rank computes, whose class it is, and when theory knows it.

The process group is one of four that moves nothing; the layers' shapes are those of real ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

import attnprof

RANKS, ROWS, D, F = 4, 3, 8, 16
UP = DOWN = 2 * ROWS * D * F  # FLOPs of each Linear, whole


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    dist.destroy_process_group()


def feed_forward() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, F), nn.ReLU(), nn.Linear(F, D))


def trained(net: nn.Module) -> attnprof.Report:
    with attnprof.profile(net) as prof:
        net(torch.ones(ROWS, D)).sum().backward()
    return prof.report()


def matmul(report: attnprof.Report) -> dict[str, int]:
    return {name: cost.matmul_flops for name, cost in report.by_module().items() if cost.matmul_flops}


def sharded(mesh: DeviceMesh) -> nn.Sequential:
    net = feed_forward()
    for part in (net[0], net[2], net):
        fully_shard(part, mesh=mesh)
    return net


def parallel(mesh: DeviceMesh) -> nn.Module:
    return parallelize_module(feed_forward(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def test_fully_sharded_layers_compute_whole_and_are_predicted() -> None:
    """Weights are put together for the forward: each rank multiplies whole ones, for rows of its own."""
    report = trained(sharded(init_device_mesh("cpu", (RANKS,))))
    # The first layer's input needs no gradient.
    assert matmul(report) == {"": 5 * UP, "0": 2 * UP, "2": 3 * DOWN}
    assert report.root.class_name == "Sequential"
    assert {record.fqn: record.class_name for record in report.trace.modules}["2"] == "Linear"
    assert {c.formula for c in report.comparisons if c.module == "2"} == {"linear"}
    assert [c for c in report.comparisons if c.residual] == []
    assert report.theory.reasons == {}


def test_a_part_of_a_layer_is_counted_and_not_predicted() -> None:
    """Tensor parallelism: this rank multiplies a quarter of each weight, and no formula contradicts that."""
    report = trained(parallel(init_device_mesh("cpu", (RANKS,))))
    assert matmul(report) == {"": 5 * UP // RANKS, "0": 2 * UP // RANKS, "2": 3 * DOWN // RANKS}
    assert [c for c in report.comparisons if c.deviation] == []
    assert "spread over ranks" in str(report.theory.reasons["0"])
    assert "spread over ranks" in str(report)


def test_a_layer_whole_on_one_rank_is_predicted() -> None:
    """A mesh of one: the part is the whole."""
    report = trained(parallel(init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("data", "model"))["model"]))
    assert matmul(report) == {"": 5 * UP, "0": 2 * UP, "2": 3 * DOWN}
    assert [c for c in report.comparisons if c.residual] == []


def test_both_at_once() -> None:
    """Sharded parts: put together they are still parts."""
    mesh = init_device_mesh("cpu", (2, RANKS // 2), mesh_dim_names=("data", "model"))
    net = parallel(mesh["model"])
    fully_shard(net, mesh=mesh["data"])
    report = trained(net)
    assert matmul(report) == {"": 5 * UP // 2, "0": 2 * UP // 2, "2": 3 * DOWN // 2}
    assert [c for c in report.comparisons if c.deviation] == []
    assert "spread over ranks" in str(report.theory.reasons["2"])
