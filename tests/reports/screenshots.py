"""What a command shows on a terminal as a picture: SVG by rich, which typer brings, from the real output."""

from __future__ import annotations

import io
import re

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

#: Colours that can be told apart on the ground, and by who sees few.
_THEME = TerminalTheme(
    (27, 31, 36),
    (222, 226, 230),
    [
        *((27, 31, 36), (255, 128, 116), (98, 205, 137), (240, 190, 84)),
        *((121, 172, 255), (214, 151, 255), (88, 206, 224), (222, 226, 230)),
    ],
    None,
)
#: Nothing is loaded from anywhere: the reader's own font of fixed width.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def svg(command: str, shown: str, width: int, name: str) -> str:
    """A window with a command and what it showed, ``name`` being unique on a page."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text(f"$ {command}", style="bold"), soft_wrap=True)
    console.print(Text.from_ansi(shown), soft_wrap=True)
    made = console.export_svg(title="attnprof", theme=_THEME, code_format=_FORMAT, unique_id=name)
    return re.sub(r"font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace", made)
