"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from attnprof.core.errors import AttnprofError


def check_writable(path: Path) -> None:
    """Raise unless a file can be put at ``path``: said before a long run, not after it."""
    if path.is_dir():
        raise AttnprofError(f"cannot write {path}: it is a folder; name a file.")
    if not path.parent.is_dir():
        raise AttnprofError(f"cannot write {path}: the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise AttnprofError(f"cannot write {path}: the folder {path.parent} is not writable.")


def write_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` in one step: an interrupted write leaves the old file, or none."""
    check_writable(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
