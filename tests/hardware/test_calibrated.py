"""A calibration as a device file: the figures it holds, where it is kept, and whether it still holds."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import attnprof
from attnprof.analysis.roofline_notes import sentences
from attnprof.core import machine
from attnprof.core.cost import ZERO
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError
from attnprof.hardware import calibrated
from attnprof.hardware.overrides import override
from hardware.calibrations import CONDITIONS, calibration


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    return tmp_path


def write(table: object) -> Path:
    where = calibrated.path()
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(table if isinstance(table, str) else calibrated.text(table), encoding="utf-8")  # type: ignore[arg-type]
    return where


def test_this_machine_is_a_device() -> None:
    write(calibrated.content(calibration()))
    spec = attnprof.device("this")
    assert attnprof.device(" This ") == spec
    assert (spec.id, spec.product, spec.target, spec.unit, spec.units) == ("this", "A Processor", "cpu", "core", 8)
    assert spec.measured_on == CONDITIONS
    assert spec.peak("float32") == 200_000_000 * 1000  # per ms
    assert spec.peak("bfloat16") == 400_000_000 * 1000
    assert spec.peak("int8") == 800_000_000 * 1000
    assert spec.peak("float32", "vector") == 20_000_000 * 1000
    assert spec.peak("float64") is None
    assert spec.bandwidth_bytes_per_s == 50_000_000 * 1000  # the fastest kernel
    assert spec.launch_overhead_ns == 1_000_000 // 2000
    assert spec.capacity_bytes == 16 * 2**30
    assert spec.last_level_cache_bytes == 32 * 2**20
    assert spec.ridge("float32") == 200 / 50


def test_each_figure_says_how_it_was_measured() -> None:
    write(calibrated.content(calibration()))
    spec = attnprof.device("this")
    assert spec.provenance("memory_reported_bytes") == Provenance("quoted", ("the operating system",))
    bandwidth = spec.provenance("bandwidth_bytes_per_s")
    assert bandwidth is not None
    assert (bandwidth.origin, bandwidth.derivation) == (
        "measured",
        "best of 4 runs of triad, arrays of 64 MiB; median 50.0, quartiles 50.0 and 50.0 GB/s",
    )
    found = {(p.engine, p.dtype): p.provenance for p in spec.peaks}
    assert {p.origin for p in found.values()} == {"measured"}
    assert found["matmul", "float32"].derivation == (
        "best of 4 runs of A·B of 128 × 128; median 200, quartiles 200 and 200 GFLOP/s"
    )
    assert found["matmul", "int8"].derivation.endswith(" GOP/s")
    launch = spec.provenance("launch_overhead_ns")
    assert launch is not None
    assert launch.derivation == "best of 4 runs of neg_ of 1 element; median 500, quartiles 500 and 500 ns"


def test_figures_keep_four_digits() -> None:
    """1 FLOP in 7 ns is 142.857142... MFLOP/s, and a third of 1000 ns is 333 ns."""
    from hardware.calibrations import measurement

    odd = (
        measurement("matmul", "float32", 1, times=(7,) * 4),
        measurement("launch", "throughput", 1, times=(1000,), calls=3),
    )
    table = calibrated.content(calibration(measurements=odd))
    assert table["peaks"][0]["tflop_per_s"] == 0.0001429
    write(table)
    assert attnprof.device("this").peak("float32") == 142_900_000
    assert attnprof.device("this").launch_overhead_ns == 333


HERE = Provenance("quoted", ("a test",))
SHEET = DeviceSpec(
    "sheet", "S", "", bandwidth_bytes_per_s=100 * 10**9, peaks=(Peak("matmul", "float32", 800 * 10**9, HERE),)
)


def test_parts_of_the_datasheet_are_said_beside() -> None:
    table = calibrated.content(calibration(), "mine", SHEET)
    assert table["id"] == "mine"
    assert table["figures"]["bandwidth_gb_per_s"]["derivation"].endswith(", 50% of sheet's")
    first, second = table["peaks"][:2]
    assert first["derivation"].endswith(", 25% of sheet's")
    assert "sheet" not in second["derivation"]  # no such peak


def test_a_processor_has_no_maker_of_a_gpu() -> None:
    sheet = replace(SHEET, vendor="NVIDIA")
    assert calibrated.content(calibration(), "mine", sheet)["vendor"] == ""
    gpu = replace(CONDITIONS, device="NVIDIA H100 80GB HBM3")
    assert calibrated.content(calibration(conditions=gpu), "mine", sheet)["vendor"] == "NVIDIA"


def test_what_a_gpu_says_of_itself() -> None:
    gpu = replace(CONDITIONS, device="NVIDIA H100 80GB HBM3")
    table = calibrated.content(calibration(conditions=gpu, units=132, on_chip_bytes_per_unit=228 * 2**10))
    assert (table["product"], table["target"], table["unit"]) == ("NVIDIA H100 80GB HBM3", "", "SM")
    figures = table["figures"]
    assert (figures["units"]["value"], figures["on_chip_kib_per_unit"]["value"]) == (132, 228)
    assert figures["l2_mib"] == {"value": 32, "origin": "quoted", "source": ["the driver"]}


def test_a_busy_machine_is_noted_in_the_file() -> None:
    assert calibrated.content(calibration(processor_share=0.5))["notes"].startswith("The process got 50% of the ")


def test_without_a_calibration() -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device("this")
    assert str(caught.value) == '"this" is this machine, and it is not calibrated: run `attnprof calibrate` first.'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ({"id": "this", "based_on": "h100-sxm"}, "a calibration is based on nothing."),
        ({"id": "this", "measured_on": 3}, "measured_on is a table of names and values, not 3."),
        ({"id": "this", "measured_on": {"hosts": "x"}}, 'measured_on has no "hosts". Did you mean host?'),
        ({"id": "this", "measured_on": {"cores": 1, "threads": 1}}, "measured_on does not say date, host, processor, "),
        ({"id": "this", "measured_on": {"cores": 0, "threads": 1}}, "cores is a positive number"),
        ({"id": "this", "measured_on": {"cores": 1, "threads": 1, "host": 3}}, "measured_on, host is text, not 3."),
        ({"id": "this", "figures": {"launch_overhead_us": -1}}, "launch_overhead_us is a positive number"),
    ],
)
def test_a_broken_calibration(content: object, message: str) -> None:
    where = write(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(AttnprofError) as caught:
        attnprof.device("this")
    assert str(caught.value).startswith(f"the device file {where}")
    assert message in str(caught.value)
    assert str(caught.value).endswith(" Run `attnprof calibrate` again.")


# Where it is kept


def test_the_cache_of_each_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Path("attnprof") / "devices" / "this.json"
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    assert calibrated.path() == tmp_path / tail
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert calibrated.path() == home / ".cache" / tail
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert calibrated.path() == home / ".cache" / tail
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert calibrated.path() == home / "Library" / "Caches" / tail
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert calibrated.path() == home / "AppData" / "Local" / tail
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert calibrated.path() == tmp_path / "local" / tail


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(AttnprofError, match="the user has no home folder; name a file with -o"):
        calibrated.path()


# Whether it still holds


@pytest.fixture
def as_measured(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process is on the imagined machine."""
    monkeypatch.setattr(machine, "host", lambda: CONDITIONS.host)
    monkeypatch.setattr(machine, "processor", lambda: CONDITIONS.processor)
    monkeypatch.setattr(machine, "cores", lambda: CONDITIONS.cores)
    monkeypatch.setitem(sys.modules, "torch", _torch(CONDITIONS.torch, CONDITIONS.threads))
    return monkeypatch


