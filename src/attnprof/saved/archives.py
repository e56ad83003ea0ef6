"""Zip archives looked at before anything in them is read: names, sizes, and no bombs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from attnprof.core.errors import AttnprofError

#: An archive may unpack to this many times its own size. PyTorch stores weights as they are; it compresses only
#: TorchScript's code, which shrinks to a fifth or so.
LARGEST_RATIO = 100
#: Below this many bytes unpacked, no ratio is too large.
ALWAYS_FINE_BYTES = 10_000_000
#: The most members PyTorch could want: one per tensor.
MOST_MEMBERS = 1_000_000


def names(path: str | Path) -> set[str]:
    """The members of a zip archive, below the folder that all of them share, as PyTorch writes it.

    Raises :class:`AttnprofError` when the archive is damaged, or would unpack to far more than it holds.
    """
    return {name for name in (_below_root(member.filename) for member in members(path)) if name}


def members(path: str | Path) -> list[zipfile.ZipInfo]:
    """What the directory of a zip archive lists, checked; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise AttnprofError(f"{path} is a damaged zip archive (cut off, perhaps): {error}.") from None
    check(path, found, os.stat(path).st_size)
    return found


def check(path: str | Path, found: list[zipfile.ZipInfo], size: int) -> None:
    """No archive that would unpack to far more than its own size, or that lists what it cannot hold."""
    if len(found) > MOST_MEMBERS:
        raise AttnprofError(f"{path} lists {len(found):,} members, more than any model has.")
    unpacked = sum(member.file_size for member in found)
    if unpacked > max(ALWAYS_FINE_BYTES, LARGEST_RATIO * size):
        raise AttnprofError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}: more than {LARGEST_RATIO} times its size, "
            "as no model does. It was not read."
        )


def _below_root(name: str) -> str:
    """``data.pkl`` of ``model/data.pkl``: PyTorch puts everything into one folder."""
    return name.partition("/")[2]
