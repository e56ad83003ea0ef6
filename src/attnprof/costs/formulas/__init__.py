"""Every formula, one family a file: importing a file registers what it prices."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Register every formula attnprof has."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
