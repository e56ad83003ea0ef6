"""What a file is, by its bytes: a suffix is a name that anybody can give to anything."""

from __future__ import annotations

import enum
import json
import os
import stat
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from attnprof.core.errors import AttnprofError
from attnprof.saved import archives

#: A JSON file that is a configuration or an index of shards is never larger, and nor is a safetensors header.
_LARGEST_JSON = 100_000_000
_HEAD = 64


class Kind(enum.Enum):
    """What attnprof opens. The value is how a sentence calls it."""

    EXPORTED = "a torch.export program"
    SCRIPTED = "a TorchScript archive"
    TORCH_SAVE = "a file of torch.save"  # a zip archive with a pickle: a state_dict, or a pickled model
    TORCH_SAVE_LEGACY = "a file of torch.save's old format"  # bare pickles, one after the other
    SAFETENSORS = "a safetensors file"
    SHARDS = "an index of sharded weights"
    HUGGING_FACE = "a Hugging Face configuration"  # a folder with a config.json, or that file

    @property
    def is_weights(self) -> bool:
        """Whether such a file may hold weights alone, which need a model to go into."""
        return self in (Kind.TORCH_SAVE, Kind.TORCH_SAVE_LEGACY, Kind.SAFETENSORS, Kind.SHARDS)


def kind_of(path: str | Path) -> Kind:
    """What a file or folder is.

    Reads its first bytes, and the names in it when it is an archive. Raises :class:`AttnprofError` with what it
    is instead, and the way on, when it is nothing attnprof opens.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _kind_of_folder(path)
        if not stat.S_ISREG(mode):
            raise AttnprofError(f"{path} is not a regular file.")
        with path.open("rb") as file:
            return _kind_of_file(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise AttnprofError(f"{path} cannot be read: {error.strerror or error}.") from None


def _kind_of_folder(path: Path) -> Kind:
    if (path / "config.json").is_file():
        return Kind.HUGGING_FACE
    names = sorted(entry.name for entry in path.iterdir())
    for name, sentence in _FOLDERS.items():
        if name in names:
            raise AttnprofError(f"{path} {sentence}.")
    files = [name for end in _OPENED for name in names if name.endswith(end)]
    if files:
        raise AttnprofError(f"{path} is a folder without a config.json; name a file in it, such as {path / files[0]}.")
    if any(name.endswith(".gguf") for name in names):
        raise AttnprofError(f"{path} holds {_FOREIGN[b'GGUF'].removeprefix('a ')}.")
    raise AttnprofError(
        f"{path} is a folder without a config.json; name a file of a model, or a folder of a Hugging Face model."
    )


def _kind_of_file(path: Path, file: BinaryIO, size: int) -> Kind:
    head = file.read(_HEAD)
    if not head:
        raise AttnprofError(f"{path} is empty.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(path)
    if _is_safetensors(head, size):
        return Kind.SAFETENSORS
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return _kind_of_json(path, file, size)
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05":
        return Kind.TORCH_SAVE_LEGACY
    _refuse_foreign(path, head)
    if _is_tar(path):
        raise AttnprofError(
            f"{path} is a tar archive, as PyTorch wrote before 0.1.10; load it with such a PyTorch, or unpack it."
        )
    raise AttnprofError(
        f"{path} is no file of a model that attnprof knows: it opens programs of torch.export, TorchScript, "
        "weights of torch.save and safetensors, and configurations of Hugging Face."
    )


def _kind_of_zip(path: Path) -> Kind:
    names = archives.names(path)
    if "archive_format" in names:
        if any(name.startswith("models/") for name in names):
            return Kind.EXPORTED
        raise AttnprofError(
            f"{path} is a compiled AOTInductor package, whose ops are machine code; "
            "give the program that torch.export saved, from before it was compiled."
        )
    if "serialized_exported_program.json" in names:
        return Kind.EXPORTED
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return Kind.SCRIPTED
    if "data.pkl" in names:
        return Kind.TORCH_SAVE
    if names and all(name.endswith(".npy") for name in names):
        raise AttnprofError(f"{path} is an archive of NumPy arrays; save a state_dict with torch.save or safetensors.")
    if "saved_model.pb" in names or "keras_metadata.pb" in names or "config.json" in names:
        raise AttnprofError(f"{path} is a Keras or TensorFlow archive; attnprof counts PyTorch models.")
    raise AttnprofError(f"{path} is a zip archive, but nothing that PyTorch saves.")


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes with the length of a header, then that header, which is JSON: an object."""
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and length < 2**40 and (length <= size or head[5:8] == b"\0\0\0")


