"""A table that fits its width: the first set of columns that has room beside the labels."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from attnprof.reports.columns import Column
from attnprof.reports.text import shortened


def fitted(title: str, labels: Sequence[str], choices: Sequence[Sequence[Column]], width: int) -> list[str]:
    """The first set of columns that fits beside the labels; long labels give way before columns do."""
    longest = max(map(len, (title, *labels)))
    room = min(longest, max(24, width // 3))
    for columns in choices:
        used = sum(2 + column.width for column in columns)
        if used + room <= width:
            break
    room = min(longest, max(8, width - used))
    names = [shortened(label, room, tail=room // 2 if title == "op" else 0) for label in labels]
    columns = [c for c in columns if c.cells]
    # The heading is ordinary rows: tabulate would pad headings of its own beyond the width worked out here.
    above = ["", *(c.heading[0] for c in columns)]
    table = [
        *([above] if any(above) else []),
        [title, *(c.heading[1] for c in columns)],
        *zip(names, *(c.cells for c in columns), strict=True),
    ]
    text = tabulate(
        table,
        tablefmt="plain",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=("left", *("right" for _ in columns)),
    )
    return [line.rstrip() for line in text.splitlines()]
