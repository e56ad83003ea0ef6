"""Matmul FLOPs beside torch's FlopCounterMode and fvcore: equal where those are right, and why where they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnprof.costs import registry
from attnprof.costs.pricing import price
from support import ops_of

Run = Callable[[], Any]


def r(*shape: int, **kwargs: Any) -> Tensor:
    return torch.randn(*shape, **kwargs)


def attnprof(run: Run) -> int:
    """Matmul FLOPs of everything that runs, what the fused attention backward recomputes included."""
    found = [price(op) for op in ops_of(run) if registry.formula_of(op.op) is not None]
    return sum(p.cost.matmul_flops + p.recompute.matmul_flops for p in found)


def torch_counter(run: Run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def fvcore(layer: nn.Module, x: Tensor) -> int:
    """2 x fvcore's multiply-adds of its contraction ops; it counts norms in the same total."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    by_operator = FlopCountAnalysis(layer, x).by_operator()
    return 2 * int(sum(by_operator[name] for name in ("linear", "conv", "matmul", "bmm", "einsum", "addmm")))


def train(layer: nn.Module, x: Tensor) -> Run:
    def run() -> None:
        out = layer(x)
        out = out[0] if isinstance(out, tuple) else out
        out.backward(torch.randn_like(out))

    return run


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 6), (2, 5)),
    "conv": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 7)),
    "dilated": (nn.Conv1d(4, 6, 3, dilation=2), (2, 4, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (2, 4, 5, 5)),
    "mlp": (nn.Sequential(nn.Linear(5, 9), nn.GELU(), nn.Linear(9, 3)), (4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_all_three_agree_on_plain_layers(name: str) -> None:
    layer, shape = LAYERS[name]
    x = r(*shape, requires_grad=True)
    forward = attnprof(lambda: layer(x))
    assert forward == torch_counter(lambda: layer(x)) == fvcore(layer, x)
    assert attnprof(train(layer, x)) == torch_counter(train(layer, x)) == 3 * forward  # fvcore has no backward


def test_explicit_attention_agrees_with_torch_forward_and_backward() -> None:
    q, k, v = (r(6, 5, 8, requires_grad=True) for _ in range(3))

    def run() -> None:
        scores = torch.bmm(q, k.transpose(1, 2))
        torch.bmm(scores.softmax(-1), v).sum().backward()

    assert attnprof(run) == torch_counter(run) == 3 * 2 * (2 * 6 * 5 * 5 * 8)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 7)),
        (nn.Conv1d(8, 8, 3, groups=8), (2, 8, 9)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (2, 4, 5)),
    ],
)
def test_torch_multiplies_the_weight_gradient_of_a_grouped_convolution_by_its_groups(
    layer: nn.Conv2d, shape: tuple[int, ...]
) -> None:
    x = r(*shape, requires_grad=True)
    forward = attnprof(lambda: layer(x))
    assert forward == torch_counter(lambda: layer(x)) == fvcore(layer, x)
    assert attnprof(train(layer, x)) == 3 * forward
    assert torch_counter(train(layer, x)) == (2 + layer.groups) * forward


def test_neither_sees_fused_attention_on_the_cpu() -> None:
    b, h, t, d = 2, 4, 6, 8
    q = r(b, h, t, d, requires_grad=True)
    product = 2 * b * h * t * t * d

    def run() -> None:
        F.scaled_dot_product_attention(q, q, q).sum().backward()

    assert attnprof(run) == (2 + 4 + 1) * product  # the last is recompute
    assert torch_counter(run) == 0

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    assert fvcore(Attention(), q) == 0


def test_neither_sees_the_layers_that_are_one_native_op() -> None:
    lstm, x = nn.LSTM(4, 5), r(3, 2, 4)
    assert attnprof(lambda: lstm(x)) == 2 * 3 * 2 * 4 * 5 * (4 + 5)
    assert torch_counter(lambda: lstm(x)) == fvcore(lstm, x) == 0

    d, f, rows, t = 8, 12, 10, 5
    encoder = nn.TransformerEncoderLayer(d, 2, f, batch_first=True).eval()
    source = r(rows // t, t, d)
    projections = rows * (8 * d * d + 4 * d * f)
    with torch.no_grad():
        assert attnprof(lambda: encoder(source)) == projections + 4 * rows * t * d
        assert torch_counter(lambda: encoder(source)) == 0
        # Its hooks switch the layer's fast path off, but not that of the attention inside: the feed-forward is left.
        assert fvcore(encoder, source) == rows * 4 * d * f


def eye_times(b: Tensor) -> Tensor:
    return torch.eye(4).to_sparse() @ b


#: Contractions with no formula in torch's counter, and the FLOPs they do.
UNSEEN: dict[str, tuple[Run, int]] = {
    "mv": (lambda: torch.mv(r(3, 4), r(4)), 2 * 3 * 4),
    "dot": (lambda: torch.dot(r(4), r(4)), 2 * 4),
    "addmv": (lambda: torch.addmv(r(3), r(3, 4), r(4)), 2 * 3 * 4),
    "addbmm": (lambda: torch.addbmm(r(3, 5), r(2, 3, 4), r(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
    "addr": (lambda: torch.addr(r(3, 4), r(3), r(4)), 2 * 3 * 4),
    "int8": (
        lambda: torch._int_mm(torch.ones(4, 8, dtype=torch.int8), torch.ones(8, 8, dtype=torch.int8)),
        2 * 4 * 8 * 8,
    ),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5)(r(2, 3), r(2, 4)), 2 * 2 * 5 * 3 * 4 + 2 * 2 * 5 * 4),
    "routed": (
        lambda: torch._grouped_mm(
            r(20, 16).bfloat16(), r(2, 16, 8).bfloat16(), offs=torch.tensor([3, 10], dtype=torch.int32)
        ),
        2 * 10 * 16 * 8,
    ),
    "cdist": (lambda: torch.cdist(r(30, 4), r(30, 4)), 2 * 30 * 30 * (4 + 2)),
    "inverse": (lambda: torch.linalg.inv(r(4, 4)), 2 * 4**3),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_contractions_torch_s_counter_has_no_formula_for(name: str) -> None:
    run, expected = UNSEEN[name]
    assert (attnprof(run), torch_counter(run)) == (expected, 0)


def test_torch_counts_complex_products_as_real_and_sparse_ones_as_dense() -> None:
    m, k, n = 3, 4, 5
    a, b = r(m, k, dtype=torch.complex64), r(k, n, dtype=torch.complex64)
    assert (attnprof(lambda: a @ b), torch_counter(lambda: a @ b)) == (8 * m * k * n, 2 * m * k * n)
    dense = r(4, n)
    assert attnprof(lambda: eye_times(dense)) == 2 * 4 * n  # 4 stored entries
    assert torch_counter(lambda: eye_times(dense)) == 2 * 4 * 4 * n
