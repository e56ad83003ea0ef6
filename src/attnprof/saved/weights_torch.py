"""Weights in a file of torch.save: the tensors of the model in it, without reading their data."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.core.stored import StoredTensor, StoredWeights
from attnprof.saved import archives

if TYPE_CHECKING:
    from torch import Tensor

#: Where training programs keep the weights in a checkpoint, the likeliest first.
_PLACES = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
#: What they keep beside them.
_BESIDE = ("optim", "sched", "scaler", "ema", "callback", "loops", "rng", "hyper")
_SHOWN = 5
#: Tables in tables, as deep and as many as no checkpoint has: an optimizer's state has one for each parameter.
_DEEPEST = 50
_MOST_TABLES = 1_000_000


def read(path: Path, *, trust_pickle: bool = False) -> StoredWeights:
    """The tensors of the model in a checkpoint; their data is not read.

    Raises :class:`AttnprofError` for a file that is damaged, or in which no weights are.
    """
    tensors, notes = load(path, trust_pickle=trust_pickle)
    storages: dict[int, int] = {}
    for tensor in tensors.values():
        key = _storage(tensor)
        storages[key] = storages.get(key, 0) + 1
    numbers = {key: i for i, key in enumerate(key for key, count in storages.items() if count > 1)}
    entries = tuple(
        StoredTensor(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            _bytes(tensor),
            path.name,
            numbers.get(_storage(tensor), -1),
        )
        for name, tensor in tensors.items()
    )
    return StoredWeights(str(path), entries, path.stat().st_size, notes=tuple(notes))


def load(path: Path, *, trust_pickle: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """The weights in a checkpoint by name, and sentences on what else it holds.

    Nothing pickled in it is run, unless the user trusts it: then what lies beside the weights may be anything.

    Their data is mapped, and read where it is used; that of torch.save's old format is read at once.
    """
    import torch

    from attnprof.saved.restricted import bounded

    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        archives.members(path)  # no bombs
    try:
        with bounded():
            found = torch.load(path, map_location="cpu", weights_only=not trust_pickle, mmap=True if zipped else None)
    except pickle.UnpicklingError as error:
        raise AttnprofError(
            f"{path} holds more than weights, which is not loaded: {_refused(error)} Save a state_dict alone and pass "
            "--model file.py:build, or pass --trust-pickle with it if you made this file."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # what torch raises for bytes that are damaged is not defined
        raise AttnprofError(f"{path} is damaged (cut off, perhaps): {_reason(error)}") from None
    return _weights(path, found)


def _weights(path: Path, found: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a model in whatever a checkpoint holds."""
    from torch import Tensor

    if not isinstance(found, Mapping):
        what = "a tensor" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise AttnprofError(f"{path} holds {what}: weights are a state_dict, tensors by their names.")
    _check_nesting(path, found)
    direct = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    nested = {str(name): value for name, value in found.items() if _has_tensors(value)}
    if direct and not (nested and any(name in nested for name in _PLACES)):
        return direct, _left_out(name for name in map(str, found) if name not in direct)
    place = next((name for name in _PLACES if name in nested), None)
    if place is not None:
        inside = dict(_flat(nested[place]))
        return inside, [f"The weights are those in {place!r}.", *_left_out(n for n in map(str, found) if n != place)]
    parts = {name: value for name, value in nested.items() if not any(word in name.lower() for word in _BESIDE)}
    if not parts:
        held = ", ".join(repr(str(name))[:50] for name in list(found)[:_SHOWN]) or "nothing"
        raise AttnprofError(f"{path} holds no weights: a state_dict is tensors by their names, and it has {held}.")
    tensors = {f"{name}.{inner}": value for name, part in parts.items() for inner, value in _flat(part)}
    return tensors, _left_out(name for name in map(str, found) if name not in parts)


def _check_nesting(path: Path, found: Mapping[Any, Any]) -> None:
    """Tables in tables are walked through: refuse those that never end, or that hold each other again and again."""
    level, seen = [found], 0
    for _ in range(_DEEPEST):
        level = [inner for table in level for inner in table.values() if isinstance(inner, Mapping)]
        seen += len(level)
        if not level:
            return
        if seen > _MOST_TABLES:
            break
    raise AttnprofError(f"{path} holds tables in tables, deeper or more of them than any checkpoint: it is not read.")


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and next(_flat(value), None) is not None


def _flat(value: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a mapping, those of mappings in it with the names joined."""
    from torch import Tensor

    for name, inner in value.items():
        if isinstance(inner, Tensor):
            yield f"{before}{name}", inner
        elif isinstance(inner, Mapping):
            yield from _flat(inner, f"{before}{name}.")


def _left_out(names: Iterator[str]) -> list[str]:
    found = list(names)
    if not found:
        return []
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"Left out: {', '.join(found[:_SHOWN])}{more}."]


def _storage(tensor: Tensor) -> int:
    """What tells whether two tensors look into the same memory."""
    import torch

    where = tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0
    return where or -id(tensor)


def _bytes(tensor: Tensor) -> int:
    """What a tensor takes: never more than its storage, which an expanded one reads again and again."""
    import torch

    whole = tensor.numel() * tensor.element_size()
    return min(whole, tensor.untyped_storage().nbytes()) if tensor.layout is torch.strided else whole


def _refused(error: Exception) -> str:
    """What the restricted unpickler says that it will not do, without its advice to do it anyway."""
    text = " ".join(str(error).partition("WeightsUnpickler error: ")[2].split()) or _reason(error)
    return f"{text.partition(' Please use ')[0].partition(' Check the documentation')[0][:300].rstrip('.')}."


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).partition(" This is an internal miniz error.")[0][:300]
    return text if text.endswith(".") else f"{text}."
