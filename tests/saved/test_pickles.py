"""Nothing in a file is executed: pickles, wherever they hide, run nothing and are told what they are."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import pickle
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.saved import weights


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that an attack would make."""
    return tmp_path / "executed"


class Attack:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._calls = function, args

    def __reduce__(self) -> Any:
        return self._calls


def attacks(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Attack(os.system, f"touch {marker}"),
        "builtins.eval": Attack(builtins.eval, code),
        "builtins.exec": Attack(builtins.exec, code),
        "open": Attack(open, str(marker), "w"),
        "getattr": Attack(builtins.getattr, "x", "upper"),
        "torch": Attack(torch.save, torch.zeros(1), str(marker)),
        "in a dict": {"weight": torch.zeros(2), "other": Attack(os.system, f"touch {marker}")},
        "in an OrderedDict": OrderedDict(weight=Attack(builtins.eval, code)),
        "dispatched": Attack(
            torch._utils._rebuild_parameter, Attack(os.system, f"touch {marker}"), True, OrderedDict()
        ),
    }


NAMES = list(attacks(Path("x")))


def of_torch_save(path: Path, value: Any, legacy: bool, protocol: int) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_attacks_in_files_of_torch_save(tmp_path: Path, marker: Path, name: str, legacy: bool, protocol: int) -> None:
    for suffix in (".pt", ".pth"):
        path = tmp_path / f"model{suffix}"
        of_torch_save(path, attacks(marker)[name], legacy, protocol)
        with pytest.raises(AttnprofError) as caught:
            attnprof.load_model(path, model=lambda: nn.Linear(2, 2))
        assert "Loading it would run its code" in str(caught.value)
        assert "--trust-pickle" in str(caught.value)
        assert not marker.exists()


def test_the_attacks_are_real(tmp_path: Path, marker: Path) -> None:
    """They do run where nobody looks."""
    for name in ("os.system", "builtins.eval", "torch", "in a dict"):
        of_torch_save(tmp_path / "model.pt", attacks(marker)[name], False, 2)
        torch.load(tmp_path / "model.pt", weights_only=False)
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", ["first", "before", "after"])
def test_attacks_around_the_pickles_of_the_old_format(tmp_path: Path, marker: Path, name: str, position: str) -> None:
    """The old format is several pickles in a row, and each of them is unpickled."""
    path = tmp_path / "model.pt"
    of_torch_save(path, {"weight": torch.zeros(2)}, True, 2)
    content, attack = path.read_bytes(), pickle.dumps(attacks(marker)[name], 2)
    ends = [index for index in range(len(content)) if content[index : index + 2] == b".\x80"]
    at = {"first": 0, "before": ends[0] + 1, "after": ends[-1] + 1}[position]
    path.write_bytes(content[:at] + attack + content[at:])
    with pytest.raises(AttnprofError):
        attnprof.load_model(path, model=lambda: nn.Linear(2, 2))
    assert not marker.exists()


def test_bare_pickles(tmp_path: Path, marker: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(attacks(marker)["os.system"], protocol))
        with pytest.raises(AttnprofError, match=r"posix\.system|nt\.system"):
            attnprof.load_model(tmp_path / "model.pkl")
    assert not marker.exists()


SOURCE = """
from pathlib import Path
from torch import nn
Path({marker!r}).touch()
class Net(nn.Linear):
    def __setstate__(self, state):
        Path({marker!r} + ".state").touch()
        super().__setstate__(state)
def build(): return Net(4, 2)
"""


