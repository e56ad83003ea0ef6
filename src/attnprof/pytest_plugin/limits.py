"""Markers as budgets: which limits a test has, and what is wrong with those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from attnprof.core.budget import Budget
from attnprof.core.errors import AttnprofError
from attnprof.pytest_plugin.options import Settings

_KEYWORDS = {
    "flops": ("phase", "module"),
    "bytes": ("phase", "module"),
    "memory_bytes": ("kind", "module"),
    "unpriced": (),
}


def limits_of(item: pytest.Item, settings: Settings) -> tuple[Budget, ...]:
    """The budgets of a test. A limit of the command line replaces its markers for the whole test, and a marker on
    the test one for the same thing on its class or module; the ini file has the last word where nobody else has.
    """
    found: list[Budget] = []
    for quantity in _KEYWORDS:
        own = _marked(item, quantity)
        if forced := settings.forced.get(quantity):
            own = [forced, *(budget for budget in own if not _is_whole(budget))]
        elif (default := settings.default.get(quantity)) and not any(map(_is_whole, own)):
            own.append(default)
        found += own
    return tuple(found)


def refused(items: Iterable[pytest.Item]) -> list[str]:
    """A sentence for each limit of these tests that cannot be read."""
    errors: dict[str, None] = {}
    for item in items:
        for mark in item.iter_markers():
            quantity = mark.name.removeprefix("limit_")
            if mark.name.startswith("limit_") and quantity in _KEYWORDS:
                try:
                    _budget(quantity, mark)
                except AttnprofError as error:
                    errors[f"{item.nodeid}: @pytest.mark.{mark.name}{_arguments(mark)}: {error}"] = None
    return list(errors)


def _marked(item: pytest.Item, quantity: str) -> list[Budget]:
    found: list[Budget] = []
    nodes: dict[tuple[str | None, ...], object] = {}
    for node, mark in item.iter_markers_with_node(f"limit_{quantity}"):  # the closest first
        budget = _budget(quantity, mark)
        if nodes.setdefault((budget.phase, budget.module, budget.kind), node) is node:
            found.append(budget)
    return found


def _budget(quantity: str, mark: pytest.Mark) -> Budget:
    known = _KEYWORDS[quantity]
    scope = dict(mark.kwargs)
    limits = [*mark.args, *([scope.pop("limit")] if "limit" in scope else [])]
    if len(limits) != 1 or (scope.keys() - set(known)):
        words = f", and {' and '.join(known)} by name" if known else ""
        raise AttnprofError(f"it takes one limit{words}.")
    return Budget.of(quantity, limits[0], **scope)


def _is_whole(budget: Budget) -> bool:
    return budget.phase is None and budget.module is None and budget.kind in (None, "peak")


def _arguments(mark: pytest.Mark) -> str:
    named = [f"{name}={value!r}" for name, value in mark.kwargs.items()]
    return f"({', '.join([*map(repr, mark.args), *named])})"
