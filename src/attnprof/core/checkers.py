"""Who keeps what runs cost: a test framework that does takes :func:`attnprof.check` and budgets over while it runs.

Apart from all else, so that a framework can say so without loading what checking needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: Called with the report, the name of the entry (or None) and the tolerance (or None); the last one counts.
checkers: list[Callable[[Any, str | None, str | int | None], None]] = []
#: Called with the report and the budgets of a block, to raise where one is broken; the last one counts.
holders: list[Callable[[Any, Sequence[Any]], None]] = []
