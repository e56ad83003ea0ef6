"""Weights of an exported program mapped from its file: read when they are used, on fake tensors never."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED

import torch

from attnprof.saved import archives


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Inside, ``torch.export.load`` of this file maps its weights, where PyTorch itself reads them into memory.

    Writing to them leaves the file as it is. Versions of PyTorch that read archives in another way read them as ever.
    """
    from torch.export.pt2_archive import _package

    package: Any = _package
    original: type[Any] = package.PT2ArchiveReader
    stored = {member.filename for member in archives.members(path) if member.compress_type == ZIP_STORED}
    records = {name.partition("/")[2] for name in stored}

    def reader(file: Any) -> Any:
        made = original(file)
        if isinstance(file, str | os.PathLike) and os.path.samefile(file, path):
            made.archive_file = _Records(made.archive_file, path, records)
        return made

    package.PT2ArchiveReader = reader
    try:
        yield
    finally:
        package.PT2ArchiveReader = original


class _Records:
    """PyTorch's reader of an archive, with the records that are stored as they are mapped from the file."""

    def __init__(self, reader: Any, path: Path, stored: set[str]) -> None:
        self._reader, self._stored = reader, stored
        self._file = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def get_storage_from_record(self, name: str, numel: int, dtype: torch.dtype) -> torch.Tensor:
        start = self._reader.get_record_offset(name)
        if name not in self._stored or start % dtype.itemsize:
            found: torch.Tensor = self._reader.get_storage_from_record(name, numel, dtype)
            return found
        storage: Any = self._file[start : start + numel * dtype.itemsize]
        return torch.empty(0, dtype=dtype).set_(storage, 0, (numel,), (1,))
