"""What a file is, by its bytes; and a sentence for everything that is no model of PyTorch."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.saved import archives
from attnprof.saved.kinds import Kind, kind_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, bytes]:
    """One file of each kind that is opened."""
    folder = tmp_path_factory.mktemp("kinds")
    model = nn.Linear(4, 2)
    made = {}

    def taken(kind: Kind, name: str) -> None:
        made[kind] = (folder / name).read_bytes()

    torch.export.save(torch.export.export(model, (torch.ones(3, 4),)), folder / "a.pt2")
    taken(Kind.EXPORTED, "a.pt2")
    torch.jit.script(model).save(str(folder / "a.pt"))
    taken(Kind.SCRIPTED, "a.pt")
    torch.save(model.state_dict(), folder / "b.pt")
    taken(Kind.TORCH_SAVE, "b.pt")
    torch.save(model.state_dict(), folder / "c.pt", _use_new_zipfile_serialization=False)
    taken(Kind.TORCH_SAVE_LEGACY, "c.pt")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    made[Kind.SAFETENSORS] = struct.pack("<Q", len(header)) + header + bytes(4)
    made[Kind.SHARDS] = json.dumps({"metadata": {}, "weight_map": {"w": "a.safetensors"}}).encode()
    made[Kind.HUGGING_FACE] = json.dumps({"model_type": "gpt2"}).encode()
    return made


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("name", ["model.pt2", "model.pt", "model.safetensors", "config.json", "no suffix"])
def test_the_suffix_says_nothing(tmp_path: Path, files: dict[Kind, bytes], kind: Kind, name: str) -> None:
    (tmp_path / name).write_bytes(files[kind])
    assert kind_of(tmp_path / name) is kind


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert kind_of(tmp_path) is Kind.HUGGING_FACE


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.zeros(3))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x80", ["ONNX", "torch.export"]),
        (b"GGUF\x03\0\0\0", ["GGUF", "config.json"]),
        (b"\x1c\0\0\0TFL3rest", ["TensorFlow Lite"]),
        (b"\x1c\0\0\0ET12rest", ["ExecuTorch"]),
        (b"\x93NUMPY\x01\0", ["NumPy"]),
        (npz(), ["NumPy"]),
        (b"\x89HDF\r\n\x1a\nrest", ["HDF5"]),
        (b"\x7fELF\x02\x01", ["compiled"]),
        (b"\x1f\x8b\x08rest", ["gzip", "unpack"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS", "git lfs pull"]),
        (tar(), ["tar"]),
        (zipped(model__archive_format=b"pt2", model__data__aotinductor__model__x_so=b""), ["AOTInductor"]),
        (zipped(hello_txt=b"hello"), ["zip archive", "nothing that PyTorch saves"]),
        (b'{"a": 1}', ["JSON", "model_type", "weight_map"]),
        (b'{"model_type": ', ["not valid JSON"]),
        (b"[" * 100_000, ["not valid JSON"]),
        (b"", ["empty"]),
        (b"hello, world", ["no file of a model"]),
        (b"\0" * 64, ["no file of a model"]),
        (b"\x80\x02}.", ["not one of torch.save"]),
    ],
)
def test_what_is_no_model_is_told_what_it_is(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(AttnprofError) as caught:
        attnprof.load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_name_ending_in_onnx_is_believed_when_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x0a\x00")
    with pytest.raises(AttnprofError, match=r"torch\.export"):
        kind_of(tmp_path / "model.onnx")


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
UNET = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.safetensors": ""}, "without a config.json; name a file in it, such as {}/model.safetensors"),
        ({"b.safetensors": "", "b.safetensors.index.json": ""}, "such as {}/b.safetensors.index.json"),
        ({"model.gguf": ""}, "GGUF file of llama.cpp, not a PyTorch model; give the Hugging Face config.json"),
        ({"adapter_config.json": ADAPTER, "adapter_model.safetensors": ""}, "holds an adapter, which is no model"),
        ({"model_index.json": UNET}, "is a pipeline of diffusers, of several models"),
        ({"config.json": UNET}, "is a configuration of diffusers ('UNet2DConditionModel')"),
        ({"config.json": ADAPTER}, "give the config.json of the model that it was trained for, 'some/base'"),
        ({"saved_model.pb": ""}, "is a model of TensorFlow"),
        ({"notes.txt": ""}, "name a file of a model, or a folder of a Hugging Face model"),
    ],
)
def test_folders_of_other_things_are_told_what_they_are(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content and json.dumps(content))
    for path in (tmp_path, *tmp_path.glob("*config.json")):
        with pytest.raises(AttnprofError) as caught:
            attnprof.load_model(path)
        assert "\n" not in str(caught.value)
        if path == tmp_path:
            assert words.format(tmp_path) in str(caught.value)


def test_what_another_user_may_not_read_is_one_sentence(tmp_path: Path) -> None:
    """In a process of its own that becomes nobody where it is root, who may read everything."""
    (tmp_path / "closed.pt").write_bytes(b"PK")
    (tmp_path / "closed").mkdir()
    (tmp_path / "unlisted").mkdir()
    (tmp_path / "unlisted" / "index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    for name, mode in (("closed.pt", 0), ("closed", 0), ("unlisted", 0o311), (".", 0o755)):
        (tmp_path / name).chmod(mode)
    code = (
        "import os, sys, encodings.utf_8_sig\n"  # what is imported late may lie where only root can read
        "from attnprof.core.errors import AttnprofError\n"
        "from attnprof.saved import weights\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: weights.read(path)\n"
        "    except AttnprofError as error: print(error)\n"
    )
    paths = ["closed.pt", "closed", "closed/x.pt", "unlisted/index.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    denied = "cannot be read: Permission denied."
    assert done.stdout.splitlines() == [
        *(f"{path} {denied}" for path in paths[:3]),
        f"{paths[3]} names gone.safetensors, which is not in its folder.",
    ]
    for name in ("closed", "unlisted"):
        (tmp_path / name).chmod(0o755)


def test_places_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "gone.pt").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.pt").mkdir()
    expected = {
        "fifo.pt": "not a regular file",
        "loop.pt": "symbolic links",
        "gone.pt": "No such file",
        "absent.pt": "No such file",
        "folder.pt": "folder without a config.json",
    }
    for name, words in expected.items():
        with pytest.raises(AttnprofError, match=words):
            attnprof.load_model(tmp_path / name)
    with pytest.raises(AttnprofError, match="cannot be read"):
        attnprof.load_model("/dev/null/model.pt")
    with pytest.raises(AttnprofError, match="not a regular file"):
        attnprof.load_model("/dev/null")


def test_options_that_mean_nothing_for_a_file(tmp_path: Path, files: dict[Kind, bytes]) -> None:
    path = tmp_path / "file"
    for kind, options in {
        Kind.EXPORTED: {"model": nn.Identity, "task": "x"},
        Kind.SCRIPTED: {"model": nn.Identity, "task": "x", "dims": {"batch": 2}, "trust_pickle": True, "batch": 2},
        Kind.TORCH_SAVE: {"dims": {"batch": 2}, "seq": 2},
        Kind.HUGGING_FACE: {"dims": {"batch": 2}, "trust_pickle": True},
    }.items():
        path.write_bytes(files[kind])
        for name, value in options.items():
            with pytest.raises(AttnprofError, match=f"{kind.value}, and --{name[:3]}"):
                attnprof.load_model(path, **{name: value})


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """Ten megabytes of zeros are ten kilobytes: a thousand times less."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(archives.ALWAYS_FINE_BYTES + 1))
    path = tmp_path / "bomb.pt"
    path.write_bytes(bomb.getvalue())
    with pytest.raises(AttnprofError, match="would unpack to 10,000,001"):
        attnprof.load_model(path)


