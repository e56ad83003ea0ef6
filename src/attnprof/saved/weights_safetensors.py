"""The header of a safetensors file: read without its data, and believed in nothing.

A file is eight bytes with the length N of the header, little-endian; N bytes of JSON, an object of name -> dtype,
shape and data_offsets, which count from the header's end; then the data, without gaps.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from attnprof.core.errors import AttnprofError
from attnprof.core.plain import as_counts, as_dict, as_list, as_text
from attnprof.core.stored import StoredTensor, StoredWeights

#: A header of 250,000 tensors. The format allows three times that; reading it takes some twenty times its size.
LARGEST_HEADER_BYTES = 32_000_000
_LENGTH = struct.Struct("<Q")
#: name in the format -> (name in torch, bits of an element)
_DTYPES = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F4": ("float4_e2m1fn", 4),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
}


def read(path: Path) -> StoredWeights:
    """What the header says, checked against the file.

    Raises :class:`AttnprofError` in one sentence for a header that is cut off, too large, no such JSON, that names
    something twice, or that does not describe the data: dtypes, shapes and offsets have to fit, without gap or overlap.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            first = file.read(_LENGTH.size)
            if len(first) < _LENGTH.size:
                raise AttnprofError(f"{path} is cut off: it has {size} bytes, less than the length of a header.")
            (length,) = _LENGTH.unpack(first)
            data = size - _LENGTH.size - length
            if data < 0:
                raise AttnprofError(
                    f"{path} is cut off, or no safetensors file: its header has {length:,} bytes, the file {size:,}."
                )
            if length > LARGEST_HEADER_BYTES:
                raise AttnprofError(
                    f"{path} has a header of {length:,} bytes; no model needs more than {LARGEST_HEADER_BYTES:,}."
                )
            header = file.read(length)
    except OSError as error:
        raise AttnprofError(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        return _read(path, size, data, as_dict(json.loads(header.decode("utf-8"), object_pairs_hook=_unique)))
    except (ValueError, TypeError, RecursionError) as error:
        raise AttnprofError(f"{path} has a header that is not valid: {str(error)[:300].rstrip('.')}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


def _read(path: Path, size: int, data: int, header: Mapping[str, Any]) -> StoredWeights:
    metadata = {as_text(k): as_text(v) for k, v in as_dict(header.get("__metadata__", {})).items()}
    placed: list[tuple[int, int, StoredTensor]] = []
    for name, entry in header.items():
        if name != "__metadata__":
            placed.append(_entry(name, as_dict(entry), path.name))
    end = 0
    for start, stop, tensor in sorted(placed, key=lambda found: found[:2]):
        if start != end:
            what = "overlaps the one before it" if start < end else "leaves a gap before it"
            raise ValueError(f"{tensor.name!r} {what}: it begins at {start:,}, not at {end:,}")
        end = stop
    if end != data:
        raise ValueError(f"its tensors end at {end:,}, and the data of the file at {data:,}")
    return StoredWeights(str(path), tuple(tensor for *_, tensor in placed), size, metadata=metadata)


def _entry(name: str, entry: Mapping[str, Any], file: str) -> tuple[int, int, StoredTensor]:
    if missing := {"dtype", "shape", "data_offsets"} - entry.keys():
        raise ValueError(f"{name!r} has no {', '.join(sorted(missing))}")
    written = as_text(entry["dtype"])
    if written not in _DTYPES:
        raise ValueError(f"{name!r} has the dtype {written!r}, which is none of {', '.join(_DTYPES)}")
    dtype, bits = _DTYPES[written]
    shape = tuple(as_counts(as_list(entry["shape"])))
    offsets = as_counts(as_list(entry["data_offsets"]))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name!r} has data_offsets {offsets}, which are not a begin and an end")
    taken = offsets[1] - offsets[0]
    if prod(shape) * bits != taken * 8:
        raise ValueError(f"{name!r} is {dtype}{list(shape)}, and has {taken:,} bytes")
    return offsets[0], offsets[1], StoredTensor(name, shape, dtype, taken, file)
