"""Gathers, scatters and embeddings move what their indices select, and add once per source element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as fn

from support import cost_of, traffic_of

F32, I64 = 4, 8  # bytes
V, D = 10, 6
table = torch.randn(V, D)
few = torch.tensor([1, 4, 4])
many = torch.randint(0, V, (5, 7))


def flops(run: Callable[[], Any], name: str) -> int:
    return cost_of(run, name).vector_flops


def test_embedding_reads_its_rows_and_at_most_the_table() -> None:
    weight = table.clone().requires_grad_()
    assert traffic_of(lambda: fn.embedding(few, weight), "aten.embedding") == (3 * I64 + 3 * D * F32, 3 * D * F32)
    assert traffic_of(lambda: fn.embedding(many, weight), "aten.embedding") == (35 * I64 + V * D * F32, 35 * D * F32)
    run = lambda: (fn.embedding(few, weight) * 2).sum().backward()  # noqa: E731
    back = cost_of(run, "aten.embedding_dense_backward")
    assert back.vector_flops == 3 * D
    assert (back.read_bytes, back.write_bytes) == (3 * I64 + 3 * D * F32, V * D * F32)


def test_gathers_read_what_they_select() -> None:
    assert traffic_of(lambda: table[few], "aten.index") == (3 * I64 + 3 * D * F32, 3 * D * F32)
    assert traffic_of(lambda: table.index_select(0, few), "aten.index_select") == (3 * I64 + 3 * D * F32, 3 * D * F32)
    columns = torch.zeros(V, 2, dtype=torch.int64)
    assert traffic_of(lambda: table.gather(1, columns), "aten.gather") == (V * 2 * (I64 + F32), V * 2 * F32)
    assert traffic_of(lambda: table.take(few), "aten.take") == (3 * (I64 + F32), 3 * F32)


def test_a_mask_is_read_whole() -> None:
    mask = torch.zeros(V, dtype=torch.bool)
    mask[:4] = True
    assert traffic_of(lambda: table[mask], "aten.index") == (V + 4 * D * F32, 4 * D * F32)
    every = table > 100
    assert traffic_of(lambda: table.masked_select(every), "aten.masked_select") == (V * D, 0)


def test_index_put_writes_what_it_addresses() -> None:
    values = torch.randn(3, D)
    selected = 3 * D

    def put(accumulate: bool) -> Callable[[], Any]:
        return lambda: table.clone().index_put_((few,), values, accumulate)

    name = "aten.index_put_"
    assert flops(put(False), name) == 0
    assert flops(put(True), name) == selected
    assert traffic_of(put(False), name) == (3 * I64 + selected * F32, selected * F32)
    assert traffic_of(put(True), name) == (3 * I64 + 2 * selected * F32, selected * F32)
    functional = traffic_of(lambda: table.index_put((few,), values), "aten.index_put")
    assert functional == (3 * I64 + selected * F32 + (V * D - selected) * F32, V * D * F32)


def test_index_put_with_masks_and_partial_indices() -> None:
    mask = torch.arange(V) < 4
    run = lambda: table.clone().index_put_((mask,), torch.randn(4, D))  # noqa: E731
    assert traffic_of(run, "aten.index_put_") == (V + 4 * D * F32, 4 * D * F32)
    block = torch.randn(4, V, D)
    run = lambda: torch.ops.aten.index_put_(block.clone(), [None, few], torch.zeros(()), True)  # noqa: E731
    assert flops(run, "aten.index_put_") == 4 * 3 * D


def test_scatters() -> None:
    index, source = torch.zeros(2, D, dtype=torch.int64), torch.randn(4, D)
    selected = 2 * D  # of the source only as much as there are indices
    moved = selected * (I64 + F32)
    replace = lambda: table.clone().scatter_(0, index, source)  # noqa: E731
    assert traffic_of(replace, "aten.scatter_") == (moved, selected * F32)
    add = lambda: table.clone().scatter_add_(0, index, source)  # noqa: E731
    assert flops(add, "aten.scatter_add_") == selected
    assert traffic_of(add, "aten.scatter_add_") == (moved + selected * F32, selected * F32)
    functional = lambda: table.scatter_add(0, index, source)  # noqa: E731
    assert traffic_of(functional, "aten.scatter_add") == (moved + V * D * F32, V * D * F32)
    value = lambda: table.clone().scatter_(0, index, 1.0)  # noqa: E731
    assert traffic_of(value, "aten.scatter_") == (selected * I64, selected * F32)
    mean = lambda: table.scatter_reduce(0, index, source, "mean")  # noqa: E731
    assert flops(mean, "aten.scatter_reduce") == 2 * selected + V * D  # sums, counts, a division each


def test_slices_along_an_index() -> None:
    rows = torch.randn(3, D)
    add = lambda: table.clone().index_add_(0, few, rows, alpha=0.3)  # noqa: E731
    assert flops(add, "aten.index_add_") == 2 * 3 * D
    assert traffic_of(add, "aten.index_add_") == (3 * I64 + 2 * 3 * D * F32, 3 * D * F32)
    copy = lambda: table.clone().index_copy_(0, few, rows)  # noqa: E731
    assert traffic_of(copy, "aten.index_copy_") == (3 * I64 + 3 * D * F32, 3 * D * F32)
    fill = lambda: table.index_fill(0, few, 0.0)  # noqa: E731
    assert traffic_of(fill, "aten.index_fill") == (3 * I64 + (V - 3) * D * F32, V * D * F32)


def test_replacing_a_slice_copies_the_rest() -> None:
    run = lambda: torch.slice_scatter(table, torch.zeros(4, D), 0, 2, 6)  # noqa: E731
    assert traffic_of(run, "aten.slice_scatter") == (4 * D * F32 + (V - 4) * D * F32, V * D * F32)


def test_embedding_bags_join_rows() -> None:
    indices, offsets = torch.tensor([1, 2, 4, 5, 4]), torch.tensor([0, 3])
    bag = lambda mode: lambda: fn.embedding_bag(indices, table, offsets, mode=mode)  # noqa: E731
    name = "aten._embedding_bag_forward_only"
    with torch.no_grad():
        assert flops(bag("sum"), name) == (5 - 2) * D
        assert flops(bag("mean"), name) == (5 - 2) * D + 2 * D
        assert flops(bag("max"), name) == (5 - 2) * D
