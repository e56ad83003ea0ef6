"""A device of one's own, from a file."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import attnprof
from attnprof.core.device import DeviceSpec, Provenance
from attnprof.core.errors import AttnprofError

OWN = {
    "id": "mine",
    "unit": "core",
    "figures": {"memory_gib": 12, "units": {"value": 8}, "clock_mhz": {"value": 1500, "source": ["a label"]}},
    "peaks": [
        {"engine": "matmul", "dtype": "bf16", "tflop_per_s": 1.1, "per_clock": 64},
        {"engine": "vector", "dtype": "fp32", "tflop_per_s": 0.3, "source": ["lightning", "a measurement"]},
    ],
}


def write(folder: Path, content: object, name: str = "own.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    spec = attnprof.device(write(tmp_path, OWN))
    assert (spec.id, spec.product, spec.memory_bytes, spec.units) == ("mine", "mine", 12 * 2**30, 8)
    assert spec.peak("bfloat16") == Fraction("1.1") * 10**12
    assert spec.provenance("memory_bytes") == Provenance("unsourced")
    assert spec.provenance("clock_hz") == Provenance("quoted", ("a label",))
    matmul, vector = spec.peaks
    assert matmul.provenance == Provenance("unsourced", (), "8 core × 64 FLOP × 1.5 GHz")
    assert vector.provenance.sources[0].startswith("Lightning")  # a source of the package may be named by its key
    assert vector.provenance.sources[1] == "a measurement"


def test_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    spec = attnprof.device(write(tmp_path, {"id": "bare"}))
    assert spec == DeviceSpec("bare", "bare", "")


def test_based_on_a_known_device(tmp_path: Path) -> None:
    content = {"id": "my-mac", "based_on": "m1-max-32core", "figures": {"memory_gib": 64}}
    spec, base = attnprof.device(write(tmp_path, content)), attnprof.device("m1-max-32core")
    assert (spec.id, spec.product, spec.memory_bytes) == ("my-mac", "based on m1-max-32core", 64 * 2**30)
    assert spec.peaks == base.peaks
    assert spec.provenance("bandwidth_bytes_per_s") == base.provenance("bandwidth_bytes_per_s")
    assert spec.reported_as == spec.aliases == ()


def test_memory_said_anew_replaces_what_the_driver_of_the_base_reports(tmp_path: Path) -> None:
    content = {"id": "slice", "based_on": "h200-sxm", "figures": {"memory_gib": 18}}
    spec = attnprof.device(write(tmp_path, content))
    assert spec.capacity_bytes == 18 * 2**30
    assert spec.provenance("memory_reported_bytes") is None


@pytest.mark.parametrize("figure", [{"units": 14}, {"clock_mhz": 1000}])
def test_other_units_or_clocks_do_not_keep_the_peaks(figure: dict[str, int], tmp_path: Path) -> None:
    content = {"id": "slice", "based_on": "h100-sxm", "figures": figure}
    assert attnprof.device(write(tmp_path, content)).peak("bfloat16") is None


def test_one_peak_said_anew(tmp_path: Path) -> None:
    peak = {"engine": "matmul", "dtype": "bfloat16", "tflop_per_s": 700}
    spec = attnprof.device(write(tmp_path, {"id": "capped", "based_on": "h100-sxm", "peaks": [peak]}))
    assert spec.peak("bfloat16") == 700 * 10**12
    assert spec.peak("float16") == attnprof.device("h100-sxm").peak("float16")
    assert len(spec.peaks) == len(attnprof.device("h100-sxm").peaks)


TOML = """
id = "mine"
[figures]
memory_gib = 12
[[peaks]]
engine = "matmul"
dtype = "bfloat16"
tflop_per_s = 989.4
"""


class _Toml:
    """Stands in for a TOML reader: what the device code asks of it, and no more."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def loads(self, text: str, *, parse_float: Any) -> dict[str, Any]:
        assert text == TOML
        number = parse_float("989.4")
        return {**self.answer, "peaks": [{"engine": "matmul", "dtype": "bfloat16", "tflop_per_s": number}]}