def _kind_of_json(path: Path, file: BinaryIO, size: int) -> Kind:
    if size > _LARGEST_JSON:
        raise AttnprofError(f"{path} is JSON of {size:,} bytes, more than any configuration or index has.")
    file.seek(0)
    try:
        found = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AttnprofError(f"{path} is not valid JSON: {error}.") from None
    if isinstance(found, dict):
        if isinstance(found.get("weight_map"), dict):
            return Kind.SHARDS
        if "model_type" in found or "architectures" in found:
            return Kind.HUGGING_FACE
        if "attnprof" in found or "schema_version" in found:
            raise AttnprofError(f"{path} looks like a saved run; `attnprof report {path}` shows it.")
        refuse_others(path, found)
    raise AttnprofError(
        f"{path} is JSON, but neither a Hugging Face configuration (it names no model_type) nor an index of "
        "weights (it has no weight_map)."
    )


def refuse_others(path: Path, table: Mapping[str, Any]) -> None:
    """Raise for a configuration that is not of a model of transformers, with what it is."""
    if "peft_type" in table:
        base = table.get("base_model_name_or_path")
        of = f", {base!r:.100}" if isinstance(base, str) and base else ""
        raise AttnprofError(f"{path} is the configuration of {_ADAPTER} that it was trained for{of}.")
    if "_class_name" in table or "_diffusers_version" in table:
        raise AttnprofError(f"{path} is a configuration of diffusers ({table.get('_class_name')!r:.60}): {_IN_CODE}.")


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, tarfile.TarError, EOFError):
        return False


def _refuse_foreign(path: Path, head: bytes) -> None:
    for start, sentence in _FOREIGN.items():
        if head.startswith(start):
            raise AttnprofError(f"{path} is {sentence}.")
    if _is_onnx(head) or (path.suffix == ".onnx"):
        raise AttnprofError(
            f"{path} is an ONNX model, which attnprof does not read; "
            "export the PyTorch model with torch.export.export and save it with torch.export.save."
        )
    if head[4:8] in (b"TFL3", b"ET12", b"PTMF"):
        what = {b"TFL3": "a TensorFlow Lite model", b"ET12": "an ExecuTorch program", b"PTMF": "a TorchScript model "}
        raise AttnprofError(f"{path} is {what[head[4:8]].strip()} compiled for phones; give what it was made from.")


def _is_onnx(head: bytes) -> bool:
    """A protobuf ModelProto: field 1 (ir_version, a small varint), then field 2 (producer_name) or 7, 8."""
    return head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42")


#: The names of what is opened, the likeliest of a folder first.
_OPENED = (".safetensors.index.json", ".bin.index.json", ".pt2", ".safetensors", ".bin", ".pth", ".pt", ".ckpt")
_ADAPTER = "an adapter, which is no model by itself; give the config.json of the model"
_IN_CODE = "build the model in a file of yours, attnprof run file.py:build"
#: a file that tells what a folder is -> what that is, and what to do
_FOLDERS = {
    "model_index.json": f"is a pipeline of diffusers, of several models: {_IN_CODE}",
    "adapter_config.json": f"holds {_ADAPTER} that it was trained for",
    "saved_model.pb": "is a model of TensorFlow; attnprof counts PyTorch models",
}
#: first bytes -> what it is, and what to do
_FOREIGN = {
    b"GGUF": "a GGUF file of llama.cpp, not a PyTorch model; give the Hugging Face config.json it was made from",
    b"\x93NUMPY": "a NumPy array; save a state_dict with torch.save or safetensors",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes; attnprof counts PyTorch models",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\x7fELF": "a compiled library; give the program that torch.export saved, from before it was compiled",
    b"<!DOCTYPE": "a page of HTML, as a download that failed leaves; fetch the file itself",
    b"<html": "a page of HTML, as a download that failed leaves; fetch the file itself",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
}