@pytest.fixture
def pickled(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of the user's own class, pickled whole; to import its module leaves the marker."""
    (tmp_path / "mylib.py").write_text(SOURCE.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.save(importlib.import_module("mylib").Net(4, 2), tmp_path / "model.pth")
    del sys.modules["mylib"]
    marker.unlink()
    yield tmp_path / "model.pth"
    sys.modules.pop("mylib", None)


def test_a_pickled_model_is_refused_by_name(pickled: Path, marker: Path) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.load_model(pickled)
    assert str(caught.value) == (
        f"{pickled} is a pickled model (class mylib.Net). Loading it would run its code. Save a state_dict and pass "
        "--model file.py:build, or pass --trust-pickle if you made this file."
    )
    assert not marker.exists()


def test_a_pickled_model_that_is_trusted(pickled: Path, marker: Path) -> None:
    loaded = attnprof.load_model(pickled, trust_pickle=True)
    assert type(loaded.model).__name__ == "Net"
    assert marker.exists()
    assert attnprof.run(loaded, (torch.ones(3, 4),)).total.matmul_flops == 2 * 3 * 4 * 2


def test_a_class_that_cannot_be_found(pickled: Path, tmp_path: Path) -> None:
    (tmp_path / "mylib.py").write_text("")
    with pytest.raises(AttnprofError, match="needs a class that cannot be found"):
        attnprof.load_model(pickled, trust_pickle=True)


def test_trust_does_not_make_weights_a_model(tmp_path: Path) -> None:
    torch.save({"model": torch.Generator}, tmp_path / "a.pt")
    with pytest.raises(AttnprofError, match=r"holds a pickled dict, not a model: --model file.py:build names"):
        attnprof.load_model(tmp_path / "a.pt", trust_pickle=True)
    torch.save(torch.Generator, tmp_path / "b.pt")
    with pytest.raises(AttnprofError, match="not a model: save the model, or its state_dict alone"):
        attnprof.load_model(tmp_path / "b.pt", trust_pickle=True, model=lambda: nn.Linear(2, 2))


def test_a_trusted_checkpoint_may_hold_more_than_weights(tmp_path: Path) -> None:
    """Both ways that the refusal names lead on."""
    path = tmp_path / "a.pt"
    torch.save({"state_dict": nn.Linear(4, 2).state_dict(), "best": numpy.float64(0.5)}, path)
    with pytest.raises(AttnprofError, match=r"calls numpy.*scalar.*--trust-pickle"):
        attnprof.load_model(path, model=lambda: nn.Linear(4, 2))
    model = nn.Linear(4, 2)
    loaded = attnprof.load_model(path, model=model, trust_pickle=True)
    assert loaded.model is model
    assert torch.equal(model.weight, torch.load(path, weights_only=False)["state_dict"]["weight"])


def replaced(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with its members changed, as PyTorch would have written it."""
    target = path.with_name("changed" + path.suffix)
    with zipfile.ZipFile(path) as old:
        writer = torch._C.PyTorchFileWriter(str(target))
        for name in old.namelist():
            below = name.partition("/")[2]
            if below in (".data/version", ".data/serialization_id", "version", "byteorder"):
                continue
            content = change(below, old.read(name))
            if content is not None:
                writer.write_record(below, content, len(content))
        writer.write_end_of_file()
    return target


@pytest.fixture
def program(tmp_path: Path) -> Path:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * torch.tensor([2.0])

    sizes = {"x": {0: torch.export.Dim("batch", min=2, max=9)}}
    torch.export.save(torch.export.export(Net(), (torch.ones(3, 4),), dynamic_shapes=sizes), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def saved_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def assert_refused(path: Path, marker: Path, *words: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.run(attnprof.load_model(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_attacks_in_the_example_inputs_of_a_program(program: Path, marker: Path, name: str) -> None:
    """PyTorch itself tries again with the plain unpickler where the restricted one refuses."""

    def change(member: str, content: bytes) -> bytes:
        return saved_bytes(((attacks(marker)[name],), {})) if member.startswith("data/sample_inputs/") else content

    assert_refused(replaced(program, change), marker)


def test_the_attack_in_a_program_is_real(program: Path, marker: Path) -> None:
    def change(member: str, content: bytes) -> bytes:
        attack = attacks(marker)["os.system"]
        return saved_bytes(((attack,), {})) if member.startswith("data/sample_inputs/") else content

    changed = replaced(program, change)
    with contextlib.suppress(Exception):  # what it makes of the result of the attack is its own affair
        torch.export.load(changed)
    assert marker.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["weights", "constants"])
def test_attacks_in_the_weights_of_a_program(program: Path, marker: Path, name: str, folder: str) -> None:
    """Weights that say of themselves that they are pickled are unpickled without any restriction."""

    def change(member: str, content: bytes) -> bytes:
        if member.startswith(f"data/{folder}/") and member.endswith("_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        if member.startswith(f"data/{folder}/"):
            return saved_bytes(attacks(marker)[name])
        return content

    assert_refused(replaced(program, change), marker)


@pytest.mark.parametrize("prefix", ["opaque_obj_", "custom_obj_"])
def test_objects_among_the_constants_of_a_program(program: Path, marker: Path, prefix: str) -> None:
    def change(member: str, content: bytes) -> bytes | None:
        if member.startswith("data/constants/") and member.endswith("_config.json"):
            return content.replace(b"tensor_0", f"{prefix}0".encode())
        return content

    assert_refused(replaced(program, change), marker, "unpickle", "--trust-pickle")


def in_graph(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(member: str, content: bytes) -> bytes:
        if not member.startswith("models/"):
            return content
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"expr_str": "Symbol(', "\"expr_str\": \"__import__('os').system('touch MARKER') or Symbol("),
        ('"expr_str": "Symbol(', '"expr_str": "().__class__.__base__.__subclasses__() or Symbol('),
        ('"expr_str": "Symbol(', '"expr_str": "9**9**9**9 or Symbol('),
        ('"torch.ops.aten.linear.default"', '"torch.os.system"'),
        ('"torch.ops.aten.linear.default"', '"torch.ops.load_library"'),
        ('"torch.ops.aten.linear.default"', '"torch.hub.load"'),
        ('"torch.ops.aten.linear.default"', '"torch.ops.aten.from_file.default"'),
        ('"torch.ops.aten.linear.default"', '"torch.ops.debugprims.load_tensor.default"'),
        ('"torch.ops.aten.linear.default"', '"torch.ops.aten.linear.overloads"'),
        ('"torch.ops.aten.linear.default"', '"torch.ops.higher_order.call_torchbind"'),
        ('"torch.ops.aten.linear.default"', '"_operator.methodcaller"'),
        ('"torch.ops.aten.linear.default"', '"#name"'),
        ('"name": "x"', "\"name\": \"x=open('MARKER','w')\""),
        ('"parameter_name": "linear.weight"', '"parameter_name": "linear\\", open(\'MARKER\',\'w\')) #"'),
        ('File \\"', "x\\ropen('MARKER', 'w')\\r"),
        (
            '{\\"type\\": null, \\"context\\": null, \\"children_spec\\": []}',
            '{\\"type\\": \\"collections.defaultdict\\", \\"context\\": {\\"default_factory_module\\": '
            '\\"antigravity\\", '
            '\\"default_factory_name\\": \\"x\\", \\"dict_context\\": []}, \\"children_spec\\": []}',
        ),
        (
            '{\\"type\\": null, \\"context\\": null, \\"children_spec\\": []}',
            '{\\"type\\": \\"builtins.dict\\", \\"context\\": \\"[{\\\\\\"__enum__\\\\\\": true, \\\\\\"fqn\\\\\\": '
            '\\\\\\"antigravity:x\\\\\\", \\\\\\"name\\\\\\": \\\\\\"x\\\\\\"}]\\", \\"children_spec\\": []}',
        ),
    ],
)
def test_code_in_the_graph_of_a_program(program: Path, marker: Path, old: str, new: str) -> None:
    path = replaced(program, in_graph(old, new.replace("MARKER", str(marker))))
    assert_refused(path, marker, "refused", "might run code")
    assert "antigravity" not in sys.modules


def test_the_attack_in_a_size_is_real(program: Path, marker: Path) -> None:
    new = f"\"expr_str\": \"__import__('os').system('touch {marker}') or Symbol("
    path = replaced(program, in_graph('"expr_str": "Symbol(', new))
    with contextlib.suppress(Exception):  # what it makes of the result of the attack is its own affair
        torch.export.load(path)
    assert marker.exists()


def test_guards_of_a_program_are_not_compiled(program: Path, marker: Path) -> None:
    path = replaced(program, in_graph('"guards_code": []', f"\"guards_code\": [\"open('{marker}', 'w')\"]"))
    report = attnprof.run(attnprof.load_model(path))
    assert report.total.matmul_flops == 2 * 3 * 4 * 2
    assert not marker.exists()


def test_machine_code_beside_a_program(program: Path, marker: Path) -> None:
    path = program.with_name("aoti.pt2")
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{root}/data/aotinductor/model/x.so", b"\x7fELF")
    assert_refused(path, marker, "machine code")


def test_a_program_of_another_version(program: Path, marker: Path) -> None:
    def change(member: str, content: bytes) -> bytes:
        return (
            content.replace(b"aten.linear.default", b"aten.of_tomorrow.default")
            if member.startswith("models/")
            else content
        )

    assert_refused(replaced(program, change), marker, "has no op aten::of_tomorrow.default", torch.__version__)

    def later(member: str, content: bytes) -> bytes:
        return re.sub(rb'"major": \d+', b'"major": 99', content) if member.startswith("models/") else content

    assert_refused(replaced(program, later), marker, "of schema 99", torch.__version__)


def test_an_op_that_is_not_registered(program: Path, marker: Path) -> None:
    path = replaced(program, in_graph("torch.ops.aten.linear.default", "torch.ops.mylib.linear.default"))
    assert_refused(path, marker, "mylib::linear.default is not registered", "attnprof.load_model")


def test_a_program_of_the_old_format(tmp_path: Path, program: Path, marker: Path) -> None:
    """Of PyTorch 2.7 and before: bare members, weights and inputs as pickles."""
    with zipfile.ZipFile(program) as archive:
        root = archive.namelist()[0].partition("/")[0]
        graph = archive.read(f"{root}/models/model.json")
    path = tmp_path / "old.pt2"
    state = {"linear.weight": nn.Parameter(torch.ones(2, 4)), "linear.bias": nn.Parameter(torch.ones(2))}
    for inputs, refused in ((((torch.ones(3, 4),), {}), False), (((attacks(marker)["os.system"],), {}), True)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("version", "8.20")
            archive.writestr("serialized_exported_program.json", graph)
            archive.writestr("serialized_state_dict.pt", saved_bytes(state))
            archive.writestr("serialized_constants.pt", saved_bytes({"lifted_tensor_0": torch.tensor([2.0])}))
            archive.writestr("serialized_example_inputs.pt", saved_bytes(inputs))
        if refused:
            assert_refused(path, marker)
        else:
            report = attnprof.run(attnprof.load_model(path))
            assert report.total.matmul_flops == 2 * 3 * 4 * 2


class Saves(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", False, 4)


def test_torchscript_that_reaches_for_files(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "model.pt"
    for model, word in ((Saves(str(marker)), "save"), (Reads(), "from_file")):
        torch.jit.script(model).save(str(path))
        assert_refused(path, marker, f"names {word}", "files or other processes")


def test_the_attack_in_torchscript_is_real(tmp_path: Path, marker: Path) -> None:
    torch.jit.script(Saves(str(marker))).save(str(tmp_path / "model.pt"))
    torch.jit.load(str(tmp_path / "model.pt"))(torch.ones(1))
    assert marker.exists()


@pytest.mark.parametrize(
    "hidden",
    [
        "torch . save(x, p)",
        "torch.  # a comment\n  save(x, p)",
        "torch.\\\n save(x, p)",
        'getattr(torch, "save")(x, p)',
        "ops.aten.save(x, p)",
    ],
)
def test_torchscript_that_hides_what_it_names(tmp_path: Path, marker: Path, hidden: str) -> None:
    torch.jit.script(Saves(str(marker))).save(str(tmp_path / "model.pt"))

    def change(member: str, content: bytes) -> bytes | None:
        if member.endswith(".debug_pkl"):
            return None
        if member.startswith("code/"):
            call = b"torch.save(x, path)"
            assert call in content
            return content.replace(call, hidden.replace("p)", "path)").encode())
        return content

    assert_refused(replaced(tmp_path / "model.pt", change), marker)


def test_environment_is_left_as_it_was(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    before = dict(os.environ)
    attnprof.load_model(program)
    assert dict(os.environ) == before


def test_a_header_that_lies_about_its_length(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**30) + b"{}")
    with pytest.raises(AttnprofError):
        attnprof.load_model(tmp_path / "model.safetensors", model=lambda: nn.Linear(2, 2))


def test_a_bomb_in_the_example_inputs(program: Path, marker: Path) -> None:
    """An archive in the archive: each layer is looked at before it is unpacked."""

    def change(member: str, content: bytes) -> bytes:
        if not member.startswith("data/sample_inputs/"):
            return content
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data.pkl", bytes(2**24))
        return buffer.getvalue()

    assert_refused(replaced(program, change), marker, "would unpack to 16,777,216")


def test_weights_without_a_byte_are_not_made_up(program: Path, marker: Path) -> None:
    """A terabyte of zeros for a member that is empty."""

    def change(member: str, content: bytes) -> bytes:
        if member.startswith("data/weights/weight_"):
            return b""
        if member.startswith("data/weights/"):
            return content.replace(b'"as_int": 4', b'"as_int": 1099511627776')
        return content

    assert_refused(replaced(program, change), marker, "has a size but no bytes")


# What no harmful function is needed for


def zipped(path: Path, value: Any) -> Path:
    """A file as torch.save writes it, of a pickle that torch.save would not write."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("made", [bytearray, torch.Tensor, torch.UntypedStorage, torch.FloatTensor])
def test_memory_is_not_made_of_a_number(tmp_path: Path, made: Callable[..., Any]) -> None:
    """A terabyte, of a file of a few hundred bytes."""
    path = zipped(tmp_path / "model.pt", {"weight": Attack(made, 10**12)})
    with pytest.raises(AttnprofError, match=r"which is not loaded|is a pickle that calls|is a pickled model"):
        weights.read(path)
    before = torch._weights_only_unpickler._get_allowed_globals
    with pytest.raises(AttnprofError):
        attnprof.load_model(path, model=lambda: nn.Linear(2, 2))
    assert torch._weights_only_unpickler._get_allowed_globals is before


def test_what_the_restricted_unpickler_knows_is_read(tmp_path: Path) -> None:
    """Protocol 2 calls these by the names of Python 2."""
    beside = {"set": {1}, "bytes": b"ab", "bytearray": bytearray(b"ab"), "complex": 1j, "size": torch.Size([2])}
    torch.save({"weight": torch.zeros(2, 2), "bias": torch.zeros(2), **beside}, tmp_path / "model.pt")
    loaded = attnprof.load_model(tmp_path / "model.pt", model=lambda: nn.Linear(2, 2))
    assert loaded.notes == (f"Left out: {', '.join(beside)}.",)


def test_tables_without_an_end(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    doubled: dict[str, Any] = {}
    for _ in range(60):  # 2**60 tables to who walks through them
        doubled = {"a": doubled, "b": doubled}
    for value in (endless, doubled):
        with pytest.raises(AttnprofError, match="holds tables in tables"):
            weights.read(zipped(tmp_path / "model.pt", value))


def test_a_refusal_is_pytorchs_reason_without_its_advice(tmp_path: Path) -> None:
    """A shard is read by the restricted unpickler alone."""
    torch.save(nn.Linear(2, 2), tmp_path / "model.bin")
    (tmp_path / "index.json").write_text('{"weight_map": {"weight": "model.bin"}}')
    with pytest.raises(AttnprofError) as caught:
        weights.read(tmp_path / "index.json")
    assert "torch.nn.modules.linear.Linear" in str(caught.value)
    assert "--trust-pickle" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_shards_that_are_trusted_may_hold_more_than_weights(tmp_path: Path) -> None:
    torch.save({**nn.Linear(2, 2).state_dict(), "best": numpy.float64(0.5)}, tmp_path / "model.bin")
    (tmp_path / "index.json").write_text('{"weight_map": {"weight": "model.bin", "bias": "model.bin"}}')
    with pytest.raises(AttnprofError, match=r"numpy.*--trust-pickle"):
        attnprof.load_model(tmp_path / "index.json", model=lambda: nn.Linear(2, 2))
    model = nn.Linear(2, 2)
    attnprof.load_model(tmp_path / "index.json", model=model, trust_pickle=True)
    assert torch.equal(model.bias, torch.load(tmp_path / "model.bin", weights_only=False)["bias"])


def test_memory_is_not_made_of_a_number_in_example_inputs(program: Path, marker: Path) -> None:
    def change(member: str, content: bytes) -> bytes:
        attack = Attack(bytearray, 10**12)
        return saved_bytes(((attack,), {})) if member.startswith("data/sample_inputs/") else content

    assert_refused(replaced(program, change), marker)
