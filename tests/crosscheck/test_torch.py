"""torch's counter by its own rules: 2 per multiply-add of the contractions that it has formulas for, else nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

import attnprof
from attnprof.core.crosscheck import CheckedModule, Kind
from attnprof.costs import registry
from attnprof.costs.pricing import price
from attnprof.counters.torch_formulas import flops_of, has_formula
from crosscheck.models import MODELS, Call, Siblings, attend, report_of
from support import only_op

B, T, D, H = 2, 5, 8, 4


def total(model: nn.Module, *args: Tensor, backward: bool = False) -> CheckedModule:
    (check,) = attnprof.crosscheck(model, args, tools="torch", backward=backward).crosschecks
    assert check.unexplained == 0
    assert check.total is not None
    return check.total


def reasons(module: CheckedModule, kind: Kind) -> dict[str, int]:
    return {cause.reason: cause.flops for cause in module.causes if cause.kind == kind}


def test_a_linear_costs_the_same_but_for_its_bias() -> None:
    found = total(nn.Linear(D, H), torch.randn(B, D))
    assert found.theirs == found.matmul == 2 * B * D * H
    assert reasons(found, "convention") == {"scalar arithmetic is not counted there": -B * H}


def test_a_fused_attention_on_the_cpu_counts_as_nothing() -> None:
    q = torch.randn(B, H, T, D)
    found = total(Call(attend, D), q, backward=True)
    product = 2 * B * H * T * D * D  # x @ weight: once forward; its input needs no gradient, its weight does
    assert found.theirs == 2 * product
    once = 2 * B * H * T * T * D  # of Q K^T; forward has two such, the backward four and one recomputed
    assert found.of_kind("unsupported") == -(2 + 5) * once


def test_the_weights_of_a_grouped_convolution_are_too_dear_in_the_backward() -> None:
    groups, channels, out, kernel, size = 2, 4, 8, 3, 9
    x = torch.randn(B, channels, size, size, requires_grad=True)
    found = total(nn.Conv2d(channels, out, kernel, groups=groups, bias=False), x, backward=True)
    positions = (size - kernel + 1) ** 2
    once = 2 * B * out * (channels // groups) * kernel**2 * positions
    assert found.matmul == 3 * once
    assert found.theirs == once + once + groups * once
    assert [c.flops for c in found.causes if c.kind == "formula"] == [(groups - 1) * once]


def test_a_depthwise_convolution_is_as_many_times_too_dear_as_it_has_channels() -> None:
    channels, kernel, size = 6, 3, 9
    x = torch.randn(B, channels, size, size, requires_grad=True)
    found = total(nn.Conv2d(channels, channels, kernel, groups=channels, bias=False), x, backward=True)
    once = 2 * B * channels * kernel**2 * (size - kernel + 1) ** 2
    assert (found.matmul, found.theirs) == (3 * once, (2 + channels) * once)


def test_complex_numbers_count_as_real_ones() -> None:
    x = torch.randn(B, D, dtype=torch.complex64)
    found = total(nn.Linear(D, H, bias=False, dtype=torch.complex64), x)
    assert (found.matmul, found.theirs) == (8 * B * D * H, 2 * B * D * H)
    assert found.of_kind("formula") == -6 * B * D * H


def test_a_matrix_times_a_vector_has_no_formula() -> None:
    found = total(Call(lambda w, x: torch.mv(w, x), D), torch.randn(D))
    assert (found.matmul, found.theirs, found.of_kind("unsupported")) == (2 * D * D, 0, -2 * D * D)


def test_an_lstm_of_one_kernel_has_no_formula() -> None:
    found = total(nn.LSTM(D, H, bias=False), torch.randn(T, B, D))
    gates = 2 * T * B * 4 * H * (D + H)
    assert (found.matmul, found.theirs, found.of_kind("unsupported")) == (gates, 0, -gates)


def test_causal_attention_is_dense_there_as_here() -> None:
    """With weights, torch on the CPU computes it by two bmm."""
    masked = nn.MultiheadAttention(D, 2, bias=False, batch_first=True)
    mask = torch.ones(T, T).triu(1).bool()
    x = torch.randn(B, T, D)
    (check,) = attnprof.crosscheck(masked, (x, x, x), {"attn_mask": mask}, tools="torch").crosschecks
    assert check.total is not None
    projections, scores = 4 * 2 * B * T * D * D, 2 * 2 * B * T * T * D
    assert check.total.theirs == check.total.matmul == projections + scores


def test_the_backward_of_siblings_is_booked_to_each_other() -> None:
    """A module is left there when the gradient of its input is complete, which q, k and v share: v, whose backward
    runs first, stays entered while k's and q's run, and k while q's runs. The dropout drops nothing, so that its
    output is its input, and it is entered when it should be left.
    """
    (check,) = attnprof.crosscheck(Siblings(D), (torch.randn(B, D),), tools="torch", backward=True).crosschecks
    own = 2 * B * D * D
    moved = {}
    for name in ("q", "k", "v", "drop"):
        causes = [cause for cause in check.modules[name].causes if cause.kind == "attribution"]
        moved[name] = {part.place: part.flops for cause in causes for part in cause.parts}
    assert moved["drop"] == {"first": own}
    assert (moved["q"], moved["k"], moved["v"]) == ({}, {"q": 2 * own}, {"q": 2 * own, "k": 2 * own})
    assert [check.modules[name].theirs for name in ("q", "k", "v")] == [3 * own, 5 * own, 7 * own]
    assert check.modules["drop"].ours == 0
    assert check.total is not None
    assert check.total.theirs == check.total.matmul == 2 * own + 3 * 3 * own  # the model's input needs no gradient
    assert check.total.of_kind("attribution") == 0


def test_a_list_of_modules_has_no_row_there_and_gets_those_of_its_members() -> None:
    model, args = MODELS["routed"]()
    (check,) = attnprof.crosscheck(model, args, tools="torch").crosschecks
    members = [check.modules[f"experts.{i}"] for i in range(3)]
    assert check.modules["experts"].theirs == sum(member.theirs for member in members) == 2 * 9 * 4 * 4
    assert check.modules["experts"].of_kind("attribution") == 0


def test_a_loss_that_is_no_part_of_the_model_is_outside() -> None:
    model = nn.Linear(D, H, bias=False)
    report = attnprof.crosscheck(model, (torch.randn(B, D),), tools="torch", loss=lambda y: (y @ y.T).sum())
    (check,) = report.crosschecks
    outside = check.modules["(outside)"]
    forward, backward = 2 * B * B * H, 2 * 2 * B * B * H
    assert outside.theirs == outside.matmul == forward + backward
    assert check.unexplained == 0


def test_an_optimizer_with_contractions_is_counted_too() -> None:
    model = nn.Linear(16, 16, bias=False)
    (check,) = attnprof.crosscheck(model, (torch.randn(B, 16),), tools="torch", optimizer="muon").crosschecks
    optimizer = check.modules["(optimizer)"]
    assert optimizer.matmul > 0
    assert optimizer.theirs == optimizer.matmul
    assert check.unexplained == 0


@pytest.mark.parametrize("name", MODELS)
def test_formulas_given_shapes_say_what_they_say_of_live_tensors(name: str) -> None:
    """Two ways to the same numbers: the counter in a run, and its table asked about the signatures of another."""
    report = report_of(name)
    check = report.crosschecks[1]
    said = 0
    for (signature, _), calls in report.trace.counts().items():
        flops = flops_of(report.trace.signatures[signature])
        assert (flops is not None) == has_formula(report.trace.signatures[signature])
        said += (flops or 0) * calls
    assert check.total is not None
    assert check.total.said == said


def test_both_branches_of_a_cond_are_added() -> None:
    """Here the branch is that of one product; there the other's two are counted as well."""

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda x: x @ x, lambda x: x @ x @ x, (x,))

    found = total(Branches(), torch.ones(D, D))
    assert (found.matmul, found.theirs) == (2 * D**3, 3 * 2 * D**3)
    assert found.of_kind("path") == 2 * 2 * D**3


