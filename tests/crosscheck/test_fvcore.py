"""fvcore by its own rules: a multiply-add is 1, norms are 4 or 5 per element, what has no handle is 0."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import attnprof
from attnprof.core.crosscheck import CheckedModule, Crosscheck, Kind
from crosscheck.models import MODELS, Call, MadeAnew, attend

B, T, D, H = 2, 5, 8, 4


def check(model: nn.Module, *args: Tensor, backward: bool = False) -> Crosscheck:
    (found,) = attnprof.crosscheck(model, args, tools="fvcore", backward=backward).crosschecks
    assert found.unexplained == 0
    return found


def total(model: nn.Module, *args: Tensor, backward: bool = False) -> CheckedModule:
    found = check(model, *args, backward=backward).total
    assert found is not None
    return found


def of(module: CheckedModule, kind: Kind) -> dict[str, int]:
    """What each op of a kind of cause amounts to."""
    return {part.op: part.flops for cause in module.causes if cause.kind == kind for part in cause.parts}


def test_multiply_adds_are_two_flops() -> None:
    found = total(nn.Linear(D, H), torch.randn(B, D))
    assert (found.said, found.theirs, found.matmul) == (B * D * H, 2 * B * D * H, 2 * B * D * H)
    assert of(found, "convention") == {"linear": -B * H}  # the bias


def test_a_norm_is_estimated_at_five_per_element() -> None:
    found = total(nn.LayerNorm(D), torch.randn(B, D))
    assert found.said == found.theirs == 5 * B * D
    assert of(found, "convention") == {"layer_norm": 5 * B * D - found.vector}


def test_a_batch_norm_in_evaluation_is_two_per_element() -> None:
    found = total(nn.BatchNorm1d(D).eval(), torch.randn(B, D))
    assert found.said == found.theirs == 2 * B * D
    assert found.of_kind("path") == 0


def test_convolutions_by_groups_and_backwards_are_right() -> None:
    size, kernel = 9, 3
    x = torch.randn(B, 4, size, size)
    grouped = total(nn.Conv2d(4, H, kernel, groups=2, bias=False), x)
    assert grouped.theirs == grouped.matmul == 2 * B * H * 2 * kernel**2 * (size - kernel + 1) ** 2
    transposed = total(nn.ConvTranspose2d(4, H, kernel, bias=False), x)
    assert transposed.theirs == transposed.matmul == 2 * B * 4 * H * kernel**2 * size**2


def test_a_fused_attention_is_unsupported() -> None:
    found = total(Call(attend, D), torch.randn(B, H, T, D))
    attention, softmax = 2 * 2 * B * H * T * T * D, found.vector
    assert found.theirs == 2 * B * H * T * D * D
    assert of(found, "unsupported") == {"aten::scaled_dot_product_attention": -attention - softmax}


def test_activations_are_taken_for_free_or_unsupported_as_its_lists_have_them() -> None:
    x = torch.randn(B, D)
    assert of(total(nn.ReLU(), x), "convention") == {"aten::relu": -B * D}
    sigmoid = total(nn.Sigmoid(), x)
    assert of(sigmoid, "unsupported") == {"aten::sigmoid": -sigmoid.vector}


def test_batches_of_a_second_operand_alone_are_left_out() -> None:
    found = total(Call(lambda w, x: w @ x, D), torch.randn(B, H, D, T))
    assert (found.theirs, found.matmul) == (2 * D * D * T, B * H * 2 * D * D * T)
    assert of(found, "formula") == {"matmul": -(B * H - 1) * 2 * D * D * T}


def test_an_einsum_without_a_sum_is_counted_as_if_it_had_one() -> None:
    found = total(Call(lambda w, x: torch.einsum("bi,jk->bijk", x, w), D), torch.randn(B, H))
    assert (found.theirs, found.matmul) == (B * H * D * D, 0)
    assert of(found, "convention") == {"einsum": -B * H * D * D}  # one multiplication for each output
    assert of(found, "formula") == {"einsum": B * H * D * D}


def test_complex_numbers_count_as_real_ones() -> None:
    x = torch.randn(B, D, dtype=torch.complex64)
    found = total(nn.Linear(D, H, bias=False, dtype=torch.complex64), x)
    assert (found.matmul, found.theirs) == (8 * B * D * H, 2 * B * D * H)
    assert of(found, "formula") == {"linear": -6 * B * D * H}


def test_work_whose_result_is_not_returned_is_not_in_a_trace() -> None:
    found = total(Call(lambda w, x: (w @ w, x @ w)[1], D), torch.randn(B, D))
    assert (found.theirs, found.matmul) == (2 * B * D * D, 2 * B * D * D + 2 * D**3)
    assert of(found, "path") == {"aten::matmul": -2 * D**3}


def test_what_an_autograd_function_runs_is_not_in_a_trace() -> None:
    model, args = MODELS["autograd.Function"]()
    found = total(model, *args)
    assert (found.theirs, of(found, "path")) == (0, {"aten::matmul": -2 * 3 * 4 * 4})


def test_only_the_forward_is_compared() -> None:
    x = torch.randn(B, D, requires_grad=True)
    found = check(nn.Linear(D, H, bias=False), x, backward=True)
    assert found.phases == ("forward",)
    assert found.total is not None
    assert found.total.matmul == found.total.theirs == 2 * B * D * H


def test_a_native_fast_path_is_not_what_is_traced() -> None:
    """Its hooks switch the fast path off: the layer is one op here, and several there, of the same work."""
    layer = nn.TransformerEncoderLayer(D, 2, 4 * D, batch_first=True).eval()
    with torch.no_grad():
        report = attnprof.crosscheck(layer, (torch.randn(B, T, D),), tools="fvcore")
    assert "aten._transformer_encoder_layer_fwd.default" in report.by_operator()
    (found,) = report.crosschecks
    assert found.unexplained == 0
    assert found.total is not None
    linear, norm = 2 * B * T * D * 4 * D, 5 * B * T * D
    assert found.modules["linear1"].theirs == linear
    assert found.modules["linear1"].ours == 0
    assert found.total.theirs == 2 * linear + 2 * norm
    assert "aten::_native_multi_head_attention" in of(found.total, "unsupported")  # which has no hooks of its own
    path = of(found.total, "path")
    assert path.pop("aten._transformer_encoder_layer_fwd.default") == -found.total.ours == -sum(path.values())


def test_a_module_that_is_made_in_each_call_has_no_scope_there() -> None:
    found = check(MadeAnew(), torch.randn(B, 4))
    softmax = found.modules["(Softmax)"]
    assert softmax.theirs == 0
    assert {cause.kind for cause in softmax.causes} == {"unsupported"}


def test_what_cannot_be_traced_is_said_in_a_sentence() -> None:
    """A vector of one dimension is not what its handle for matmul was written for."""
    report = attnprof.crosscheck(Call(lambda w, x: w @ x, D), (torch.randn(D),), tools="fvcore")
    (found,) = report.crosschecks
    if not found.problem:  # torch gives it to another op
        assert found.unexplained == 0
    report = attnprof.crosscheck(nn.GroupNorm(2, D), (torch.randn(B, D, 2, 2, 2, 2),), tools="fvcore")
    (found,) = report.crosschecks
    assert found.problem.startswith("it raised AssertionError")
    assert found.modules == {}
    assert found.total is None
    assert report.total.vector_flops > 0


def test_numbers_without_an_explanation_are_not_passed_off_as_explained() -> None:
    """A model that cannot be watched while it is traced, and can be traced."""

    def shy(weight: Tensor, x: Tensor) -> Tensor:
        if torch.jit.is_tracing() and _get_current_dispatch_mode_stack():
            raise RuntimeError("not while you look")
        return x @ weight + 1

    (found,) = attnprof.crosscheck(Call(shy, D), (torch.randn(B, D),), tools="fvcore").crosschecks
    assert found.total is not None
    assert found.total.theirs == 2 * B * D * D
    assert found.unexplained == found.total.vector == B * D
    assert "RuntimeError where its ops were watched" in found.caveat


def test_fake_runs_and_generations_are_not_for_it() -> None:
    (found,) = attnprof.crosscheck(nn.Linear(D, H), (torch.randn(B, D),), tools="fvcore", fake=True).crosschecks
    assert found.problem == "it needs a torch.jit trace, and fake tensors cannot be traced."


def test_where_it_is_not_installed_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    fvcore, torch_ = attnprof.crosscheck(nn.Linear(D, H), (torch.randn(B, D),)).crosschecks
    assert fvcore.problem == "it is not installed: pip install fvcore."
    assert torch_.problem == ""
