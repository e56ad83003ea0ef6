"""A table that fits its width: the first set of columns that has room beside the labels."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.reports.colours import bound_of, styled
from attnprof.reports.columns import Column
from attnprof.reports.text import cells, padded, shortened

#: What draws a row's place in the tree.
_ART = "│├└─ "


def fitted(title: str, labels: Sequence[str], choices: Sequence[Sequence[Column]], width: int) -> list[str]:
    """The first set of columns that fits beside the labels; long labels give way before columns do.

    Where there are colours, headings, the lines of the tree and what bounds a row have them.
    """
    longest = max(map(cells, (title, *labels)))
    room = min(longest, max(24, width // 3))
    for columns in choices:
        used = sum(2 + column.width for column in columns)
        if used + room <= width:
            break
    room = min(longest, max(8, width - used))
    names = [shortened(label, room, tail=room // 2 if title == "op" else 0) for label in labels]
    columns = [c for c in columns if c.cells]
    above = ["", *(c.heading[0] for c in columns)]
    below = [title, *(c.heading[1] for c in columns)]
    widths = [max(map(cells, (title, *names))), *(max(map(cells, (*c.heading, *c.cells))) for c in columns)]
    lines = [styled("".join(_parts(row, widths)).rstrip(), "heading") for row in (above, below) if any(row)]
    for row in zip(names, *(c.cells for c in columns), strict=True):
        parts = _parts(row, widths)
        lines.append("".join(_coloured(parts, columns)).rstrip())
    return lines


def _parts(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A label on the left, numbers on the right of their columns."""
    numbers = zip(row[1:], widths[1:], strict=True)
    return [padded(row[0], widths[0]), *(f"  {' ' * (width - cells(text))}{text}" for text, width in numbers)]


def _coloured(parts: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """The same parts of a row: what draws the tree faint, what bounds the row in that bound's colour."""
    name = parts[0].lstrip(_ART)
    found = [styled(parts[0][: len(parts[0]) - len(name)], "faint") + name]
    for column, part in zip(columns, parts[1:], strict=True):
        bound = bound_of(part) if column.heading[1].strip() == "bound" else ""
        found.append(part.replace(bound, styled(bound, bound), 1) if bound else part)
    return found
