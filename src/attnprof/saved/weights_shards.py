"""An index of sharded weights, ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``, and its files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.stored import StoredWeights

#: An index of a model of a million tensors.
_LARGEST_BYTES = 100_000_000
_SHOWN = 3


def shards(path: Path) -> dict[Path, list[str]]:
    """Each file of an index with the tensors that it is said to have.

    Raises :class:`AttnprofError` for an index that is damaged, that names a file outside of its folder, or one
    that is not there.
    """
    found: dict[str, list[str]] = {}
    for name, file in _table(path)["weight_map"].items():
        if not isinstance(file, str) or not file:
            raise AttnprofError(f"{path} says that {name!r} is in {file!r}: the name of a file belongs there.")
        found.setdefault(file, []).append(name)
    if not found:
        raise AttnprofError(f"{path} names no tensors: its weight_map is empty.")
    for file in found:
        _check_inside(path, file)
    there: list[str] = []
    missing = [file for file in found if not _is_file(path.parent / file)]
    if missing:
        with contextlib.suppress(OSError):  # a folder whose files may be opened and not listed
            there = [entry.name for entry in path.parent.iterdir()]
        more = f", and {len(missing) - 1} more are not there" if len(missing) > 1 else ""
        raise AttnprofError(
            f"{path} names {missing[0]:.200}, which is not in its folder{more}.{closest(missing[0], there, 1)}"
        )
    return {path.parent / file: names for file, names in found.items()}


def read(path: Path, read_one: Callable[[Path], StoredWeights]) -> StoredWeights:
    """What all files of an index hold, each read by ``read_one``, checked against what the index says.

    Raises :class:`AttnprofError` for a file without a tensor that it should have, or with one that is in another too.
    """
    tensors, notes, size = [], [], 0
    parts = shards(path)
    for file, names in parts.items():
        part = read_one(file)
        held = {tensor.name for tensor in part.tensors}
        if missing := [name for name in names if name not in held]:
            raise AttnprofError(f"{path} says that {_some(missing)} in {file.name}, which has no such tensor.")
        wanted = set(names)
        if extra := [name for name in sorted(held) if name not in wanted]:
            notes.append(f"{file.name} has {_some(extra)} there though the index does not say so; left out.")
        tensors += [tensor for tensor in part.tensors if tensor.name in wanted]
        size += part.file_bytes
    found = StoredWeights(str(path), tuple(tensors), size, len(parts), notes=tuple(notes))
    total = _total(path)
    if total is not None and total != found.bytes:
        sentence = f"The index says total_size {total:,}; the tensors take {found.bytes:,} bytes."
        found = replace(found, notes=(*found.notes, sentence))
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _table(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > _LARGEST_BYTES:
            raise AttnprofError(f"{path} has {size:,} bytes, more than any index.")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AttnprofError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise AttnprofError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("weight_map"), dict):
        raise AttnprofError(f"{path} is no index of weights: it has no weight_map.")
    return found


def _total(path: Path) -> int | None:
    metadata = _table(path).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) and 0 <= total < 2**63 else None


def _check_inside(path: Path, file: str) -> None:
    """A shard lies in the folder of its index, or below; a link there may lead anywhere, as in the hub's cache."""
    pure = PurePosixPath(file)
    leaves = pure.is_absolute() or ".." in pure.parts or PureWindowsPath(file).drive or "\\" in file or "\0" in file
    if leaves:
        raise AttnprofError(f"{path} names the file {file!r}, which is not in its folder: it is not opened.")
