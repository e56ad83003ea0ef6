"""TOML in and out, as far as files of ours need it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from attnprof.core.errors import AttnprofError


def reader(source: str) -> Callable[[str], dict[str, Any]]:
    """The function that reads TOML; raises :class:`AttnprofError`, naming what was to be read, when there is none."""
    for name in ("tomllib", "tomli"):  # the first comes with Python 3.11, the second is its backport
        try:
            loads: Callable[[str], dict[str, Any]] = importlib.import_module(name).loads
        except ModuleNotFoundError:
            continue
        return loads
    raise AttnprofError(f"cannot read {source}: TOML needs Python 3.11 or the package tomli.")


def quoted(text: str) -> str:
    """A basic string: what JSON writes is one, but for a character that TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def written(value: Any) -> str:
    """A string, bool, whole number (in groups of three), list or table, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key(name)} = {written(item)}' for name, item in value.items())} }}" if value else "{}"
    return f"[{', '.join(map(written, value))}]"


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else quoted(name)
