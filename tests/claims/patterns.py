"""Which positions of the input an output depends on, found from the gradients of a module, and drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def sees(net: nn.Module, T: int, d: int) -> list[list[bool]]:
    """For each output position, the input positions that have a gradient: by the module itself, not by its mask.

    In float64 with random weights. What a softmax or a mask leaves out has a gradient of exactly zero.
    """
    generator = torch.Generator().manual_seed(0)
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    x = torch.randn(1, T, d, generator=generator, dtype=torch.float64, requires_grad=True)
    out: Tensor = net(x)
    direction = torch.randn(d, generator=generator, dtype=torch.float64)
    rows: list[list[bool]] = []
    for at in range(T):
        (gradient,) = torch.autograd.grad(out[0, at] @ direction, x, retain_graph=True)
        rows.append([bool(position.any()) for position in gradient[0]])
    return rows


def drawn(rows: list[list[bool]]) -> str:
    """Output positions down, input positions across, two rows of positions to a line of text."""
    shapes = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    edge = "─" * len(rows[0])
    lines = [
        "│" + "".join(shapes[pair] for pair in zip(upper, lower, strict=True)) + "│"
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]
    return "\n".join([f"┌{edge}┐", *lines, f"└{edge}┘"])


def side_by_side(pictures: list[tuple[str, str]], across: int = 4) -> str:
    """Pictures of one height with a title above each, some to a row."""
    blocks: list[str] = []
    for start in range(0, len(pictures), across):
        some = pictures[start : start + across]
        columns: list[list[str]] = []
        for title, picture in some:
            lines = picture.splitlines()
            columns.append([line.ljust(len(lines[0])) for line in (title, *lines)])
        blocks.append("\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True)))
    return "\n\n".join(blocks)


def name_of(symbols: dict[str, Any]) -> str:
    """``w=3, causal``: what sets a picture apart."""
    return ", ".join(name if value is True else f"{name}={value}" for name, value in symbols.items())
