"""The files of formulas, loaded once: importing one registers what it prices."""

from __future__ import annotations

import importlib

FAMILIES = ("gemm",)


def load() -> None:
    """Register every formula attnprof has."""
    for name in FAMILIES:
        importlib.import_module(f"attnprof.costs.{name}")
