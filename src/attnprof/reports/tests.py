"""What tests cost: the dearest as a table, all of them as JSON, a page for a CI job as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attnprof.core.budget import Budget
from attnprof.core.units import Units
from attnprof.reports.budget import kind_of, scope
from attnprof.reports.ours import MARKDOWN_MARK
from attnprof.reports.text import in_markdown, printable, shortened, width_of_terminal

_UNITS = Units()
_MOST = 10


def table(counted: dict[str, dict[str, Any]], most: int = _MOST) -> list[str]:
    """The tests with the most FLOPs, each with its bytes and peak memory."""
    if not counted:
        return ["no test was counted"]
    rows = _dearest(counted)[:most]
    columns = [_column("FLOP", rows, "flops"), _column("moved", rows, "bytes"), _column("peak", rows, "peak_bytes")]
    widths = [max(map(len, column)) for column in columns]
    room = width_of_terminal() - sum(widths) - 2 * len(widths)
    names = ["test", *(printable(test) for test, _ in rows)]
    lines = [
        "  ".join(
            [
                *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)),
                shortened(name, room, tail=room // 2),
            ]
        )
        for name, *cells in zip(names, *columns, strict=True)
    ]
    total = _UNITS.named(sum(of["total"]["flops"] for of in counted.values()))
    several = len(counted) > 1
    lines.append(f"{len(counted)} test{'s' if several else ''} counted, {total}{' together' if several else ''}")
    return lines


def to_json(counted: dict[str, dict[str, Any]], differs: dict[str, dict[str, str]]) -> str:
    """Every test with its outcome, counts, phases, memory, unpriced ops and limits; integers throughout.

    ``differs`` has what is not as locked, by test and by the name of the entry.
    """
    tests = [{"test": test, **of} for test, of in sorted(counted.items())]  # workers finish in any order
    data = {"format": "attnprof tests", "schema": 1, "tests": tests, "differs": dict(sorted(differs.items()))}
    return json.dumps(data, indent=1) + "\n"


def to_markdown(counted: dict[str, dict[str, Any]], differs: dict[str, dict[str, str]], most: int = _MOST) -> str:
    """What is not as locked, the limits, those that were exceeded first, and the dearest tests."""
    limits = [(test, limit) for test, of in counted.items() for limit in of["limits"]]
    limits.sort(key=lambda pair: pair[1]["holds"])
    broken = sum(not limit["holds"] for _, limit in limits)
    parts = [MARKDOWN_MARK, "## Cost of the tests"]
    texts = [text for names in differs.values() for text in names.values()]
    if texts:
        parts.append(f"{len(texts)} {'run is' if len(texts) == 1 else 'runs are'} not as locked:")
    for text in texts:  # four spaces make it code, whatever is in it
        parts.append("\n".join(f"    {printable(line)}" for line in text.splitlines()))
    if limits:
        parts.append(f"{broken} of {len(limits)} limits exceeded." if broken else f"All {len(limits)} limits hold.")
        parts.append(_grid(["", "test", "what", "measured", "limit"], [_limit_row(*pair) for pair in limits], "llrr"))
    rows = [
        [in_markdown(test), *(_cell(of, name) for name in ("flops", "bytes", "peak_bytes"))]
        for test, of in _dearest(counted)[:most]
    ]
    parts.append(
        _grid(["test", "FLOPs", "bytes moved", "peak memory"], rows, "lrrr") if rows else "No test was counted."
    )
    if len(counted) > most:
        parts.append(f"The {most} dearest of {len(counted)} tests.")
    return "\n\n".join(parts) + "\n"


def _dearest(counted: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(counted.items(), key=lambda pair: (-pair[1]["total"]["flops"], -pair[1]["total"]["bytes"]))


def _value(of: dict[str, Any], name: str) -> int | None:
    found: int | None = of["total"].get(name, of["memory"].get(name))
    return found


def _cell(of: dict[str, Any], name: str) -> str:
    value = _value(of, name)
    return "–" if value is None else _UNITS.named(value, kind_of(name))


def _column(heading: str, rows: Sequence[tuple[str, dict[str, Any]]], name: str) -> list[str]:
    unit, cells = _UNITS.column([_value(of, name) for _, of in rows], kind_of(name))
    if name == "flops":
        heading = ""
    return [f"{heading} {unit}".strip(), *cells]


def _limit_row(test: str, limit: dict[str, Any]) -> list[str]:
    budget = Budget(limit["quantity"], limit["limit"], limit.get("phase"), limit.get("module"), limit.get("kind"))
    kind = kind_of(budget.quantity)
    measured = in_markdown(limit["error"]) if limit["measured"] is None else _UNITS.named(limit["measured"], kind)
    verdict = "ok" if limit["holds"] else "**over**"
    return [verdict, in_markdown(test), in_markdown(scope(budget)), measured, _UNITS.named(budget.limit, kind)]


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in align.ljust(len(headings), "r")]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *rows])
