"""Zip archives looked at before anything in them is read: names, sizes, and no bombs."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnprof.core.errors import AttnprofError

#: An archive may unpack to this many times its own size. PyTorch stores weights as they are; it compresses only
#: TorchScript's code, which shrinks to a fifth or so.
LARGEST_RATIO = 100
#: Below this many bytes unpacked, no ratio is too large.
ALWAYS_FINE_BYTES = 10_000_000
#: The largest member that may be compressed at all: as it is read whole, it takes memory that the file has not.
LARGEST_COMPRESSED = 200_000_000
#: The most members PyTorch could want: one per tensor.
MOST_MEMBERS = 1_000_000


def names(path: str | Path) -> set[str]:
    """The members of a zip archive, below the folder that all of them share, as PyTorch writes it.

    Raises :class:`AttnprofError` when the archive is damaged, or would unpack to far more than it holds.
    """
    return set(_by_name(members(path)))


def sizes(path: str | Path) -> dict[str, int]:
    """How many bytes each member unpacks to, by its name below the shared folder."""
    return {member.filename.partition("/")[2] or member.filename: member.file_size for member in members(path)}


def members(path: str | Path) -> list[zipfile.ZipInfo]:
    """What the directory of a zip archive lists, checked; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise AttnprofError(f"{path} is a damaged zip archive (cut off, perhaps): {error}.") from None
    check(path, found, os.stat(path).st_size)
    return found


def check(path: str | Path, found: list[zipfile.ZipInfo], size: int) -> None:
    """No archive that would unpack to far more than its own size, or that lists a member twice."""
    if len(found) > MOST_MEMBERS:
        raise AttnprofError(f"{path} lists {len(found):,} members, more than any model has.")
    unpacked = sum(member.file_size for member in found)
    if unpacked > max(ALWAYS_FINE_BYTES, LARGEST_RATIO * size):
        raise AttnprofError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}: more than {LARGEST_RATIO} times its size, "
            "as no model does. It was not read."
        )
    for member in found:
        if member.compress_type == zipfile.ZIP_STORED and member.file_size > size:
            raise AttnprofError(f"{path} is a damaged zip archive: {member.filename} would be larger than the file.")
        if member.compress_type != zipfile.ZIP_STORED and member.file_size > LARGEST_COMPRESSED:
            raise AttnprofError(
                f"{path} would unpack {member.filename} to {member.file_size:,} bytes, and PyTorch compresses nothing "
                "but code. It was not read; save it anew with PyTorch."
            )
    if len({member.filename for member in found}) != len(found):
        raise AttnprofError(f"{path} is a damaged zip archive: it lists a member twice.")


def read(path: str | Path, name: str) -> bytes:
    """One member, by its name below the shared folder, as PyTorch reads it."""
    found = _by_name(members(path))
    if name not in found:
        raise AttnprofError(f"{path} is damaged: it has no {name}.")
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(found[name])
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
        raise AttnprofError(f"{path} is damaged: {name} cannot be read ({error}).") from None
    return content


def check_nested(path: str | Path, name: str) -> None:
    """That an archive inside an archive, as torch.save writes for each pickled tensor, is no bomb either."""
    content = read(path, name)
    if content.startswith(b"PK"):
        inner = f"{path}, in its {name},"
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                check(inner, archive.infolist(), len(content))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise AttnprofError(f"{inner} is a damaged zip archive: {error}.") from None


def check_same(path: str | Path) -> None:
    """That PyTorch's own reader finds in a file what Python's did: what was checked is what will be loaded.

    A zip archive can be made that two readers read differently.
    """
    import torch

    expected = {member.filename: member.file_size for member in members(path)}
    expected = {name.partition("/")[2]: size for name, size in expected.items() if not name.endswith("/")}
    try:
        reader: Any = torch._C.PyTorchFileReader(str(path))
        found = {name: int(reader.get_record_size(name)) for name in reader.get_all_records()}
    except RuntimeError as error:
        raise AttnprofError(f"{path} is damaged: PyTorch cannot read it ({str(error).splitlines()[0]}).") from None
    if found != expected or len({name.lower() for name in found}) != len(found):
        raise AttnprofError(f"{path} is damaged: its members are not the same to every reader of zip archives.")


def _by_name(found: Iterable[zipfile.ZipInfo]) -> dict[str, str]:
    """``data.pkl`` -> ``model/data.pkl``: PyTorch puts everything into one folder, but for its oldest programs."""
    named: dict[str, str] = {}
    for member in found:
        named[member.filename.partition("/")[2] or member.filename] = member.filename
    return named
