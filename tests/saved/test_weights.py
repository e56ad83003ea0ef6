"""Files of weights: read by their headers alone, believed in nothing, and put into the model they are of."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.core.stored import StoredWeights
from attnprof.saved import weights, weights_safetensors
from attnprof.saved.loaded import Loaded


class Net(nn.Module):
    """Two layers, the second of which may be the first's weight again."""

    def __init__(self, d: int = 4, tied: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(d, d)
        self.norm = nn.BatchNorm1d(d)
        self.second = nn.Linear(d, d, bias=False)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.norm(self.first(x)))
        return out


def made(d: int = 4, tied: bool = False) -> Loaded:
    return Loaded(Net(d, tied), (torch.ones(3, d),))


def header(path: Path, table: Any, data: int = 0, length: int | None = None) -> Path:
    """A safetensors file with this header, or these bytes of one, and so many bytes of data."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(data))
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def said(call: Callable[[], Any]) -> str:
    with pytest.raises(AttnprofError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def facts(found: StoredWeights) -> dict[str, tuple[tuple[int, ...], str, int]]:
    return {t.name: (t.shape, t.dtype, t.bytes) for t in found.tensors}


def expected(model: nn.Module) -> dict[str, tuple[tuple[int, ...], str, int]]:
    return {n: (tuple(t.shape), str(t.dtype)[6:], t.nbytes) for n, t in model.state_dict().items()}


# Reading


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors"])
def test_each_kind_of_file_says_what_its_tensors_are(kind: str, tmp_path: Path) -> None:
    model, path = Net().to(torch.bfloat16), tmp_path / f"w.{kind}"
    if kind == "safetensors":
        save_file(model.state_dict(), path, metadata={"format": "pt"})
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "pt")
    found = weights.read(path)
    assert facts(found) == expected(model)
    d = 4
    assert found.parameters == (d * d + d) + 2 * d + d * d  # a layer, weights of the norm, a layer
    assert found.buffer_elements == 2 * d + 1  # its statistics, and the number of batches
    assert found.by_dtype()["int64"] == (1, 1, 8)  # num_batches_tracked
    assert found.file_bytes == path.stat().st_size


@pytest.mark.parametrize("zipped", [True, False])
def test_tied_weights_count_once(zipped: bool, tmp_path: Path) -> None:
    torch.save(Net(tied=True).state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = weights.read(tmp_path / "w.pt")
    assert len(found.tensors) == len(found.counted) + 1
    d = 4
    assert (found.parameters, found.buffer_elements) == ((d * d + d) + 2 * d, 2 * d + 1)


@pytest.mark.parametrize(
    ("checkpoint", "names", "notes"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, "", ["The weights are those in 'state_dict'.", "Left out: epoch."]),
        (
            lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
            "",
            ["The weights are those in 'model'.", "Left out: optimizer."],
        ),
        (lambda s: {"encoder": s, "optimizer_state": {"x": torch.ones(1)}}, "encoder.", ["Left out: optimizer_state."]),
        (lambda s: {**s, "version": "2"}, "", ["Left out: version."]),
    ],
)
def test_the_model_in_a_checkpoint(checkpoint: Any, names: str, notes: list[str], tmp_path: Path) -> None:
    model = Net()
    torch.save(checkpoint(dict(model.state_dict())), tmp_path / "c.pt")
    found = weights.read(tmp_path / "c.pt")
    assert facts(found) == {f"{names}{name}": fact for name, fact in expected(model).items()}
    assert list(found.notes) == notes


@pytest.mark.parametrize(
    "value", [torch.ones(3), [torch.ones(3)], {}, {"epoch": 3}, {"optimizer": {"x": torch.ones(1)}}]
)
def test_a_file_without_weights_is_one_sentence(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "c.pt")
    assert "holds" in said(lambda: weights.read(tmp_path / "c.pt"))


def test_an_expanded_tensor_takes_what_its_storage_does(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "w.pt")
    assert facts(weights.read(tmp_path / "w.pt")) == {"w": ((10**12,), "float32", 4)}


def test_the_data_is_not_read(tmp_path: Path) -> None:
    path = header(tmp_path / "w.safetensors", {"w": entry([1 << 36], 0, 1 << 38)})  # 256 GiB
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (1 << 38))  # a hole on the disk
    found = weights.read(path)
    assert (found.parameters, found.bytes) == (1 << 36, 1 << 38)


# Headers of safetensors that lie

HOSTILE = {
    "gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12, "leaves a gap"),
    "overlap": ({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, 8, "overlaps"),
    "past the end": ({"a": entry([4], 0, 16)}, 8, "end at 16, and the data of the file at 8"),
    "data left over": ({"a": entry([1], 0, 4)}, 8, "end at 4, and the data of the file at 8"),
    "backwards": ({"a": entry([1], 4, 0)}, 4, "not a begin and an end"),
    "negative offset": ({"a": entry([1], -4, 0)}, 4, "-4 is negative"),
    "negative shape": ({"a": entry([-1], 0, 4)}, 4, "-1 is negative"),
    "huge shape": ({"a": entry([1 << 62, 1 << 62], 0, 4)}, 4, "'a' is float32"),
    "larger than any": ({"a": entry([1 << 70], 0, 4)}, 4, "too large"),
    "fraction": ({"a": entry([1.5], 0, 4)}, 4, "1.5 is not a whole number"),  # type: ignore[list-item]
    "truth": ({"a": entry([True], 0, 4)}, 4, "True is not a whole number"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4, "not a begin and an end"),
    "wrong size": ({"a": entry([2], 0, 4)}, 4, "'a' is float32[2], and has 4 bytes"),
    "unknown dtype": ({"a": entry([1], 0, 4, "Q7")}, 4, "the dtype 'Q7'"),
    "dtype of a wrong kind": ({"a": entry([1], 0, 4, ["F32"])}, 4, "is not a text"),  # type: ignore[arg-type]
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, 4, "'a' has no shape"),
    "entry of a wrong kind": ({"a": 3}, 0, "3 is not an object"),
    "metadata of a wrong kind": ({"__metadata__": {"a": 1}}, 0, "1 is not a text"),
    "a list": (b"[]", 0, "is not an object"),
    "a name twice": (b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{}}', 1, "names 'a' twice"),
    "no json": (b"{nothing", 0, "not valid"),
    "no utf-8": (b'{"\xff": 1}', 0, "not valid"),
    "nested too deep": (b'{"a":' + b"[" * 100_000, 0, "not valid"),
    "endless number": (b'{"a":' + b"9" * 10_000 + b"}", 0, "not valid"),
}


@pytest.mark.parametrize(("table", "data", "message"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_header_that_lies_is_refused(table: Any, data: int, message: str, tmp_path: Path) -> None:
    path = header(tmp_path / "w.safetensors", table, data)
    assert message in said(lambda: weights_safetensors.read(path))


def test_lengths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert "its header has 1,000 bytes, the file 10" in said(lambda: weights.read(header(path, b"{}", length=1000)))
    assert "is cut off" in said(lambda: weights_safetensors.read(header(path, b"{}", length=2**64 - 1)))
    path.write_bytes(b"\x02\x00")
    assert "less than the length of a header" in said(lambda: weights_safetensors.read(path))
    with header(path, b"{", length=40_000_000).open("r+b") as file:
        file.truncate(50_000_000)
    assert "a header of 40,000,000 bytes; no model needs more than" in said(lambda: weights_safetensors.read(path))


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    save_file(Net().state_dict(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in (*range(0, 64, 3), *range(64, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:size])
        said(lambda: weights_safetensors.read(path))


def test_formats_bits_and_types_fit_those_of_torch(tmp_path: Path) -> None:
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.int16, torch.uint32, torch.complex64):
        save_file(
            {"w": torch.zeros(6, dtype=torch.uint8).expand(8, 6).contiguous().view(-1)[:48].view(dtype)}, tmp_path / "w"
        )
        assert weights.read(tmp_path / "w").tensors[0].dtype == str(dtype).removeprefix("torch.")


def test_a_hostile_header_takes_little_memory(tmp_path: Path) -> None:
    """A header as large as any that is read, of the densest names: well below a gigabyte."""
    names = (b'"%x":0,' % i for i in range(10**9))
    text, size = [b"{"], 1
    while size < weights_safetensors.LARGEST_HEADER_BYTES - 20:
        text.append(next(names))
        size += len(text[-1])
    path = header(tmp_path / "w.safetensors", b"".join([*text, b'"z":0}']))
    code = (
        "import sys; from pathlib import Path; from attnprof.saved import weights_safetensors\n"
        "weights_safetensors.read(Path(sys.argv[1]))"
    )
    limit = 1 << 30

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ran = subprocess.run([sys.executable, "-c", code, path], preexec_fn=bounded, capture_output=True, text=True)
    assert ran.stderr.strip().splitlines()[-1].endswith("0 is not an object.")


# Shards


def sharded(folder: Path, **changes: Any) -> Path:
    state = Net().state_dict()
    names = sorted(state)
    files = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, some in files.items():
        save_file({name: state[name] for name in some}, folder / file)
    index = {
        "metadata": {"total_size": sum(t.nbytes for t in state.values())},
        "weight_map": {name: file for file, some in files.items() for name in some},
    }
    for key, value in changes.items():
        index[key] = {**index[key], **value}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_the_shards_of_an_index_are_one(tmp_path: Path) -> None:
    found = weights.read(sharded(tmp_path))
    assert facts(found) == expected(Net())
    assert (found.files, found.notes) == (2, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_map": {"first.bias": "c.safetensors"}}, "names c.safetensors, which is not in its folder"),
        ({"weight_map": {"first.bias": "../a.safetensors"}}, "which is not in its folder: it is not opened"),
        ({"weight_map": {"first.bias": "/etc/passwd"}}, "which is not in its folder: it is not opened"),
        ({"weight_map": {"first.bias": "..\\a.safetensors"}}, "which is not in its folder: it is not opened"),
        ({"weight_map": {"first.bias": "x" * 5000}}, "which is not in its folder"),
        ({"weight_map": {"first.bias": 3}}, "the name of a file belongs there"),
        ({"weight_map": {"first.bias": "b.safetensors"}}, "first.bias is in b.safetensors, which has no such tensor"),
        ({"weight_map": {"other": "a.safetensors"}}, "other is in a.safetensors, which has no such tensor"),
        ({"weight_map": {"first.bias": "model.safetensors.index.json"}}, "is an index of sharded weights"),
    ],
)
def test_an_index_that_lies_is_refused(changes: Any, message: str, tmp_path: Path) -> None:
    path = sharded(tmp_path, **changes)
    assert message in said(lambda: weights.read(path))


def test_a_total_that_is_not_that_of_the_tensors_is_said(tmp_path: Path) -> None:
    found = weights.read(sharded(tmp_path, metadata={"total_size": 7}))
    assert found.notes == (f"The index says total_size 7; the tensors take {found.bytes} bytes.",)


def test_shards_may_be_links_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    path = sharded(tmp_path / "snapshot")
    for name in ("a.safetensors", "b.safetensors"):
        os.rename(tmp_path / "snapshot" / name, tmp_path / "blobs" / name)
        os.symlink(f"../blobs/{name}", tmp_path / "snapshot" / name)
    assert facts(weights.read(path)) == expected(Net())


# Into a model


def saved(folder: Path, state: dict[str, torch.Tensor], kind: str) -> Path:
    path = folder / f"w.{kind}"
    if kind == "safetensors":
        save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "legacy")
    return path


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors"])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_a_model_has_the_values_of_the_file(kind: str, before: str, tmp_path: Path) -> None:
    trained = Net()
    path = saved(tmp_path, {f"{before}{name}": t for name, t in trained.state_dict().items()}, kind)
    loaded = weights.load(path, made)
    assert all(torch.equal(t, trained.state_dict()[n]) for n, t in loaded.model.state_dict().items())
    assert any("names are without" in note for note in loaded.notes) is bool(before)
    assert attnprof.run(loaded).total == attnprof.run(trained, loaded.args).total


def test_shards_go_into_a_model_one_after_the_other(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    loaded = weights.load(path, made)
    for file in ("a.safetensors", "b.safetensors"):
        from safetensors.torch import load_file

        for name, tensor in load_file(tmp_path / file).items():
            assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_what_is_tied_may_be_left_out_of_the_file(tmp_path: Path) -> None:
    trained = Net(tied=True)
    state = {name: t for name, t in trained.state_dict().items() if name != "second.weight"}
    loaded = weights.load(saved(tmp_path, state, "safetensors"), lambda: made(tied=True))
    assert torch.equal(loaded.model.second.weight, trained.first.weight)  # type: ignore[union-attr]


def test_a_fake_model_is_compared_and_nothing_read(tmp_path: Path) -> None:
    with attnprof.fake_tensors():
        fake = Loaded(Net(), (torch.ones(3, 4),), fake=True)
    loaded = weights.load(saved(tmp_path, Net().state_dict(), "pt"), lambda: fake)
    assert loaded.fake
    assert "The weights' names and shapes are those of the model; their values were not read." in loaded.notes
    assert attnprof.run(loaded).total.matmul_flops == 2 * (2 * 3 * 4 * 4)


def test_the_model_keeps_its_dtype(tmp_path: Path) -> None:
    loaded = weights.load(saved(tmp_path, Net().bfloat16().state_dict(), "pt"), made)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert any("stored as bfloat16, int64; the model is counted in its own float32" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("first.bias"), "does not fit Net: it has no first.bias."),
        (lambda s: s.update(firts=torch.ones(1)), "does not fit Net: the model has no firts."),
        (
            lambda s: s.update({"first.bias": torch.ones(9)}),
            "does not fit Net: first.bias is [4] in the model and [9] in the file.",
        ),
        (
            lambda s: [s.update({f"{n}x": s.pop(n)}) for n in list(s)],
            "it has no first.bias, first.weight, norm.bias (nor 5 more), and the model has no first.weightx",
        ),
    ],
)
def test_weights_of_another_model_are_one_sentence(change: Any, message: str, tmp_path: Path) -> None:
    state = dict(Net().state_dict())
    change(state)
    assert message in said(lambda: weights.load(saved(tmp_path, state, "pt"), made))
