"""Flame graphs of cost as files: collapsed stacks, and speedscope's own JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnprof.analysis import flame
from attnprof.analysis.flame import Stack
from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports.files import check_writable, write_text
from attnprof.reports.text import printable

_COLLAPSED, _SPEEDSCOPE = (".txt", ".folded", ".collapsed"), ".json"
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
#: What speedscope calls the unit of each weight, and what the profile is called.
_UNITS = {"flops": "none", "bytes": "bytes", "saved": "bytes", "time": "nanoseconds"}
_TITLES = {"flops": "FLOPs", "bytes": "traffic", "saved": "saved for the backward", "time": "attainable time"}


def check(path: str | os.PathLike[str], weight: str, device: DeviceSpec | None) -> Path:
    """The path, once it is clear that stacks of this weight can be written there; asked before a long run.

    Raises :class:`AttnprofError` for another suffix, a weight that is not known, time without a device, and
    where nothing can be written.
    """
    target = Path(path)
    if target.suffix.lower() not in (*_COLLAPSED, _SPEEDSCOPE):
        raise AttnprofError(
            "a flame graph is a .txt, .folded or .collapsed file of collapsed stacks, or a .json file for speedscope, "
            f'and "{target}" is none of them.'
        )
    flame.check(weight, device)
    return check_writable(target)


def save(report: Report, path: str | os.PathLike[str], weight: str = "flops", device: DeviceSpec | None = None) -> Path:
    """Write the stacks of a run in the format of the file's suffix. Errors as :func:`check`, and without any stack."""
    target = check(path, weight, device)
    stacks = flame.stacks(report, weight, device)
    if target.suffix.lower() != _SPEEDSCOPE:
        return write_text(target, collapsed(stacks))
    model = report.trace.modules[0].class_name or "run"
    on = f" on {device.id}" if device is not None and weight == "time" else ""
    return write_text(target, speedscope(stacks, weight, f"{model}: {_TITLES[weight]}{on}"))


def collapsed(stacks: Sequence[Stack]) -> str:
    """``forward;Net;h.0;aten.mm.default 4096``, a line per stack: what flamegraph.pl and its kind read.

    Semicolons end a frame and the last space ends the stack, so in names both are written as escapes (``\\x3b``,
    ``\\x20``), as are control and invisible characters.
    """
    return "".join(f"{';'.join(map(_frame, stack.frames))} {stack.weight}\n" for stack in stacks)


def speedscope(stacks: Sequence[Stack], weight: str, title: str) -> str:
    """One sampled profile in speedscope's file format: a sample per stack; equal names are one frame."""
    numbers: dict[str, int] = {}
    samples = [[numbers.setdefault(printable(name), len(numbers)) for name in stack.frames] for stack in stacks]
    profile: dict[str, Any] = {
        "type": "sampled",
        "name": printable(title),
        "unit": _UNITS[weight],
        "startValue": 0,
        "endValue": sum(stack.weight for stack in stacks),
        "samples": samples,
        "weights": [stack.weight for stack in stacks],
    }
    content = {
        "$schema": _SCHEMA,
        "exporter": "attnprof",
        "name": printable(title),
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": name} for name in numbers]},
        "profiles": [profile],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _frame(name: str) -> str:
    return printable(name).replace(";", "\\x3b").replace(" ", "\\x20")
