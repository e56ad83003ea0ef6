"""The options that every command with a table shares."""

from __future__ import annotations

from typing import Annotated

import typer

By = Annotated[str, typer.Option(metavar="module|op", help="Rows are modules, as a tree, or ops.")]
Depth = Annotated[
    int | None,
    typer.Option(min=0, help="Levels of modules below the model. Default: as many as fit about one screen."),
]
Sort = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Largest first by flops, matmul, vector, bytes, read, written, params or calls."),
]
Top = Annotated[
    int | None, typer.Option(min=1, help="Only the N largest of each level (or N ops), the rest as one line.")
]
Phase = Annotated[
    str | None, typer.Option(metavar="PHASE", help="Only forward, backward, recompute, optimizer or other.")
]
UnitsText = Annotated[
    str,
    typer.Option(
        "--units",
        metavar="WORDS",
        help="decimal (kB, MB), binary (KiB, MiB), exact (every digit), macs (multiply-adds); commas between.",
    ),
]
