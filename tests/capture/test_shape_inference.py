"""Ops that torch runs on ``meta`` tensors to learn a shape are not work of a run on real ones."""

from __future__ import annotations

import torch

import attnprof


def test_forward_mode_asks_for_shapes_and_is_not_charged_for_it() -> None:
    """d(x y + x) along x: the tangent of the constant is a tensor of zeros that torch only shapes."""
    x, y = torch.ones(3), torch.ones(3)
    with attnprof.profile() as prof:
        torch.func.jvp(lambda x: x * y + x, (x,), (torch.ones(3),))
        prof.step()
    report = prof.report()
    assert not any(t.device == "meta" for op, _ in report.trace.events() for t in op.inputs)
    assert report.unpriced == {}
    assert report.trace.steps == [len(report.trace)]


def test_a_run_on_meta_is_counted() -> None:
    with attnprof.profile() as prof:
        torch.ones(3, 4, device="meta") @ torch.ones(4, 5, device="meta")
    assert prof.report().total.matmul_flops == 2 * 3 * 4 * 5
