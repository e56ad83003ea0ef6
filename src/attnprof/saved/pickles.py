"""Files of torch.save: what their pickles would call, found out by reading them as text, never by unpickling."""

from __future__ import annotations

import _compat_pickle
import contextlib
import io
import os
import pickletools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from attnprof.core.errors import AttnprofError
from attnprof.saved import archives

#: The pickles at the start of a file of torch.save's old format: a number, a version, the machine, the object, keys.
_LEGACY_PICKLES = 5
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
#: What reading a damaged pickle as text raises.
_UNREADABLE = (ValueError, EOFError, IndexError, KeyError, OverflowError, MemoryError, AssertionError)
#: No pickle of weights has more opcodes: a few for each tensor.
_MOST_OPCODES = 50_000_000


def whole_model(path: Path, *, trust_pickle: bool, or_weights: bool = False) -> nn.Module | None:
    """The model that was pickled whole, if the file is one and is trusted; None for one of weights.

    A trusted checkpoint may hold more than weights, where they have a model to go into (``or_weights``). Raises
    :class:`AttnprofError` for a pickle that is not trusted: loading it would run its code.
    """
    names = calls(path)
    if not names:
        return None
    if not trust_pickle:
        raise AttnprofError(refusal(path, names))
    found = _unpickled(path)
    if isinstance(found, nn.Module):
        return found
    if isinstance(found, Mapping) and or_weights:
        return None
    way = "--model file.py:build names the model that weights in it go into" if isinstance(found, Mapping) else ""
    way = way or "save the model, or its state_dict alone"
    raise AttnprofError(f"{path} holds a pickled {type(found).__name__}, not a model: {way}.")


def refusal(path: Path, found: list[str]) -> str:
    """The sentence for a file whose pickle would run code: what it names, and the two ways on."""
    model = found[0].rpartition(".")[2][:1].isupper()
    shown = f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
    what = f"is a pickled model (class {found[0]})" if model else f"is a pickle that calls {shown}"
    return (
        f"{path} {what}. Loading it would run its code. Save a state_dict and pass --model file.py:build, or pass "
        "--trust-pickle if you made this file."
    )


def calls(path: Path) -> list[str]:
    """The classes and functions that the pickles of a file name, and that PyTorch does not know to be harmless.

    Raises :class:`AttnprofError` when they cannot be read through.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return _unsafe(io.BytesIO(archives.read(path, "data.pkl")), pickles=1)
            file.seek(0)
            _check_legacy(path, file)
            return _unsafe(file, pickles=_LEGACY_PICKLES)
    except _UNREADABLE as error:
        raise AttnprofError(f"{path} is damaged: its pickle cannot be read ({_first_line(error)}).") from None


def named_in(path: Path, pickle: bytes) -> list[str]:
    """All classes and functions that one pickle of a file names."""
    try:
        return list(_named(io.BytesIO(pickle), pickles=1))
    except _UNREADABLE as error:
        raise AttnprofError(f"{path} is damaged: a pickle in it cannot be read ({_first_line(error)}).") from None


def _check_legacy(path: Path, file: BinaryIO) -> None:
    """A file of torch.save begins with its own number; any other pickle is of somebody else."""
    first = next((value for op, value, _ in pickletools.genops(file) if op.name.startswith(("LONG", "INT"))), None)
    file.seek(0)
    if first != _LEGACY_MAGIC:
        named = _unsafe(file, pickles=1)
        file.seek(0)
        if not named:
            raise AttnprofError(f"{path} is a pickle, but not one of torch.save: save a state_dict with torch.save.")


def _unsafe(file: BinaryIO, pickles: int) -> list[str]:
    from torch import _weights_only_unpickler as restricted

    harmless = {*restricted._get_allowed_globals(), *restricted._get_user_allowed_globals()}
    return [name for name in dict.fromkeys(_named(file, pickles)) if name not in harmless]


def _named(file: BinaryIO, pickles: int) -> Iterator[str]:
    """What the next pickles look up, by dotted name, in order."""
    for number in range(pickles):
        if number and not file.read(1):
            return
        if number:
            file.seek(-1, io.SEEK_CUR)
        strings: list[str] = []
        memo: dict[int, str] = {}
        for count, (op, value, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_OPCODES:
                raise ValueError("it never ends")
            if op.name in ("GLOBAL", "INST"):
                yield _of_today(*str(value).partition(" ")[::2])
            elif op.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:]) if len(strings) > 1 else "something unnamed"
            elif op.name.startswith("EXT"):
                yield f"a registered extension ({value})"
            elif "UNICODE" in op.name or "STRING" in op.name:
                strings = [*strings[-3:], str(value)]
            elif op.name == "MEMOIZE" or op.name.endswith("PUT"):
                if strings:
                    memo[value if isinstance(value, int) else len(memo)] = strings[-1]
            elif op.name.endswith("GET") and value in memo:
                strings = [*strings[-3:], memo[value]]


def _of_today(module: str, name: str) -> str:
    """The dotted name of what a pickle calls by the name that it had in Python 2, as all older protocols do."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def _unpickled(path: Path) -> Any:
    """What is in a file that the user trusts: this runs its code."""
    sys.path.insert(0, os.getcwd())  # where its classes are, as for any target
    try:
        with _memory_said(path):
            found = torch.load(path, weights_only=False, map_location="cpu")
    except (AttributeError, ImportError) as error:
        raise AttnprofError(
            f"{path} needs a class that cannot be found: {_first_line(error)}. Run attnprof where its module can be "
            "imported; a class of a script (__main__) cannot be found again."
        ) from None
    finally:
        sys.path.remove(os.getcwd())
    return found


@contextlib.contextmanager
def _memory_said(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise AttnprofError(f"{path} asks for more memory than there is.") from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
