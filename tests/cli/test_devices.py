"""``attnprof devices``: the list and one device, at any width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attnprof
from attnprof.cli import main


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["devices", *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code or 0, err) == (0, "")
    return out


@pytest.mark.parametrize("width", ["20", "40", "60", "80", "110", "300"])
def test_the_list_has_every_device_and_fits(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    lines = shown(capsys, *()).splitlines()
    assert max(map(len, lines)) <= max(40, int(width))
    rows = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in IDS]
    assert sorted(rows) == sorted(IDS)
    titles = lines[0].split()
    assert titles == ["device", "memory", "bandwidth", "bf16", "fp16", "fp32", "tf32", "fp8", "ridge"][: len(titles)]
    assert len(titles) == {"20": 2, "40": 2, "60": 4, "80": 6, "110": 9, "300": 9}[width]


IDS = [spec.id for spec in attnprof.devices()]


def test_a_row_of_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    lines = shown(capsys).splitlines()
    assert lines[1].split() == ["GB", "TB/s", *["TFLOP/s"] * 5, "FLOP/B"]
    (row,) = [line.split() for line in lines if line.split()[:1] == ["h100-sxm"]]
    # 80 * 2^30 = 85.9e9 bytes; the ridge is 989.4 / 3.35
    assert row == ["h100-sxm", "85.9", "3.35", "989", "989", "66.9", "495", "1979", "295"]
    (row,) = [line.split() for line in lines if line.split()[:1] == ["m2-max-38core"]]
    assert row == ["m2-max-38core", "–", "0.400", "–", "13.6", "13.6", "–", "–", "–"]
    vendors = [line for line in lines[2:] if line and not line.startswith(" ") and len(line.split()) == 1]
    assert vendors == sorted(vendors)
    assert len(vendors) == len({spec.vendor for spec in attnprof.devices()})


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("width", [40, 110])
def test_one_device_fits_and_names_every_source(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, name)
    spec = attnprof.device(name)
    assert max(map(len, out.splitlines())) <= width
    text = "".join(out.split())  # a long address is broken over lines
    for provenance in [p for _, p in spec.provenances] + [peak.provenance for peak in spec.peaks]:
        for source in provenance.sources:
            assert "".join(source.split()) in text
    expected = sum(
        p.origin == "unsourced" for p in [q for _, q in spec.provenances] + [k.provenance for k in spec.peaks]
    )
    assert text.count("unsourced") == expected
    assert out.startswith(f"{name} · ")


def test_one_device(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    lines = shown(capsys, "NVIDIA A10G").splitlines()
    assert lines[0] == "a10g · NVIDIA A10G (AWS G5) · Ampere GA102 · 8.6 · PCIe 4.0 (AWS G5)"
    # 80 SM x 512 FLOP x 1.71 GHz = 70.0 TFLOP/s, over 600 GB/s
    rate = next(line for line in lines if line.startswith("matmul float16"))
    assert rate.split()[:5] == ["matmul", "float16", "70.0", "117", "quoted"]
    assert "≈ 80 SM × 512 FLOP × 1.71 GHz; elsewhere 125 TFLOP/s" in rate
    assert any(line.startswith("vector float32") and "derived: 80 SM × 256 FLOP × 1.71 GHz" in line for line in lines)
    assert any(line.startswith("matmul tf32") and line.endswith("derived: 0.5 × matmul float16") for line in lines)


def test_modes_and_rules_are_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = shown(capsys, "rtx-4090")
    assert "matmul float16 (float16 accumulation)" in out
    assert "float32 matmuls run on the vector units unless TF32 is allowed." in out
    assert "Vector work in float16 and bfloat16 runs at float32's rate" in out
    assert "on the vector units" not in shown(capsys, "mi300x")
    assert "runs at float32's rate: PyTorch" not in shown(capsys, "gaudi3")


def test_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert "80.0 GiB" in shown(capsys, "h100-sxm", "--units", "binary")
    exact = shown(capsys, "h100-sxm", "--units", "exact")
    assert "989,400,000,000,000" in exact
    assert "1,830,000,000 Hz" in exact


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"id": "mine\x1b[2J", "figures": {"memory_gib": 12}, "notes": "mind\u202e the gap"}
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    out = shown(capsys, str(path))
    assert "12.9 GB  unsourced" in out
    assert "No peak is known." in out
    assert r"mine\x1b[2J" in out  # what a terminal would obey is written out
    assert r"mind\u202e the gap" in out


def test_figures_given_in_place_of_the_listed_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    out = shown(capsys, "h100-sxm", "--peak", "bf16=800e12", "--peak", "vector:int64=16T", "--bandwidth", "4TB/s")
    lines = out.splitlines()
    assert lines[0].startswith("h100-sxm* · ")
    rate = next(line for line in lines if line.startswith("matmul bfloat16"))
    assert rate.split()[2:] == ["800", "200", *["given,", "in", "place", "of", "989", "TFLOP/s"]]  # 800 / 4
    assert next(line for line in lines if line.startswith("vector int64")).split()[2:] == ["16.0", "4.00", "given"]
    assert next(line for line in lines if line.startswith("bandwidth")).endswith("given, in place of 3.35 TB/s")
    assert any(line.startswith("* Given by you: matmul bfloat16 800 TFLOP/s in place of") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--peak", "bf16=1e12"], "--peak and --bandwidth change one device: name it, such as `attnprof devices h100-"),
        (["h100-sxm", "--peak", "bf16=0"], 'the peak "bf16=0" is not above zero and finite'),
        (["h100-sxm", "--bandwidth", "4Tb/s"], 'the bandwidth "4Tb/s": a small b is bits'),
        (["h100"], '"h100" is several devices: h100-nvl, h100-pcie or h100-sxm.'),
        (
            ["h100-sxn"],
            'unknown device "h100-sxn". Did you mean h100-sxm, h800-sxm, h200-sxm? `attnprof devices` lists',
        ),
        (["a\nb\x1b[31m\u202e"], r'unknown device "a\nb\x1b[31m\u202e".'),
        (["none.json"], "cannot read the device file none.json: No such file or directory."),
        (["--units", "bits"], 'no units "bits"'),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["devices", *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith(f"attnprof: {sentence}")
    assert err.count("\n") == 1
