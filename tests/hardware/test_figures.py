"""Every figure of the device files: recomputed where it follows from others, dense, and with its source."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import attnprof
from attnprof import hardware
from attnprof.core.device import DeviceSpec, Peak
from attnprof.hardware import files

DATA = Path(hardware.__path__[0]) / "data"
TABLES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal) for path in sorted(DATA.glob("*.json"))
}
PEAKS = [
    pytest.param(name, peak, id=f"{name} {peak['engine']} {peak['dtype']} {peak.get('mode', '')}".rstrip())
    for name, table in TABLES.items()
    for peak in table["peaks"]
]
DEVICES = attnprof.devices()

#: FLOP per clock of one SM or CU, in dense float16 with float32 accumulation, by what a compiler targets.
#: NVIDIA: 8 tensor cores of 64 multiply-adds (Volta, Turing), 4 of 128 (consumer Ampere, Ada, Blackwell), of 256
#: (A100, Orin), of 512 (Hopper), of 1024 (Blackwell). AMD: CDNA 1 and 2, 3, 4; RDNA 3.
FLOAT16_PER_CLOCK = {
    "7.0": 8 * 64 * 2,
    "7.5": 8 * 64 * 2,
    "8.0": 4 * 256 * 2,
    "8.6": 4 * 128 * 2,
    "8.7": 4 * 256 * 2,
    "8.9": 4 * 128 * 2,
    "9.0": 4 * 512 * 2,
    "10.0": 4 * 1024 * 2,
    "10.3": 4 * 1024 * 2,
    "12.0": 4 * 128 * 2,
    "gfx908": 1024,
    "gfx90a": 1024,
    "gfx942": 2048,
    "gfx950": 4096,
    "gfx1100": 512,
}
#: These accumulate in float32 at half the rate of their chip.
HALF_RATE = {"a10g", "l40", "rtx-3090", "rtx-4080", "rtx-4090", "rtx-5090"}


def product(name: str, peak: dict[str, Any]) -> Fraction | None:
    """TFLOP/s as units x FLOP per clock x clock, or as the multiple of another peak, as the file says."""
    table = TABLES[name]
    if "sparse" in peak:
        return Fraction(peak["times"]) * Fraction(peak["sparse"])
    if "of" in peak:
        engine, dtype = peak["of"].split()
        others = TABLES[peak.get("device", name)]["peaks"]
        (other,) = [p for p in others if (p["engine"], p["dtype"]) == (engine, dtype) and "mode" not in p]
        return Fraction(peak["times"]) * Fraction(other["tflop_per_s"])
    if "per_clock" in peak:
        figures = table["figures"]
        gigahertz = Fraction(peak.get("clock_ghz") or Fraction(figures["clock_mhz"]["value"]) / 1000)
        return figures["units"]["value"] * peak["per_clock"] * gigahertz / 1000
    return None


def last_digit(written: Decimal | int) -> Fraction:
    """One in the last decimal place that a figure is written with."""
    exponent = Decimal(written).as_tuple().exponent
    assert isinstance(exponent, int)
    return Fraction(10) ** exponent


@pytest.mark.parametrize(("name", "peak"), PEAKS)
def test_peaks_follow_from_their_factors(name: str, peak: dict[str, Any]) -> None:
    """A derived peak is its product to the last digit written.

    A quoted one may be 1.3% off: vendors round to two or three figures and to a nominal clock (V100 PCIe: 112 of
    113.05, L40S: 362.05 of 366.4). A figure with sparsity would be off by 100%.
    """
    expected, written = product(name, peak), Fraction(peak["tflop_per_s"])
    if peak["origin"] == "derived":
        assert expected is not None
        assert abs(expected - written) <= last_digit(peak["tflop_per_s"]) / 2
    elif expected is not None:
        assert abs(expected - written) <= Fraction("0.013") * expected


def test_factors_are_missing_only_where_units_or_clock_are_not_known() -> None:
    """The test above is not empty. Gaudi's matrix engines are not its units; the B300's rates imply a lower clock."""
    without = {name for name, table in TABLES.items() if all(product(name, peak) is None for peak in table["peaks"])}
    unknown = {d.id for d in DEVICES if d.units is None or d.clock_hz is None or d.id.startswith("gaudi")}
    assert without == unknown - {"h800-sxm"} | {"b300"}


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if t.get("target") in FLOAT16_PER_CLOCK])
def test_float16_per_clock_is_that_of_the_architecture(name: str) -> None:
    expected = FLOAT16_PER_CLOCK[TABLES[name]["target"]] // (2 if name in HALF_RATE else 1)
    for peak in TABLES[name]["peaks"]:
        if (peak["engine"], peak["dtype"], peak.get("mode")) == ("matmul", "float16", None) and "per_clock" in peak:
            assert peak["per_clock"] == expected


@pytest.mark.parametrize("name", ["v100-pcie-16gb", "h100-pcie", "h100-nvl", "b200", "b300"])
def test_notes_say_which_quoted_rates_imply_a_lower_clock(name: str) -> None:
    spec = attnprof.device(name)
    quoted = spec.peak("float16", "matmul")
    at_boost = (spec.units or 0) * FLOAT16_PER_CLOCK[spec.target] * (spec.clock_hz or 0)
    ratio = Fraction(quoted or 0, at_boost)
    assert f" {float(ratio):.2f} of SMs × FLOP per clock × clock" in spec.notes


#: Dense figures as vendors publish them, TFLOP/s.
PUBLISHED = {
    ("h100-sxm", "bfloat16"): "989.4",
    ("h100-pcie", "bfloat16"): "756",
    ("a100-sxm-80gb", "bfloat16"): "312",
    ("a100-pcie-40gb", "tf32"): "156",
    ("l4", "bfloat16"): "121",
    ("b200", "bfloat16"): "2250",
    ("mi300x", "bfloat16"): "1307.4",
    ("mi355x", "bfloat16"): "2516.6",
    ("rtx-4090", "float16"): "165.2",
    ("tpu-v5e", "bfloat16"): "197",
    ("trainium2", "bfloat16"): "667",
    ("v100-sxm-16gb", "float16"): "125",
}


@pytest.mark.parametrize(("name", "dtype"), PUBLISHED)
def test_published_dense_peaks(name: str, dtype: str) -> None:
    assert attnprof.device(name).peak(dtype, "matmul") == Fraction(PUBLISHED[name, dtype]) * 10**12


#: Where half the bits may be more than twice as fast: int8 and FP4 on GeForce, which halves the other rates; FP4
#: on Blackwell Ultra (3 times); the MX formats of Trainium3 (4 times).
FASTER = {(name, "int8"): 4 for name in ("rtx-3090", "rtx-4080", "rtx-4090", "rtx-5090")}
FASTER |= {("rtx-5090", "float4"): 4, ("b300", "float4"): 3, ("gb300", "float4"): 3, ("trainium3", "float8"): 4}


@pytest.mark.parametrize("spec", DEVICES, ids=lambda d: d.id)
def test_half_the_bits_are_at_most_twice_as_fast(spec: DeviceSpec) -> None:
    """A rate with sparsity among dense ones would be twice too high.

    3% for rounded figures: 733 is 2.02 times 362.05 (L40S).
    """
    for wide, narrow in (("tf32", "float16"), ("bfloat16", "float8"), ("float16", "int8"), ("float8", "float4")):
        slow, fast = spec.peak(wide), spec.peak(narrow)
        if slow and fast:
            assert fast * 100 <= slow * FASTER.get((spec.id, narrow), 2) * 103


def provenances(spec: DeviceSpec) -> list[tuple[str, Any]]:
    return [*spec.provenances, *((f"{p.engine} {p.dtype} {p.mode}".rstrip(), p.provenance) for p in spec.peaks)]


@pytest.mark.parametrize("spec", DEVICES, ids=lambda d: d.id)
def test_every_figure_says_where_it_comes_from(spec: DeviceSpec) -> None:
    known = set(files.bibliography().values())
    for name, provenance in provenances(spec):
        assert set(provenance.sources) <= known, f"{name}: a source without an entry in sources.json"
        if provenance.origin == "quoted":
            assert provenance.sources, name
        elif provenance.origin == "derived":
            assert provenance.derivation, name
        else:
            assert provenance.sources == (), name
    named = {field for field, _ in spec.provenances}
    figures = [field for field, _ in files._FIGURES.values() if getattr(spec, field) is not None]
    assert named == {*figures, *(["reported_as"] if spec.reported_as else [])}


def test_every_source_is_used() -> None:
    used = {source for spec in DEVICES for _, provenance in provenances(spec) for source in provenance.sources}
    assert used == set(files.bibliography().values())


def test_what_no_public_source_says_is_marked() -> None:
    marked = {(spec.id, name) for spec in DEVICES for name, p in provenances(spec) if p.origin == "unsourced"}
    assert marked >= {
        ("h800-sxm", "vector float64"),
        ("rx-7900-xtx", "matmul bfloat16"),
        ("m2-max-38core", "vector float32"),
        ("h20", "tdp_watts"),
    }
    assert not any(name in ("memory_bytes", "reported_as") for _, name in marked)


def test_there_are_66_each_in_a_file_of_its_name() -> None:
    assert len(DEVICES) == 66
    assert {spec.id for spec in DEVICES} == set(TABLES) == {table["id"] for table in TABLES.values()}


@pytest.mark.parametrize("spec", DEVICES, ids=lambda d: d.id)
def test_memory_is_the_label_in_gib_and_drivers_report_a_little_less(spec: DeviceSpec) -> None:
    if spec.memory_bytes is None:
        assert spec.vendor == "Apple"  # chosen at purchase
        return
    assert spec.memory_bytes % 2**30 == 0
    if spec.memory_reported_bytes is not None:
        assert 0 <= spec.memory_bytes - spec.memory_reported_bytes < spec.memory_bytes // 10


@pytest.mark.parametrize("spec", DEVICES, ids=lambda d: d.id)
def test_peaks_are_listed_once(spec: DeviceSpec) -> None:
    keys = [(peak.engine, peak.dtype, peak.mode) for peak in spec.peaks]
    assert len(keys) == len(set(keys)) > 0


def test_numbers_keep_their_digits() -> None:
    """989.4 TFLOP/s as a float times 10^12 would be an integer only by luck."""
    spec = attnprof.device("h100-sxm")
    assert spec.peak("float8") == 1978_900_000_000_000
    assert spec.memory_bytes == 80 * 2**30
    assert spec.bandwidth_bytes_per_s == 3350 * 10**9
    assert attnprof.device("m1-max-32core").peak("float32") == 32 * 256 * 1_296_000_000
    assert all(type(peak.flops_per_s) is int for device in DEVICES for peak in device.peaks if isinstance(peak, Peak))
