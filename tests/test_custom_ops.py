"""Ops from outside torch: priced by their author, by torch's own registry, or listed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

import attnprof
from attnprof.costs import registry


@torch.library.custom_op("attnprof_test::rope", mutates_args=())
def rope(x: Tensor, angle: float) -> Tensor:
    return x * angle


@rope.register_fake
def _(x: Tensor, angle: float) -> Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.attnprof_test.rope(x, 0.5) + 1


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    registry.forget("attnprof_test::rope")
    flop_registry.pop(torch.ops.attnprof_test.rope, None)


X = torch.ones(3, 4)


def test_an_unknown_op_is_listed_with_its_calls_shapes_and_traffic() -> None:
    report = attnprof.run(Net(), (X,))
    assert report.unpriced == {"attnprof_test.rope.default": 1}
    [op] = report.unpriced_ops
    assert op.shapes == ("(float32[3,4])",)
    assert op.bytes == 2 * 12 * 4  # read x, write the result
    assert report.counts["unpriced"] == 1
    assert report.coverage < 1
    assert "attnprof_test.rope" in str(report)


def test_strict_refuses_an_unknown_op_and_says_what_to_do() -> None:
    with pytest.raises(attnprof.UnpricedError, match=r"attnprof_test\.rope\.default \(1 call\)"):
        attnprof.run(Net(), (X,), strict=True)
    with attnprof.profile(strict=True) as prof:
        Net()(X)
    with pytest.raises(attnprof.UnpricedError, match=r"attnprof\.cost\('attnprof_test::rope'\)"):
        prof.report()


@pytest.mark.parametrize("fake", [False, True])
def test_a_formula_prices_it(fake: bool) -> None:
    @attnprof.cost("attnprof_test::rope")
    def formula(op: attnprof.OpSignature) -> attnprof.Work:
        return attnprof.Work(matmul=2 * op.tensor("x").numel, vector=3 * op.out.numel)

    report = attnprof.run(Net(), (X,), strict=True, fake=fake)
    assert report.total.matmul_flops == 2 * 12
    assert report.total.vector_flops == 3 * 12 + 12  # and the + 1
    assert report.total.bytes == 2 * (2 * 12 * 4)


def test_a_saved_run_keeps_the_price_where_the_formula_is_not(tmp_path: Path) -> None:
    @attnprof.cost("attnprof_test::rope")
    def formula(op: attnprof.OpSignature) -> attnprof.Work:
        return attnprof.Work(matmul=2 * op.out.numel, vector=op.out.numel)

    report = attnprof.run(Net(), (X,))
    report.save(tmp_path / "run.json")
    code = (
        "import attnprof, sys; r = attnprof.load(sys.argv[1]); "
        "print(r.total.matmul_flops, r.total.vector_flops, r.total.bytes, r.unpriced, 'torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.json")], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == f"{2 * 12} {12 + 12} {report.total.bytes} {{}} False"


def test_formulas_registered_with_torch_are_honoured(tmp_path: Path) -> None:
    @register_flop_formula(torch.ops.attnprof_test.rope)
    def flops(x_shape: tuple[int, ...], angle: float, *args: object, out_shape: object = None, **kw: object) -> int:
        return 7 * x_shape[0] * x_shape[1]

    report = attnprof.run(Net(), (X,), strict=True)
    assert report.total.matmul_flops == 7 * 12
    report.save(tmp_path / "run.json")
    assert attnprof.load(tmp_path / "run.json").total == report.total


def test_a_second_price_is_refused() -> None:
    attnprof.cost("attnprof_test::rope")(lambda op: attnprof.Work())
    with pytest.raises(attnprof.AttnprofError, match="already priced"):
        attnprof.cost("attnprof_test.rope")(lambda op: attnprof.Work())
    with pytest.raises(attnprof.AttnprofError, match="already priced"):
        attnprof.cost("aten::mm")(lambda op: attnprof.Work())


def test_a_name_that_is_none() -> None:
    with pytest.raises(attnprof.AttnprofError, match="'rope' is not an op name"):
        attnprof.cost("rope")


def test_a_formula_that_fails_says_where() -> None:
    @attnprof.cost("attnprof_test::rope")
    def wrong(op: attnprof.OpSignature) -> attnprof.Work:
        return attnprof.Work(op.tensor("y").numel)

    with pytest.raises(attnprof.AttnprofError, match=r"formula for attnprof_test\.rope.*float32\[3,4\].*'y'.*x, angle"):
        attnprof.run(Net(), (X,))


def test_a_formula_that_returns_something_else() -> None:
    attnprof.cost("attnprof_test::rope")(lambda op: 12)  # type: ignore[arg-type,return-value]
    with pytest.raises(attnprof.AttnprofError, match=r"returned 12; it must return attnprof\.Work"):
        attnprof.run(Net(), (X,))
