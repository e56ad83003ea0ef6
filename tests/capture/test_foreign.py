"""Programs without plain modules or plain tensors: scripted, traced, exported; nested, sparse, distributed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnprof

D = 8
X = torch.ones(4, D)
LINEAR = 2 * 4 * D * D  # FLOPs of one Linear on X


def matmul_by_module(report: attnprof.Report) -> dict[str, int]:
    return {name: cost.matmul_flops for name, cost in report.by_module().items() if cost.matmul_flops}


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D))


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_totals(how: str) -> None:
    scripted = torch.jit.script(model()) if how == "script" else torch.jit.trace(model(), X)
    report = attnprof.run(scripted, (X,))
    assert report.total.matmul_flops == 2 * LINEAR
    assert report.unpriced == {}


def test_an_exported_program_and_one_that_is_exported_meanwhile() -> None:
    exported = torch.export.export(model(), (X,)).module()
    assert attnprof.run(exported, (X,)).total.matmul_flops == 2 * LINEAR
    with attnprof.profile() as prof:
        inside = torch.export.export(model(), (X,)).module()  # tracing is not running
        inside(X)
    assert prof.report().total.matmul_flops == 2 * LINEAR


def test_jagged_tensors_count_their_rows() -> None:
    rows = torch.nested.nested_tensor([torch.ones(3, D), torch.ones(5, D)], layout=torch.jagged)
    layer = nn.Linear(D, D)
    with attnprof.profile(layer) as prof:
        layer(rows).values().sum().backward()
    report = prof.report()
    assert report.phases["forward"].matmul_flops == 2 * (3 + 5) * D * D
    assert report.phases["backward"].matmul_flops == 2 * (3 + 5) * D * D  # dW only
    assert report.unpriced == {}


@pytest.mark.filterwarnings("ignore:.*nested tensors.*prototype")
def test_nested_tensors_count_their_rows() -> None:
    rows = torch.nested.nested_tensor([torch.ones(3, D), torch.ones(5, D)])
    report = attnprof.run(nn.Linear(D, D), (rows,))
    assert report.total.matmul_flops == 2 * (3 + 5) * D * D


def test_jagged_attention_counts_real_lengths() -> None:
    heads, dh = 2, 4
    rows = [torch.randn(n, heads, dh) for n in (3, 5)]
    q = torch.nested.nested_tensor(rows, layout=torch.jagged).transpose(1, 2)
    with attnprof.profile() as prof:
        F.scaled_dot_product_attention(q, q, q)
    assert prof.report().total.matmul_flops == 4 * heads * dh * (3 * 3 + 5 * 5)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_products_count_stored_entries(layout: str) -> None:
    dense = torch.zeros(6, D)
    dense[0, 1] = dense[3, 2] = dense[5, 5] = 1.0
    sparse = dense.to_sparse() if layout == "coo" else dense.to_sparse_csr()
    with attnprof.profile() as prof:
        sparse @ torch.ones(D, 7)
    assert prof.report().total.matmul_flops == 2 * 3 * 7  # nnz = 3


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[torch.distributed.device_mesh.DeviceMesh]:
    """A real process group of one."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_dtensors_count_the_local_op_and_not_their_shape_propagation(
    mesh: torch.distributed.device_mesh.DeviceMesh,
) -> None:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    x = distribute_tensor(torch.ones(4, D), mesh, [Shard(0)])
    w = distribute_tensor(torch.ones(D, 6), mesh, [Replicate()])
    for _ in range(2):  # the first time torch propagates shapes on fake tensors, the second it remembers
        with attnprof.profile() as prof:
            x @ w
        assert prof.report().total.matmul_flops == 2 * 4 * D * 6


def test_ddp_keeps_the_names_of_the_model(mesh: torch.distributed.device_mesh.DeviceMesh) -> None:
    wrapped = nn.parallel.DistributedDataParallel(model())
    with attnprof.profile(wrapped) as prof:
        wrapped(X).sum().backward()
    report = prof.report()
    # the first layer has dW only, the second dW and dX
    assert matmul_by_module(report) == {"": 5 * LINEAR, "0": 2 * LINEAR, "2": 3 * LINEAR}
    assert report.root.class_name == "Sequential"
    assert report.root.calls == 1
    assert report.unpriced == {}


def test_fsdp2_counts_what_this_rank_computes(mesh: torch.distributed.device_mesh.DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard

    net = model()
    for layer in (net[0], net[2], net):
        fully_shard(layer, mesh=mesh)
    with attnprof.profile(net) as prof:
        net(X).sum().backward()
    report = prof.report()
    assert matmul_by_module(report) == {"": 5 * LINEAR, "0": 2 * LINEAR, "2": 3 * LINEAR}
    assert report.unpriced == {}
