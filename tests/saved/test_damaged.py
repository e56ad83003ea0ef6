"""Damaged files of every kind: one sentence of ours, never a traceback, a crash or a huge allocation."""

from __future__ import annotations

import json
import random
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

#: Opens each file in a folder with a gigabyte more than what Python and torch take, and says what was wrong.
OPENING = """
import resource, sys, warnings
from pathlib import Path
import torch, torch.export
warnings.simplefilter("error")
import attnprof
from attnprof.core.errors import AttnprofError
from torch import nn
def make(): return nn.Linear(4, 2)
def given(path): return {"model": make} if path.stem.startswith("weights") else {}
folder = Path(sys.argv[1])
for good in map(Path, sys.argv[2:]):
    attnprof.load_model(good, **given(good))
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, now + 2**30))
refused = 0
for path in sorted(folder.iterdir()):
    try:
        attnprof.load_model(path, **given(path))
    except AttnprofError as error:
        assert "\\n" not in str(error) and len(str(error)) < 800, (path, str(error))
        refused += 1
print("refused", refused)
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    names = {
        "program": "a.pt2",
        "script": "b.pt",
        "weights": "weights.pt",
        "old weights": "weights-old.pt",
        "safetensors": "weights.safetensors",
        "config": "config.json",
    }
    found = {kind: folder / name for kind, name in names.items()}
    sizes = {"x": {0: torch.export.Dim("batch", min=2, max=9)}}
    torch.export.save(torch.export.export(Net(), (torch.ones(3, 4),), dynamic_shapes=sizes), found["program"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Net()).save(str(found["script"]))
    state = nn.Linear(4, 2).state_dict()
    torch.save(state, found["weights"])
    torch.save(state, found["old weights"], _use_new_zipfile_serialization=False)
    header = json.dumps(
        {
            "weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
            "bias": {"dtype": "F32", "shape": [2], "data_offsets": [32, 40]},
        }
    ).encode()
    found["safetensors"].write_bytes(struct.pack("<Q", len(header)) + header + bytes(40))
    config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 16, "n_positions": 16}
    found["config"].write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    return found


def cut(content: bytes, count: int) -> Iterator[bytes]:
    """The file, cut off at so many lengths from nothing to all but its last byte."""
    for step in range(count):
        yield content[: (len(content) - 1) * step // (count - 1)]


def flipped(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """The file with one to eight bytes changed, removed or added."""
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(changed) + 1)
            changed[at : at + rng.choice([1, 1, 4])] = rng.randbytes(rng.choice([0, 1, 1, 4]))
        yield bytes(changed)


def rewritten(path: Path, count: int, rng: random.Random, folder: Path) -> None:
    """The archive with a member changed, written anew: its checksums are right, its content is not."""
    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    torch_writes = (".data/version", ".data/serialization_id", "version", "byteorder")
    chosen = [n for n, content in members.items() if content and not n.endswith(("weight_0", ".debug_pkl"))]
    numbers = re.compile(rb"\d+")
    for number in range(count):
        changed = dict(members)
        name = rng.choice([n for n in chosen if n not in torch_writes])
        content = bytearray(changed[name])
        found = list(numbers.finditer(bytes(content)))
        if found and rng.random() < 0.5:
            at = rng.choice(found)
            content[at.start() : at.end()] = rng.choice(
                [b"0", b"-1", b"99999999999999", b"18446744073709551616", b"null"]
            )
        else:
            content = bytearray(next(flipped(bytes(content), 1, rng)))
        changed[name] = bytes(content)
        writer = torch._C.PyTorchFileWriter(str(folder / f"{path.stem}-rewritten-{number}{path.suffix}"))
        for below, kept in changed.items():
            if below not in torch_writes:
                writer.write_record(below, kept, len(kept))
        writer.write_end_of_file()


def opened(folder: Path, *good: Path) -> int:
    """How many of the files in a folder were refused; all others opened. Once each of the good ones did."""
    command = [sys.executable, "-c", OPENING, str(folder), *map(str, good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


KINDS = ["program", "script", "weights", "old weights", "safetensors", "config"]


def test_truncated_files(good: dict[str, Path], tmp_path: Path) -> None:
    lengths = 12
    for path in good.values():
        for number, content in enumerate(cut(path.read_bytes(), lengths)):
            (tmp_path / f"{path.stem}-{number:03}{path.suffix}").write_bytes(content)
    assert opened(tmp_path, *good.values()) == lengths * len(good)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_changed_files(good: dict[str, Path], kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for number, content in enumerate(flipped(good[kind].read_bytes(), 80, rng)):
        (tmp_path / f"{good[kind].stem}-flipped-{number}{good[kind].suffix}").write_bytes(content)
    if kind in ("program", "script", "weights"):
        rewritten(good[kind], 80, rng, tmp_path)
    assert opened(tmp_path, good[kind]) > 0
