"""Higher-order ops: opened so that what they run is counted, with the results and gradients of a bare run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils._pytree import tree_leaves

import attnprof

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns that these are prototypes

N = 4
MM = 2 * N * N * N
MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


def counted(run: Callable[[], Any], context: AbstractContextManager[Any]) -> tuple[Any, attnprof.Report]:
    with context, attnprof.profile() as prof:
        out = run()
    return out, prof.report()


def assert_same(found: Any, expected: Any) -> None:
    pairs = list(zip(tree_leaves(found), tree_leaves(expected), strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("mode", MODES)
def test_cond_runs_the_branch_it_takes(mode: Any) -> None:
    x, w = torch.eye(N), torch.ones(N, N)

    def run() -> Tensor:
        return torch.cond(x.sum() > 0, lambda a: a @ w @ w, lambda a: a + w, (x,))

    out, report = counted(run, mode())
    assert_same(out, x @ w @ w)
    assert report.total.matmul_flops == 2 * MM
    assert report.unpriced == {}


@pytest.mark.parametrize("mode", MODES)
def test_while_loop_runs_every_turn(mode: Any) -> None:
    def run() -> tuple[Tensor, Tensor]:
        return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a @ a), (torch.tensor(0), torch.eye(N)))

    out, report = counted(run, mode())
    assert_same(out, (torch.tensor(3), torch.eye(N)))
    assert report.total.matmul_flops == 3 * MM
    assert report.unpriced == {}


@pytest.mark.parametrize("mode", MODES)
def test_scan_runs_every_row(mode: Any) -> None:
    w, rows = torch.full((N, N), 0.5), torch.arange(3.0)[:, None, None].expand(3, N, N)

    def run() -> tuple[Tensor, Tensor]:
        return scan(lambda c, x: (c @ w, c + x), torch.eye(N), rows)

    with mode():
        expected = run()
    out, report = counted(run, mode())
    assert_same(out, expected)
    assert report.total.matmul_flops == 3 * MM
    assert report.unpriced == {}


@pytest.mark.parametrize("mode", MODES)
def test_associative_scan_counts_its_combines(mode: Any) -> None:
    x = torch.arange(1.0, 9.0)[:, None]

    def run() -> Tensor:
        return associative_scan(lambda a, b: a * b, x, 0, combine_mode="generic")

    out, report = counted(run, mode())
    assert_same(out, torch.cumprod(x, 0))
    # Blelloch's work-efficient scan over 8: 4 + 2 + 1 up, 1 + 3 down
    assert report.total.vector_flops == 11
    assert report.unpriced == {}


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("cond", MM, MM),  # x needs no gradient, so only dW
        ("scan", 3 * MM, 5 * MM),  # three dW and, but for the first row's carry, two dX
    ],
)
def test_control_flow_has_its_gradients(name: str, forward: int, backward: int) -> None:
    w = torch.full((N, N), 0.5, requires_grad=True)
    x, rows = torch.eye(N), torch.ones(3, N, N)

    def run() -> Tensor:
        if name == "cond":
            return torch.cond(x.sum() > 0, lambda a: a @ w, lambda a: a + w, (x,))
        return scan(lambda c, r: (c @ w, c + r), x, rows)[0]

    run().sum().backward()
    expected, w.grad = w.grad, None
    with attnprof.profile() as prof:
        run().sum().backward()
    assert torch.equal(w.grad, expected)
    report = prof.report()
    assert report.phases["forward"].matmul_flops == forward
    assert report.phases["backward"].matmul_flops == backward
    assert report.phases["recompute"].matmul_flops == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masked", [False, True])
def test_eager_flex_attention_runs_and_counts_its_two_products(mode: Any, masked: bool) -> None:
    b, h, t, dh = 1, 2, 128, 16
    q, k, v = (torch.randn(b, h, t, dh) for _ in range(3))
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, t, t, device="cpu") if masked else None

    def run() -> Tensor:
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + i - j, block_mask=mask)

    with mode():
        expected = run()
    out, report = counted(run, mode())
    assert_same(out, expected)
    assert report.total.matmul_flops == 2 * 2 * b * h * t * t * dh
    assert report.unpriced == {}


def test_a_higher_order_op_nobody_can_open_is_listed() -> None:
    with attnprof.fake_tensors(), attnprof.profile() as prof:
        x = torch.randn(N, N)
        torch.cond(x.sum() > 0, lambda a: a @ a, lambda a: a + a, (x,))
    assert prof.report().unpriced["higher_order.cond"] == 1


def test_nothing_of_control_flow_stays_patched() -> None:
    before = {name: dict(getattr(torch.ops.higher_order, name)._dispatch_cache) for name in ("cond", "scan")}
    with attnprof.profile():
        torch.cond(torch.tensor(True), lambda a: a, lambda a: a + 1, (torch.ones(2),))
    after = {name: dict(getattr(torch.ops.higher_order, name)._dispatch_cache) for name in ("cond", "scan")}
    assert {n: {k: v for k, v in c.items() if k in before[n]} for n, c in after.items()} == before
    assert not any("eager" in getattr(f, "__qualname__", "") for c in after.values() for f in c.values())


def test_the_first_control_flow_of_a_process() -> None:
    """It imports dynamo, in the middle of the profile: nothing may be compiled there."""
    code = """
import torch, attnprof
x = torch.eye(4)
with attnprof.profile() as prof:
    torch.cond(x.sum() > 0, lambda a: a @ a, lambda a: a + a, (x,))
assert prof.report().total.matmul_flops == 2 * 4**3
assert torch._dynamo.eval_frame._stance.stance == "default"
assert torch._higher_order_ops.utils._hop_compile_and_call.__module__.startswith("torch.")
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
