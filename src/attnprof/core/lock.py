"""Lock files: what runs cost when somebody last agreed to it, as TOML that people read, review and merge.

Each entry has a name, the test it belongs to, the environment it was counted in and one line for each phase and
module; modules that cost the same share a line (``h.[0-11].mlp``). Entries are in order of their names, so two that
are added on two branches seldom meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnprof.core.budget import PHASES
from attnprof.core.errors import AttnprofError
from attnprof.core.module_names import fold, unfold
from attnprof.core.plain import as_count, as_dict, as_flag, as_text, as_texts
from attnprof.core.snapshot import MEMORY, NUMBERS, Line, Snapshot
from attnprof.core.toml import key, reader, written

VERSION = 1
_HEADER = (
    "# What runs cost, exactly: FLOPs and bytes of each phase and module. Review it, commit it.\n"
    "# Written by attnprof, which keeps no comments of yours.\n"
)
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(?: |$)", re.MULTILINE)
_FIELDS = {"test", "environment", "total", "unpriced", *PHASES}


class LockError(AttnprofError):
    """A lock file that cannot be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One locked run, and the test (a node id) that it belongs to, if any."""

    snapshot: Snapshot
    test: str = ""


def read(path: Path, shown: str = "") -> dict[str, Entry]:
    """The entries of a lock file by name; none when there is no file. ``shown`` is what errors call the file.

    Raises :class:`LockError` for a file that is no lock file, was damaged, or has conflict markers in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LockError(f"{shown or path} cannot be read: {reason}.") from None
    return loads(text, shown or str(path))


def loads(text: str, source: str) -> dict[str, Entry]:
    """The entries in a text; see :func:`read`."""
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        raise LockError(
            f"{source} has a merge conflict in line {line} ({conflict[1]}): take either side, then update the entries."
        )
    for heading, lines in _headings(text).items():
        if len(lines) > 1:
            raise LockError(f"{source} has {heading} in lines {lines[0]} and {lines[1]}: keep either, then update it.")
    read_toml = reader(source)
    try:
        data = read_toml(text)
    except (ValueError, RecursionError) as error:
        raise LockError(f"{source} is not TOML ({error}): restore it, or delete it and update it.") from None
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise LockError(f'{source} is no lock file: it states no "version = {VERSION}".')
    if version > VERSION:
        raise LockError(f"{source} has version {version}, of a newer attnprof; this one reads up to {VERSION}.")
    if unknown := data.keys() - {"version", "run"}:
        raise LockError(f"{source} has {min(unknown)!r}, which is nothing of a lock file: entries are [run.NAME].")
    entries = data.get("run", {})
    try:
        return {name: _entry(as_dict(table)) for name, table in as_dict(entries).items()}
    except (KeyError, TypeError, ValueError) as error:
        name = next((n for n, table in _tables(entries) if _damaged(table)), "")
        where = f" in the entry {name!r}" if name else ""
        raise LockError(
            f"{source} is damaged{where} ({_told(error)}): restore it, or delete the entry and update it."
        ) from None


def dumps(entries: dict[str, Entry]) -> str:
    """The text of a lock file."""
    parts = [_HEADER, f"version = {VERSION}\n"]
    for name in sorted(entries):
        parts.append("\n" + "\n".join(_lines(name, entries[name])) + "\n")
    return "".join(parts)


def _lines(name: str, entry: Entry) -> Iterator[str]:
    run = entry.snapshot
    yield f"[run.{key(name)}]"
    if entry.test:
        yield f"test = {written(entry.test)}"
    yield f"environment = {written(run.environment)}"
    yield f"total = {written(run.totals())}"
    if run.unpriced:
        yield f"unpriced = {written(run.unpriced)}"
    for phase in PHASES:
        alike: dict[Line, list[str]] = {}
        for (where, module), line in run.lines.items():
            if where == phase:
                alike.setdefault(line, []).append(module)
        if alike:
            yield ""
            yield f"[run.{key(name)}.{phase}]"
        for line, modules in alike.items():
            for text in fold(modules):
                yield f"{key(text)} = {written(_numbers(line) | {'ops': line.ops})}"


def _numbers(line: Line) -> dict[str, Any]:
    return {name: value for name, value in zip(NUMBERS, line.numbers, strict=True) if value}


def _entry(table: dict[str, Any]) -> Entry:
    if unknown := table.keys() - _FIELDS:
        raise ValueError(f"it has no {min(unknown)!r}")
    lines: dict[tuple[str, str], Line] = {}
    for phase in PHASES:
        for text, found in as_dict(table.get(phase, {})).items():
            line = _line(as_dict(found))
            for module in unfold(text):
                if (phase, module) in lines:
                    raise ValueError(f"{module!r} is twice in {phase}")
                lines[phase, module] = line
    total = as_dict(table["total"])
    snapshot = Snapshot(
        lines,
        {name: as_count(total[name]) for name in MEMORY if name in total},
        {op: as_count(calls) for op, calls in as_dict(table.get("unpriced", {})).items()},
        {
            name: as_flag(value) if isinstance(value, bool) else as_text(value)
            for name, value in as_dict(table["environment"]).items()
        },
    )
    if {name: as_count(value) for name, value in total.items()} != snapshot.totals():
        raise ValueError("its total is not the sum of its lines: it was edited by hand")
    return Entry(snapshot, as_text(table.get("test", "")))


def _line(found: dict[str, Any]) -> Line:
    if unknown := found.keys() - {*NUMBERS, "ops"}:
        raise ValueError(f"a line has no {min(unknown)!r}")
    matmul, vector, read_bytes, write_bytes = (as_count(found.get(name, 0)) for name in NUMBERS)
    return Line(matmul, vector, read_bytes, write_bytes, as_texts(found.get("ops", [])))


def _headings(text: str) -> dict[str, list[int]]:
    """The lines that each entry begins in; a merge without a conflict may leave one twice."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("[run."):
            found.setdefault(line.rstrip(), []).append(number)
    return found


def _tables(entries: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(entries, dict):
        yield from entries.items()


def _damaged(table: Any) -> bool:
    try:
        _entry(as_dict(table))
    except (KeyError, TypeError, ValueError):
        return True
    return False


def _told(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
