"""Writing files whole or not at all: a report that was interrupted leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from attnprof.core.errors import AttnprofError
from attnprof.reports.ours import is_ours


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path, once it is clear that a file can be written there; asked before a long run, not after."""
    target = Path(path)
    try:
        return _checked(target)
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise AttnprofError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}.") from None


def check_replaceable(path: str | os.PathLike[str], force: bool = False) -> None:
    """Raise :class:`AttnprofError` where a file is in the way that something else than attnprof wrote.

    An empty file, a device and a pipe are in nobody's way, and with ``force`` nothing is.
    """
    target = Path(path)
    try:
        if force or not target.is_file() or not target.stat().st_size or is_ours(target):
            return
    except OSError as error:
        raise AttnprofError(
            f"{target} exists and cannot be read ({error.strerror or error}), so nobody knows what it is: name another "
            "file, or replace it with --force."
        ) from None
    raise AttnprofError(
        f"{target} exists, and attnprof did not write it: name another file, or replace it with --force."
    )


def _checked(target: Path) -> Path:
    if target.exists() and not target.is_file() and not target.is_dir():
        return target  # a device or a pipe takes what it is given
    folder = target.parent
    if target.is_dir():
        raise AttnprofError(f"{target} is a folder; name a file in it.")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise AttnprofError(f"cannot write {target}: the folder {folder} {what}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AttnprofError(f"cannot write {target}: no permission to write in the folder {folder}.")
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8; see :func:`write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it, so that no reader sees half of it.

    An existing file is replaced in one step and keeps its permissions; a link is followed.
    """
    target = check_writable(path)
    if target.exists() and not target.is_file():
        return _pour(target, content)
    if target.is_symlink():
        try:
            target = check_writable(target.resolve())
        except (OSError, RuntimeError):
            raise AttnprofError(f"cannot write {target}: its link leads nowhere.") from None
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise AttnprofError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return target


def _pour(target: Path, content: bytes) -> Path:
    """Write into what is no regular file: replacing it would destroy it."""
    try:
        with target.open("wb") as file:
            file.write(content)
    except OSError as error:
        raise AttnprofError(f"cannot write {target}: {error.strerror or error}.") from error
    return target


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