@pytest.mark.parametrize("reader", ["tomllib", "tomli"])
def test_toml(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the standard library's reader, or its backport where Python has none."""
    for name in ("tomllib", "tomli"):
        stand_in = _Toml({"id": "mine", "figures": {"memory_gib": 12}}) if name == reader else None
        monkeypatch.setitem(sys.modules, name, stand_in)
    spec = attnprof.device(write(tmp_path, TOML, "own.toml"))
    assert (spec.memory_bytes, spec.peak("bf16")) == (12 * 2**30, 9894 * 10**11)


def test_toml_without_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AttnprofError, match=r"own\.toml: TOML needs Python 3\.11 or the package tomli\."):
        attnprof.device(write(tmp_path, TOML, "own.toml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON: "),
        ("[" * 100_000, "is not valid JSON: "),
        ("3", "a device is a table of names and values, not 3."),
        ({}, 'a device needs an "id".'),
        ({"id": 3}, "id is text, not 3."),
        ({"id": " "}, """the "id" of a device is a name, not ' '."""),
        ({"id": "x", "figure": {}}, 'a device has no "figure". Did you mean figures?'),
        ({"id": "x", "figures": {"memory_gb": 1}}, 'figures has no "memory_gb". Did you mean memory_gib'),
        ({"id": "x", "figures": {"memory_gib": "80"}}, "memory_gib is a number, not '80'."),
        ({"id": "x", "figures": {"memory_gib": True}}, "memory_gib is a number, not True."),
        (
            {"id": "x", "figures": {"memory_gib": -80}},
            "memory_gib is a positive number, whole in its base unit, not -80.",
        ),
        ('{"id": "x", "figures": {"units": 1e-999999999999}}', "units is a positive number, whole in its base unit"),
        ({"id": "x", "figures": {"units": 1.5}}, "units is a positive number, whole in its base unit, not 1.5."),
        ('{"id": "x", "figures": {"memory_gib": NaN}}', "memory_gib is a number, not nan."),
        ('{"id": "x", "figures": {"memory_gib": 1e300}}', "memory_gib is no figure of any device: 1e+300."),
        ('{"id": "x", "figures": {"units": 1e999999999999}}', "units is no figure of any device: 1e+999999999999."),
        ({"id": "x", "figures": {"memory_gib": {"valu": 1}}}, 'memory_gib has no "valu". Did you mean value?'),
        ({"id": "x", "figures": {"memory_gib": {}}}, "memory_gib is a number, not None."),
        ({"id": "x", "peaks": {}}, "peaks is a list, not {}."),
        ({"id": "x", "peaks": [{"dtype": "bf16"}]}, "engine is text, not None."),
        ({"id": "x", "peaks": [{"engine": "tensor", "dtype": "bf16"}]}, 'no engine "tensor", use matmul or vector.'),
        (
            {"id": "x", "peaks": [{"engine": "matmul", "dtype": "bf16"}]},
            "the peak matmul bf16, tflop_per_s is a number",
        ),
        (
            {"id": "x", "peaks": [{"engine": "matmul", "dtype": "bfloat17", "tflop_per_s": 1}]},
            "int16, int8, int4. Did you mean bfloat16, float16",
        ),
        (
            {
                "id": "x",
                "peaks": [{"engine": "matmul", "dtype": name, "tflop_per_s": 1} for name in ("bf16", "bfloat16")],
            },
            "the peak matmul bfloat16 is given twice.",
        ),
        (
            {"id": "x", "figures": {"units": {"value": 1, "origin": "guessed"}}},
            "quoted, derived, unsourced, measured, given, not 'guessed'.",
        ),
        ({"id": "x", "based_on": "h100"}, '"h100" is several devices: h100-nvl, h100-pcie or h100-sxm.'),
    ],
)
def test_a_file_that_is_not_right_says_what(content: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(AttnprofError) as caught:
        attnprof.device(path)
    assert str(caught.value).startswith(f"the device file {path}")
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AttnprofError, match=r"cannot read the device file .*none\.json: No such file or directory\."):
        attnprof.device(str(tmp_path / "none.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(AttnprofError, match="is not valid JSON"):
        attnprof.device(str(tmp_path / "bytes.json"))