def test_the_attention_kernels_of_gpus_have_the_same_formulas() -> None:
    """Four products of a backward and one that is recomputed are five there; asked of shapes, without a GPU."""
    q, k = (torch.empty(B, H, n, D, device="meta", dtype=torch.half) for n in (T, 2 * T))
    aten, once = torch.ops.aten, 2 * B * H * T * 2 * T * D

    def flash() -> None:
        out, *kept = aten._scaled_dot_product_flash_attention(q, k, k, 0.0, True)[:8]
        lse, *lengths, seed, offset = kept
        aten._scaled_dot_product_flash_attention_backward(out, q, k, k, out, lse, *lengths, 0.0, True, seed, offset)

    def efficient() -> None:
        out, *kept = aten._scaled_dot_product_efficient_attention(q, k, k, None, True, 0.0, True)
        aten._scaled_dot_product_efficient_attention_backward(
            out, q, k, k, None, out, *kept, 0.0, [True, True, True, False], True
        )

    for run, name in ((flash, "flash"), (efficient, "efficient")):
        forward = only_op(run, f"aten._scaled_dot_product_{name}_attention")
        backward = only_op(run, f"aten._scaled_dot_product_{name}_attention_backward")
        assert flops_of(forward) == price(forward).cost.matmul_flops == 2 * once
        again = price(backward)
        assert flops_of(backward) == again.cost.matmul_flops + again.recompute.matmul_flops == 5 * once


def test_an_op_of_ones_own_counts_there_if_it_is_registered_there() -> None:
    """With one formula for both the two agree; with two, the difference is theirs."""

    @torch.library.custom_op("crosschecked::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return x * 2

    @register_flop_formula(torch.ops.crosschecked.double)
    def _flops(shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return 5 * int(torch.Size(shape).numel())

    model, x = Call(lambda w, x: torch.ops.crosschecked.double(x), D), torch.randn(B, D)
    try:
        found = total(model, x)
        assert (found.theirs, found.matmul) == (5 * B * D, 5 * B * D)
        attnprof.cost("crosschecked::double")(lambda op: attnprof.Work(matmul=7 * op.out.numel))
        found = total(model, x)
        assert (found.theirs, found.matmul, found.of_kind("formula")) == (5 * B * D, 7 * B * D, -2 * B * D)
    finally:
        del flop_registry[torch.ops.crosschecked.double]
        registry.forget("crosschecked.double")