def _torch(version: str, threads: int) -> SimpleNamespace:
    return SimpleNamespace(__version__=version, get_num_threads=lambda: threads)


SPEC = DeviceSpec("this", "A Processor", "", measured_on=CONDITIONS)


@pytest.mark.usefixtures("as_measured")
def test_where_nothing_changed_there_is_no_doubt() -> None:
    assert calibrated.doubts(SPEC) == []


def test_datasheets_hold_everywhere() -> None:
    assert calibrated.doubts(attnprof.device("h100-sxm")) == []
    assert calibrated.remarks(attnprof.device("h100-sxm")) == []  # its notes are no remark


@pytest.mark.usefixtures("as_measured")
def test_a_machine_that_was_busy_when_it_was_measured() -> None:
    busy = replace(SPEC, notes="The process got 50% of the processor time it asked for.")
    remark = "When this was measured: The process got 50% of the processor time it asked for."
    assert calibrated.remarks(SPEC) == []
    assert calibrated.remarks(busy) == [remark]
    assert calibrated.remarks(override(busy, ["bf16=1e12"])) == [remark.replace("this", "this*")]
    assert calibrated.remarks(override(SPEC, ["bf16=1e12"])) == []


@pytest.mark.parametrize("what", ["host", "processor"])
def test_another_machine(what: str, as_measured: pytest.MonkeyPatch) -> None:
    as_measured.setattr(machine, what, lambda: "Another")
    here = {"host": "a-host", "processor": "A Processor", what: "Another"}
    assert calibrated.doubts(SPEC) == [
        "this was measured on another machine, a-host (A Processor, 8 cores), and this is "
        f"{here['host']} ({here['processor']}, 8 cores). `attnprof calibrate` measures anew."
    ]


def test_other_cores_of_the_same_machine(as_measured: pytest.MonkeyPatch) -> None:
    as_measured.setattr(machine, "cores", lambda: 2)
    assert calibrated.doubts(SPEC) == [
        "this was measured with 8 cores, and there are 2 now. `attnprof calibrate` measures anew."
    ]


def test_another_torch_and_other_threads(as_measured: pytest.MonkeyPatch) -> None:
    as_measured.setitem(sys.modules, "torch", _torch("2.14.0", 1))
    assert calibrated.doubts(SPEC) == [
        "this was measured with torch 2.13.0, and this is 2.14.0. `attnprof calibrate` measures anew.",
        "this was measured with 4 threads, and there are 1 now. `attnprof calibrate` measures anew.",
    ]


def test_threads_of_the_host_do_not_matter_to_a_gpu(as_measured: pytest.MonkeyPatch) -> None:
    as_measured.setitem(sys.modules, "torch", _torch("2.13.0", 1))
    assert calibrated.doubts(replace(SPEC, measured_on=replace(CONDITIONS, device="NVIDIA H100 80GB HBM3"))) == []


def test_torch_is_not_loaded_to_ask_for_its_version(as_measured: pytest.MonkeyPatch) -> None:
    as_measured.delitem(sys.modules, "torch")
    as_measured.setattr(importlib.metadata, "version", lambda name: "2.14.0")
    (doubt,) = calibrated.doubts(SPEC)
    assert doubt.startswith("this was measured with torch 2.13.0, and this is 2.14.0.")
    assert "torch" not in sys.modules


def test_a_roofline_says_it() -> None:
    """An imagined host is never this one."""
    assert list(sentences(SPEC, ZERO, [], 0, 0)) == calibrated.remarks(SPEC) != []
