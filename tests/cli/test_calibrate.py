"""``attnprof calibrate``: what it shows, where it saves, and what it refuses before it measures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import attnprof
from attnprof.api import calibration as api
from attnprof.capture import calibration as capture
from attnprof.cli import main
from attnprof.core.calibration import Calibration
from hardware.calibrations import CONDITIONS, MS, REFUSED, calibration, measurement


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str | None]]:
    """Calibrations are made at once, and say how they were asked for."""
    asked: list[tuple[float, str | None]] = []

    def measure(seconds: float, device: str | None = None, progress: object = None) -> Calibration:
        asked.append((seconds, device))
        return FOUND

    monkeypatch.setattr(capture, "measure", measure)
    return asked


FOUND = calibration()
SAVED = Path("cache/attnprof/devices/this.json")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    with pytest.raises(SystemExit) as left:
        main(["calibrate", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out.splitlines(), err


def row(lines: list[str], label: str) -> list[str]:
    return next(line for line in lines if line.startswith(label)).removeprefix(label).split()


@pytest.mark.usefixtures("measured")
def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, err = call(capsys)
    assert (code, err) == (0, "")
    assert lines[0] == "a-host · A Processor · 4 threads · torch 2.13.0 · 2026-11-21"
    assert row(lines, "matmul float32") == ["200", "200", "0.0", "A·B", "of", "128", "×", "128"]
    assert row(lines, "vector float32") == ["20.0", "20.0", "0.0", "lerp", "of", "65,536", "elements"]
    assert row(lines, "bandwidth triad") == ["50.0", "50.0", "0.0", "arrays", "of", "64", "MiB"]
    assert row(lines, "launch throughput") == ["500", "500", "0.0", "neg_", "of", "1", "element"]
    units = [line.split() for line in lines if line.split()[:1] in (["GFLOP/s"], ["GB/s"], ["ns"])]
    assert units == [["GFLOP/s", "GFLOP/s", "%"], ["GB/s", "GB/s", "%"], ["ns", "ns", "%"]]
    assert lines[-2] == f"Saved in {SAVED.absolute()}"
    assert lines[-1] == "Use it with --device this"
    assert attnprof.device("this").peak("float32") == 200 * 10**9
    assert [path for path in SAVED.parent.iterdir() if path.name != "this.json"] == []


def test_the_time_it_takes(measured: list[tuple[float, str | None]], capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys)
    call(capsys, "--quick", "--on", "cpu")
    assert measured == [(api.SECONDS, None), (api.QUICK_SECONDS, "cpu")]


@pytest.mark.usefixtures("measured")
def test_a_file_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = call(capsys, "-o", "node.json")
    assert code == 0
    assert lines[-2:] == ["Saved in node.json", "Use it with --device node.json"]
    assert not SAVED.exists()
    assert attnprof.device("node.json").id == "node"


@pytest.mark.usefixtures("measured")
def test_beside_a_datasheet(capsys: pytest.CaptureFixture[str]) -> None:
    """200 GFLOP/s of 800, 50 GB/s of 100; no peak of bfloat16 is known."""
    peak = {"engine": "matmul", "dtype": "float32", "tflop_per_s": 0.8}
    Path("sheet.json").write_text(
        json.dumps({"id": "sheet", "figures": {"bandwidth_gb_per_s": 100}, "peaks": [peak]}), encoding="utf-8"
    )
    code, lines, _ = call(capsys, "--device", "sheet.json")
    assert code == 0
    assert "% of" in lines[2]
    assert "sheet" in lines[3]
    assert row(lines, "matmul float32")[3] == "25.0"
    assert row(lines, "matmul bfloat16")[3] == "–"
    assert row(lines, "bandwidth triad")[3] == "50.0"
    spec = attnprof.device("this")
    assert spec.measured_on is not None
    assert spec.measured_on.datasheet == "sheet"


def test_a_gpu_is_recognised(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = calibration(
        conditions=replace(CONDITIONS, device="NVIDIA H100 80GB HBM3"),
        measurements=(measurement("matmul", "bfloat16", 4947 * 10**8),),  # in 1 ms: half of 989.4 TFLOP/s
    )
    monkeypatch.setattr(capture, "measure", lambda *arguments: gpu)
    _, lines, _ = call(capsys)
    assert lines[0] == "a-host · NVIDIA H100 80GB HBM3 · torch 2.13.0 · 2026-11-21"
    assert row(lines, "matmul bfloat16")[3] == "50.0"
    monkeypatch.setattr(
        capture, "measure", lambda *arguments: replace(gpu, conditions=replace(CONDITIONS, device="NVIDIA H100"))
    )
    _, lines, _ = call(capsys)  # several devices have that name
    assert row(lines, "matmul bfloat16")[3:] == ["a", "size"]


def test_doubts_and_refusals_are_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    busy = calibration(
        measurements=(measurement("matmul", "float32", 1, times=(MS, MS, 2 * MS, 2 * MS)),),
        refusals=(REFUSED,),
        processor_share=0.5,
    )
    monkeypatch.setattr(capture, "measure", lambda *arguments: busy)
    code, lines, _ = call(capsys)
    text = " ".join(line.strip() for line in lines)
    assert code == 0
    assert "matmul float8 was not measured: no kernel." in text
    assert "The spread of matmul float32 is 50%: something else is running; calibrate again on an idle machine." in text
    assert "The process got 50% of the processor time it asked for" in text


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("width", [40, 60, 80, 110])
def test_it_fits_the_terminal(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, lines, _ = call(capsys, "--device", "h100-sxm", "-o", "node.json")
    assert max(map(len, lines)) <= width
    assert row(lines, "matmul float32")[0] == "200"


@pytest.mark.usefixtures("measured")
def test_the_devices_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys)
    with pytest.raises(SystemExit):
        main(["devices", "this"])
    out = " ".join(capsys.readouterr().out.split())
    assert "measured on a-host, 2026-11-21, torch 2.13.0, 4 threads" in out
    assert "launch overhead 500 ns per op measured: best of 4 runs of neg_ of 1 element" in out
    assert "this was measured on another machine, a-host (A Processor, 8 cores)" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "node.toml"], "a calibration is written as JSON: node.toml does not end in .json."),
        (["-o", "none/node.json"], "cannot write none/node.json: the folder none does not exist."),
        (["--device", "h100"], '"h100" is several devices: '),
        (["--units", "bits"], 'no units "bits"'),
        (["--on", "gpu"], '"gpu" is no device of torch: name one such as cpu, cuda or cuda:1.'),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    code, lines, err = call(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert err.startswith(f"attnprof: {sentence}")
    assert err.count("\n") == 1
    assert list(folder.rglob("*.json")) == []


def test_a_cache_that_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cache").write_text("a file")
    code, _, err = call(capsys)
    assert code == 2
    assert "cannot make the folder" in err


def test_an_interrupt_keeps_what_was_saved_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, measured: list[tuple[float, str | None]]
) -> None:
    call(capsys)
    before = SAVED.read_bytes()

    def interrupted(*arguments: object) -> Calibration:
        raise KeyboardInterrupt

    monkeypatch.setattr(capture, "measure", interrupted)
    code, lines, err = call(capsys)
    assert (code, lines, err) == (130, [], "")
    assert SAVED.read_bytes() == before
    assert len(list(SAVED.parent.iterdir())) == 1


def test_a_bar_on_a_terminal_and_none_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(seconds: float, device: str | None, progress: object) -> Calibration:
        if callable(progress):
            progress("matmul float32", 0.25)
            progress("done", 1.0)
        return FOUND

    monkeypatch.setattr(capture, "measure", measure)
    assert call(capsys)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert "matmul float32" in call(capsys)[2]


@pytest.mark.usefixtures("measured")
def test_from_python(folder: Path) -> None:
    spec = attnprof.calibrate()
    assert spec == attnprof.device("this")
    assert attnprof.calibrate(folder / "node.json", datasheet="h100-sxm").id == "node"
    with pytest.raises(attnprof.AttnprofError, match="unknown device"):
        attnprof.calibrate(datasheet="h100-sxn")


@pytest.mark.slow
def test_from_a_measurement_to_a_roofline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing imagined: this machine is measured, shown and used."""
    code, lines, err = call(capsys, "--quick", "--on", "cpu")
    assert (code, err) == (0, "")
    assert float(row(lines, "matmul float32")[0]) > 0
    Path("tiny.py").write_text(
        "from torch import nn, ones\ndef build(): return nn.Linear(512, 512), (ones(512, 512),)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as left:
        main(["run", "tiny.py:build", "--device", "this"])
    out = capsys.readouterr().out
    assert not left.value.code
    assert "this: at best " in out
    assert "this: fits, " in out
    assert "measured on another machine" not in out
