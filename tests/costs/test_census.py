"""Every op that real models call has a verdict: a formula, a declaration, a view, or a definition by other ops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._ops import OpOverload

from attnprof.costs import pricing  # noqa: F401  (registers the formulas)
from attnprof.costs.registry import formula_of, free_reason

DATA = Path(__file__).parent.parent / "data"


def names(file: str) -> list[str]:
    return [line for line in (DATA / file).read_text().splitlines() if line and not line.startswith("#")]


def overload(name: str) -> OpOverload:
    namespace, packet, *rest = name.split(".")
    found = getattr(getattr(getattr(torch.ops, namespace), packet), rest[0] if rest else "default")
    assert isinstance(found, OpOverload)
    return found


def has_kernel(op: OpOverload, key: str) -> bool:
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key))
    except RuntimeError:  # TorchScript's own ops are not in the dispatcher
        return False


def verdict(op: OpOverload) -> str | None:
    if op.is_view:
        return "view"
    if has_kernel(op, "CompositeImplicitAutograd") and not has_kernel(op, "CPU"):
        return "composite"
    if formula_of(str(op)) is not None:
        return "formula"
    return "free" if free_reason(str(op)) is not None else None


@pytest.mark.parametrize(("file", "count"), [("ops_of_models.txt", 348), ("ops_of_layers.txt", 409)])
def test_every_op_has_a_verdict(file: str, count: int) -> None:
    listed = names(file)
    assert len(set(listed)) == len(listed) == count
    assert [name for name in listed if verdict(overload(name)) is None] == []


def pointwise() -> Iterator[OpOverload]:
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, packet = schema.name.partition("::")
        overloads = getattr(torch.ops.aten, packet, None) if namespace == "aten" else None
        op = getattr(overloads, schema.overload_name or "default", None)
        if isinstance(op, OpOverload) and torch.Tag.pointwise in op.tags:
            yield op


def test_every_pointwise_op_has_a_verdict() -> None:
    found = list(pointwise())
    assert len(found) > 300
    assert [str(op) for op in found if verdict(op) is None] == []


def test_in_place_twins_share_the_formula() -> None:
    for op in ("add", "mul", "clamp", "relu", "sigmoid", "addcmul", "scatter_add", "index_put", "_foreach_add"):
        assert formula_of(f"aten.{op}_.default") is formula_of(f"aten.{op}.default") is not None


def test_no_op_is_both_priced_and_free() -> None:
    for name in (*names("ops_of_models.txt"), *names("ops_of_layers.txt")):
        assert formula_of(name) is None or free_reason(name) is None, name
