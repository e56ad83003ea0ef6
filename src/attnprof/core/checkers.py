"""Who keeps the lock file: a test framework that does takes :func:`attnprof.check` over while it runs.

Apart from all else, so that a framework can say so without loading what checking needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Called with the report, the name of the entry (or None) and the tolerance (or None); the last one counts.
checkers: list[Callable[[Any, str | None, str | int | None], None]] = []
