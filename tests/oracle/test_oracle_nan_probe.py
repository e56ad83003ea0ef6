"""Which inputs a kernel reads, asked of the kernel: poison one element and see whether any output changes.

This knows nothing of the ops. An element whose poison never shows is unread, or absorbed by a comparison; ops
that compare or select are therefore not probed. Integers cannot be poisoned and count as read. In place, a
poisoned element that only stays where it was has not been read.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof.costs.pricing import price
from oracle.layouts import spread
from support import only_op

aten = torch.ops.aten


def _copies(value: Any, memo: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return memo.setdefault(id(value), value.clone())
    if isinstance(value, list):
        return [_copies(v, memo) for v in value]
    return value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []


def _run(op: Any, args: tuple[Any, ...], suspect: Tensor, at: int, poison: bool) -> list[Tensor]:
    """Outputs and arguments after one run, without element ``at`` of the suspect itself."""
    memo: dict[int, Tensor] = {}
    copied = [_copies(a, memo) for a in args]
    mine = memo[id(suspect)]
    if poison:
        mine.view(-1)[at] = float("nan")
    seen = []
    for t in _tensors([op(*copied), *copied]):
        shown = t.clone()
        if t is mine:
            shown.view(-1)[at] = 0.0
        seen.append(shown)
    return seen


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def bytes_that_matter(op: Any, args: tuple[Any, ...]) -> int:
    """Bytes of the elements that reach an output; integers and masks whole."""
    matter = 0
    for t in {id(t): t for t in _tensors(args)}.values():
        if not t.is_floating_point():
            matter += t.numel() * t.element_size()
            continue
        for at in range(t.numel()):
            clean, dirty = (_run(op, args, t, at, poison) for poison in (False, True))
            if not all(map(_same, clean, dirty)):
                matter += t.element_size()
    return matter


def _n(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _p(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) + 0.5


def _labels(*shape: int, below: int) -> Tensor:
    return spread(torch.Size(shape).numel(), below).reshape(shape)


_MASKS = [list(mask) for mask in product([True, False], repeat=3) if any(mask)]
_LINE = torch.tensor([2, 0])
_GRID = torch.tensor([[2, 0, 1], [0, 1, 2]])
_MEAN, _NONE, _SUM = 1, 0, 2

PROBES: list[tuple[Any, tuple[Any, ...]]] = [
    # pointwise, reductions and softmax read everything
    (aten.lerp.Scalar, (_n(2, 3), _n(2, 3), 0.1)),
    (aten.addcdiv.default, (_n(2, 3), _n(3), _p(2, 1))),
    (aten.silu_backward.default, (_n(2, 3), _n(2, 3))),
    (aten.sum.dim_IntList, (_n(2, 3), [1])),
    (aten.logsumexp.default, (_n(2, 3), [1])),
    (aten._softmax.default, (_n(2, 3), 1, False)),
    (aten._softmax_backward_data.default, (_n(2, 3), _p(2, 3), 1, torch.float64)),
    # products
    (aten.mm.default, (_n(2, 3), _n(3, 4))),
    (aten.addmm.default, (_n(4), _n(2, 3), _n(3, 4))),
    (lambda b, x, y: aten.addmm.default(b, x, y, beta=0), (_n(4), _n(2, 3), _n(3, 4))),
    (aten.bmm.default, (_n(2, 2, 3), _n(2, 3, 2))),
    # windows that step over elements
    (aten.convolution.default, (_n(1, 2, 5, 5), _n(2, 2, 1, 1), _n(2), [2, 2], [0, 0], [1, 1], False, [0, 0], 1)),
    (aten.convolution.default, (_n(1, 2, 7), _n(2, 1, 2), None, [3], [1], [1], False, [0], 2)),
    (aten.convolution.default, (_n(1, 2, 7), _n(2, 2, 2), None, [1], [0], [4], False, [0], 1)),
    (aten.convolution.default, (_n(1, 2, 3), _n(2, 1, 2), _n(1), [2], [0], [1], True, [0], 1)),
    (aten.convolution.default, (_n(1, 1, 4), _n(1, 1, 1), None, [1], [1], [1], True, [0], 1)),
    (aten.avg_pool2d.default, (_n(1, 2, 5, 5), [1, 2], [3, 3])),
    (aten._adaptive_avg_pool2d.default, (_n(1, 2, 5, 3), [2, 2])),
    (aten.upsample_nearest2d.default, (_n(1, 2, 4, 4), [3, 2])),
    (aten.upsample_bilinear2d.default, (_n(1, 2, 3, 3), [6, 6], False)),
    (aten.im2col.default, (_n(1, 2, 5, 5), [1, 2], [1, 1], [0, 0], [3, 3])),
    # normalisations and their statistics
    (aten.native_layer_norm.default, (_n(2, 3), [3], _n(3), _n(3), 1e-5)),
    (aten.native_batch_norm.default, (_n(2, 3, 2), _n(3), _n(3), _n(3), _p(3), False, 0.1, 1e-5)),
    (aten.native_group_norm.default, (_n(2, 4, 2), _n(4), _n(4), 2, 4, 2, 2, 1e-5)),
    # losses touch the selected entries
    (aten.nll_loss_forward.default, (_n(3, 5), _labels(3, below=5), None, _MEAN, -100)),
    (aten.nll_loss_forward.default, (_n(3, 3), _labels(3, below=3), _p(3), _SUM, -100)),
    (aten.nll_loss_backward.default, (_n(), _n(3, 5), _labels(3, below=5), None, _MEAN, -100, _p())),
    (aten.nll_loss_backward.default, (_n(), _n(3, 5), _labels(3, below=5), None, _SUM, -100, _p())),
    (aten.nll_loss_backward.default, (_n(3), _n(3, 3), _labels(3, below=3), _p(3), _NONE, -100, _p())),
    (aten.nll_loss2d_forward.default, (_n(1, 4, 2, 2), _labels(1, 2, 2, below=4), None, _MEAN, -100)),
    (aten.mse_loss.default, (_n(2, 3), _n(2, 3), _MEAN)),
    (aten.mse_loss_backward.default, (_n(), _n(2, 3), _n(2, 3), _MEAN)),
    (aten.binary_cross_entropy_with_logits.default, (_n(2, 3), _p(2, 3), None, None, _MEAN)),
    # gathers, and scatters that leave part of their input unread
    (aten.embedding.default, (_n(5, 2), _labels(3, below=5))),
    (aten.embedding_dense_backward.default, (_n(3, 2), _labels(3, below=5), 5, -1, False)),
    (aten.gather.default, (_n(3, 3), 0, _GRID)),
    (aten.index_select.default, (_n(4, 2), 0, _LINE)),
    (aten.index.Tensor, (_n(4, 2), [_LINE])),
    (aten.index_put.default, (_n(4, 2), [_LINE], _n(2, 2), False)),
    (aten.index_put.default, (_n(4, 2), [_LINE], _n(2, 2), True)),
    (aten.index_put_.default, (_n(4, 2), [_LINE], _n(2, 2), False)),
    (aten.scatter.src, (_n(3, 3), 0, _GRID, _n(2, 3))),
    (aten.scatter_.src, (_n(3, 3), 0, _GRID, _n(2, 3))),
    (aten.scatter_add.default, (_n(3, 3), 0, _GRID, _n(2, 3))),
    (aten.index_add.default, (_n(4, 2), 0, _LINE, _n(2, 2))),
    (aten.index_copy.default, (_n(4, 2), 0, _LINE, _n(2, 2))),
    (aten.slice_scatter.default, (_n(4, 2), _n(2, 2), 0, 1, 3, 1)),
    (aten.select_scatter.default, (_n(4, 2), _n(2), 0, 1)),
    # movement
    (aten.clone.default, (_n(2, 3),)),
    (aten.copy_.default, (_n(2, 3), _n(3))),
    (aten.fill_.Scalar, (_n(2, 3), 1.0)),
    (aten.zeros_like.default, (_n(2, 3),)),
    (aten.cat.default, ([_n(2, 3), _n(1, 3)], 0)),
    (aten.tril.default, (_n(3, 4),)),
    (aten.triu.default, (_n(3, 4), 1)),
    (aten.trace.default, (_n(3, 4),)),
    (aten.constant_pad_nd.default, (_n(4, 4), [-1, 2, 0, -2])),
    (aten.slice_backward.default, (_n(2, 2), [4, 2], 0, 1, 3, 1)),
    (aten.reflection_pad2d_backward.default, (_n(1, 2, 4, 4), _n(1, 2, 2, 2), [1, 1, 1, 1])),
    # gradients of windows: the input itself is unread
    (aten.avg_pool2d_backward.default, (_n(1, 2, 2, 2), _n(1, 2, 5, 5), [2, 2], [2, 2], [0, 0], False, True, None)),
    (aten._adaptive_avg_pool2d_backward.default, (_n(1, 2, 2, 2), _n(1, 2, 5, 5))),
    (aten.upsample_bilinear2d_backward.default, (_n(1, 2, 6, 6), [6, 6], [1, 2, 3, 3], False)),
    # attention
    (aten._scaled_dot_product_flash_attention_for_cpu.default, (_n(1, 2, 3, 2), _n(1, 2, 4, 2), _n(1, 2, 4, 2))),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, (*(_n(1, 2, 3, 2) for _ in range(3)), 0.0, True)),
    *(
        (
            aten.native_layer_norm_backward.default,
            (_n(2, 3), _n(2, 3), [3], _n(2, 1), _p(2, 1), _n(3), _n(3), mask),
        )
        for mask in _MASKS
    ),
    *(
        (
            aten.native_batch_norm_backward.default,
            (_n(2, 3, 2), _n(2, 3, 2), _n(3), _n(3), _p(3), _n(3), _p(3), training, 1e-5, mask),
        )
        for mask, training in product(_MASKS, [True, False])
    ),
    *(
        (
            aten.native_group_norm_backward.default,
            (_n(2, 4, 2), _n(2, 4, 2), _n(2, 2), _p(2, 2), _n(4), 2, 4, 2, 2, mask),
        )
        for mask in _MASKS
    ),
    *(
        (
            aten.convolution_backward.default,
            (_n(1, 2, 2, 2), _n(1, 2, 5, 5), _n(2, 2, 1, 2), [2], [3, 2], [0, 0], [1, 1], False, [0, 0], 1, mask),
        )
        for mask in _MASKS
    ),
]


def _label(value: Any) -> str | None:
    return str(value) if hasattr(value, "_schema") else None


@pytest.mark.parametrize(("op", "args"), PROBES, ids=_label)
def test_the_price_reads_what_matters_to_the_kernel(op: Any, args: tuple[Any, ...]) -> None:
    name = str(op) if hasattr(op, "_schema") else "aten.addmm.default"
    memo: dict[int, Tensor] = {}
    copied = [_copies(a, memo) for a in args]
    priced = price(only_op(lambda: op(*copied), name))
    assert priced.status == "priced"
    assert priced.cost.read_bytes == bytes_that_matter(op, args)


def test_the_probe_tells_read_from_unread() -> None:
    """On ops whose reads are plain to see: a product by zero still reads, a triangle leaves half."""
    assert bytes_that_matter(aten.mul.Tensor, (_n(3), torch.zeros(3, dtype=torch.float64))) == 6 * 8
    assert bytes_that_matter(aten.tril.default, (_n(3, 3),)) == 6 * 8
    assert bytes_that_matter(aten.zeros_like.default, (_n(3, 3),)) == 0
    assert bytes_that_matter(aten.copy_.default, (_n(3), _n(3))) == 3 * 8
