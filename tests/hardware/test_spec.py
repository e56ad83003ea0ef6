"""Looking up peaks and ridge points."""

from __future__ import annotations

from fractions import Fraction

import pytest

import attnprof
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError

HERE = Provenance("quoted", ("a test",))
SPEC = DeviceSpec(
    "d",
    "D",
    "nobody",
    bandwidth_bytes_per_s=100,
    peaks=(
        Peak("matmul", "bfloat16", 1000, HERE),
        Peak("matmul", "float16", 2000, HERE, "float16 accumulation"),
        Peak("matmul", "float8", 3000, HERE),
        Peak("vector", "float32", 50, HERE),
    ),
)


@pytest.mark.parametrize(
    ("dtype", "engine", "expected"),
    [
        ("bfloat16", "matmul", 1000),
        ("bf16", "matmul", 1000),
        ("torch.bfloat16", "matmul", 1000),
        ("float8_e4m3fn", "matmul", 3000),
        ("float8_e5m2", "matmul", 3000),
        ("float16", "matmul", None),  # only in a mode that PyTorch does not use
        ("float32", "matmul", 50),  # on the vector units
        ("tf32", "matmul", None),
        ("float32", "vector", 50),
        ("complex64", "vector", 50),  # its parts are float32
        ("bfloat16", "vector", 50),  # computed in float32
        ("float16", "vector", 50),
        ("float8", "vector", None),
        ("float64", "vector", None),
        ("int64", "vector", None),
        ("no such dtype", "matmul", None),
    ],
)
def test_peak(dtype: str, engine: str, expected: int | None) -> None:
    assert SPEC.peak(dtype, engine) == expected  # type: ignore[arg-type]


def test_an_own_vector_rate_comes_before_that_of_float32() -> None:
    assert attnprof.device("gaudi3").peak("bfloat16", "vector") == Fraction("28.7") * 10**12


def test_required_peaks() -> None:
    assert SPEC.require_peak("bf16", "matmul") == 1000
    with pytest.raises(AttnprofError) as caught:
        SPEC.require_peak("float64", "vector")
    assert str(caught.value) == "d has no known vector peak for float64: known are float32."
    with pytest.raises(AttnprofError, match=r"for bfloat17: known are bfloat16, float32, float8\. Did you mean bf"):
        SPEC.require_peak("bfloat17")
    with pytest.raises(AttnprofError, match=r"^e has no known matmul peak for float32: none is known\.$"):
        DeviceSpec("e", "E", "nobody").require_peak("float32")


@pytest.mark.parametrize(
    ("device", "dtype", "engine", "expected"),
    [
        ("a100-sxm-80gb", "float8_e4m3fn", "matmul", ("matmul", "float16")),
        ("tpu-v4", "float8", "matmul", ("matmul", "bfloat16")),  # no float16
        ("gaudi3", "float4", "matmul", ("matmul", "float8")),
        ("trainium1", "float4", "matmul", ("matmul", "float8")),
        ("v100-sxm-16gb", "bfloat16", "matmul", ("vector", "float32")),  # its float16 holds fewer magnitudes
        ("a100-sxm-80gb", "float8", "vector", ("vector", "float32")),  # in which float16 is computed
        ("a100-sxm-80gb", "int4", "matmul", ("matmul", "int8")),
        ("tpu-v4", "uint8", "matmul", ("matmul", "bfloat16")),  # 8 significant bits
        ("h100-sxm", "int32", "vector", ("vector", "float64")),
        ("h100-sxm", "int64", "vector", None),
        ("h100-sxm", "float64", "matmul", None),
        ("tpu-v4", "float16", "matmul", None),  # bfloat16 is not wider
        ("h100-sxm", "no such dtype", "matmul", None),
    ],
)
def test_the_next_wider_peak(device: str, dtype: str, engine: str, expected: tuple[str, str] | None) -> None:
    found = attnprof.device(device).wider_peak(dtype, engine)  # type: ignore[arg-type]
    assert (found and (found.engine, found.dtype)) == expected


def test_of_two_equally_wide_the_faster() -> None:
    """Gaudi3's float16 runs at a fourth of the rate of its bfloat16."""
    peaks = tuple(Peak("matmul", dtype, rate, HERE) for dtype, rate in (("float16", 1), ("bfloat16", 4)))
    found = DeviceSpec("d", "D", "", peaks=peaks).wider_peak("float8")
    assert found is peaks[1]


def test_a_required_peak_names_the_next_wider() -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.device("a100-sxm-80gb").require_peak("fp8")
    assert str(caught.value) == (
        "a100-sxm-80gb has no known matmul peak for fp8: known are bfloat16, float16, float32, float64, int8, tf32; "
        "the next wider is float16, 312 TFLOP/s."
    )


def test_launch_overhead_is_in_nanoseconds() -> None:
    assert DeviceSpec("e", "E", "").launch_overhead_s is None
    assert DeviceSpec("e", "E", "", launch_overhead_ns=4_500).launch_overhead_s == 4.5e-6


def test_engines_are_two() -> None:
    with pytest.raises(AttnprofError, match='no engine "tensor": use matmul or vector'):
        SPEC.peak("float16", "tensor")  # type: ignore[arg-type]


def test_ridge() -> None:
    assert SPEC.ridge("bfloat16") == 1000 / 100
    assert SPEC.ridge("float32", "vector") == 50 / 100
    assert SPEC.ridge("float64") is None
    assert DeviceSpec("e", "E", "nobody", peaks=SPEC.peaks).ridge("bfloat16") is None  # no bandwidth


def test_capacity_is_what_the_driver_reports_where_that_is_known() -> None:
    assert DeviceSpec("e", "E", "", memory_bytes=100).capacity_bytes == 100
    assert DeviceSpec("e", "E", "", memory_bytes=100, memory_reported_bytes=97).capacity_bytes == 97
    assert DeviceSpec("e", "E", "").capacity_bytes is None
    assert attnprof.device("h200-sxm").capacity_bytes == 143_156 * 2**20


def test_specs_are_values() -> None:
    assert hash(SPEC) == hash(DeviceSpec("d", "D", "nobody", bandwidth_bytes_per_s=100, peaks=SPEC.peaks))
    with pytest.raises(AttributeError):
        SPEC.id = "other"  # type: ignore[misc]


def test_where_pytorch_steps_optimizers_with_foreach() -> None:
    """On CUDA, ROCm and XPU; not on TPU, Trainium, Inferentia, Gaudi and Apple's GPUs."""
    without = {spec.vendor for spec in attnprof.devices() if not spec.steps_by_foreach}
    assert {spec.vendor for spec in attnprof.devices() if spec.steps_by_foreach} == {"NVIDIA", "AMD", "Intel"}
    assert without == {"Google", "AWS", "Apple", "Intel"}
    assert attnprof.device("max-1550-oam").steps_by_foreach
    assert not DeviceSpec("c", "C", "", unit="core").steps_by_foreach