def test_what_is_compressed_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the ratio, when enough beside it is not compressed: what is read whole takes memory all the same."""
    monkeypatch.setattr(archives, "LARGEST_COMPRESSED", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(100_000), zipfile.ZIP_STORED)
        archive.writestr("archive/data.pkl", bytes(1001))
    with pytest.raises(AttnprofError, match=r"would unpack archive/data.pkl to 1,001 bytes"):
        attnprof.load_model(tmp_path / "bomb.pt")


def test_sizes_that_lie(tmp_path: Path, files: dict[Kind, bytes]) -> None:
    """A directory that says that a stored member is larger than the whole file."""
    content = bytearray(files[Kind.TORCH_SAVE])
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        start = archive.start_dir
    content[start + 20 : start + 28] = struct.pack("<II", 2**20, 2**20)  # compressed and real size of the first
    (tmp_path / "lie.pt").write_bytes(bytes(content))
    with pytest.raises(AttnprofError, match="damaged"):
        attnprof.load_model(tmp_path / "lie.pt")


def test_members_that_are_listed_twice(tmp_path: Path, files: dict[Kind, bytes]) -> None:
    path = tmp_path / "twice.pt2"
    path.write_bytes(files[Kind.EXPORTED])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")
    with pytest.raises(AttnprofError, match="lists a member twice"):
        attnprof.load_model(path)


def test_two_readers_that_disagree(tmp_path: Path, files: dict[Kind, bytes]) -> None:
    """Names that differ in case alone: PyTorch's reader takes one for the other."""
    path = tmp_path / "model.pt2"
    path.write_bytes(files[Kind.EXPORTED])
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{root}/MODELS/MODEL.JSON", b"{}")
    with pytest.raises(AttnprofError, match="not the same to every reader"):
        attnprof.load_model(path)


def test_a_pickle_of_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(AttnprofError, match=r"not one of torch\.save"):
        attnprof.load_model(tmp_path / "a.pkl")
