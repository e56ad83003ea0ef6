"""Figures given in place of the listed ones: what they mean, what they leave alone, what is refused."""

from __future__ import annotations

import pytest

import attnprof
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError
from attnprof.hardware.overrides import override

H100 = attnprof.device("h100-sxm")


@pytest.mark.parametrize(
    ("text", "engine", "dtype", "expected"),
    [
        ("bf16=800e12", "matmul", "bfloat16", 800 * 10**12),
        ("matmul:bf16=800e12", "matmul", "bfloat16", 800 * 10**12),
        ("bfloat16=800TFLOP/s", "matmul", "bfloat16", 800 * 10**12),
        ("torch.bfloat16 = 800 tflops", "matmul", "bfloat16", 800 * 10**12),
        ("BF16=0.8P", "matmul", "bfloat16", 800 * 10**12),
        ("bf16=989.4T", "matmul", "bfloat16", 9894 * 10**11),  # as a decimal: no digit is lost
        ("vector:fp32=60e12", "vector", "float32", 60 * 10**12),
        ("fp32=60e12", "matmul", "float32", 60 * 10**12),  # its vector rate stays
        ("float8_e4m3fn=1.5PFLOP/s", "matmul", "float8", 1500 * 10**12),
        ("int8=1500 TOPS", "matmul", "int8", 1500 * 10**12),
        ("int8=1500TOP/s", "matmul", "int8", 1500 * 10**12),
        ("vector:int64=16e12", "vector", "int64", 16 * 10**12),  # a peak that was not listed
    ],
)
def test_a_peak(text: str, engine: str, dtype: str, expected: int) -> None:
    spec = override(H100, [text])
    (peak,) = [p for p in spec.peaks if (p.engine, p.dtype) == (engine, dtype)]
    assert peak.flops_per_s == expected
    assert peak.provenance.origin == "given"
    assert [p for p in spec.peaks if p != peak] == [p for p in H100.peaks if (p.engine, p.dtype) != (engine, dtype)]
    assert spec.bandwidth_bytes_per_s == H100.bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4e12", 4 * 10**12),
        ("4000000000000", 4 * 10**12),
        ("4TB/s", 4 * 10**12),
        ("3350 GB/s", 3350 * 10**9),
        ("3.35 tB/s", 3350 * 10**9),
        ("4TBps", 4 * 10**12),
        ("2TiB/s", 2 * 2**40),
    ],
)
def test_a_bandwidth(text: str, expected: int) -> None:
    spec = override(H100, bandwidth=text)
    assert spec.bandwidth_bytes_per_s == expected
    assert spec.peaks == H100.peaks
    assert spec.ridge("bfloat16") == 9894 * 10**11 / expected


def test_what_was_given_is_said() -> None:
    spec = override(H100, ["bf16=800e12", "vector:int64=16e12"], "4TB/s")
    assert spec.id == "h100-sxm*"
    assert spec.notes.startswith(
        "* Given by you: matmul bfloat16 800 TFLOP/s in place of 989 TFLOP/s; vector int64 16.0 TFLOP/s in place of an "
        "unknown one; bandwidth 4.00 TB/s in place of 3.35 TB/s. "
    )
    assert spec.notes.endswith(H100.notes)
    assert spec.provenance("bandwidth_bytes_per_s") == Provenance("given", derivation="in place of 3.35 TB/s")
    found = spec.find_peak("bfloat16")
    assert found is not None
    assert found.provenance == Provenance("given", derivation="in place of 989 TFLOP/s")
    assert override(spec, ["bf16=700e12"]).id == "h100-sxm*"


def test_what_is_replaced_is_what_work_would_run_against() -> None:
    """float32 matmuls on the vector units; vector work in bfloat16 at the rate of float32."""
    spec = override(H100, ["fp32=60e12", "vector:bf16=30e12"])
    found = {(p.engine, p.dtype): p.provenance.derivation for p in spec.peaks if p.provenance.origin == "given"}
    assert found == {
        ("matmul", "float32"): "in place of 66.9 TFLOP/s of the vector units",
        ("vector", "bfloat16"): "in place of 66.9 TFLOP/s",
    }


def test_nothing_given_changes_nothing() -> None:
    assert override(H100) is H100
    assert override(H100, [], None) is H100


def test_peaks_of_modes_are_not_replaced() -> None:
    here = Provenance("quoted", ("a test",))
    spec = DeviceSpec("d", "D", "", peaks=(Peak("matmul", "float16", 2 * 10**12, here, "float16 accumulation"),))
    changed = override(spec, ["fp16=1e12"])
    assert changed.peaks[0] == spec.peaks[0]
    assert changed.peak("float16") == 10**12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'the peak "" does not parse: write DTYPE=RATE, such as bf16=800e12'),
        ("bf16", 'the peak "bf16" does not parse'),
        ("bf16=", 'the peak "bf16=" does not parse'),
        ("=1e12", 'the peak "=1e12" does not parse'),
        ("bf16=fast", "does not parse: a rate is in FLOP/s, such as 800e12 or 800TFLOP/s."),
        ("bf16=800TB/s", "does not parse: a rate is in FLOP/s"),
        ("bf16=0", "is not above zero and finite"),
        ("bf16=-800e12", "is not above zero and finite"),
        ("bf16=nan", "is not above zero and finite"),
        ("bf16=inf", "is not above zero and finite"),
        ("bf16=800", "is 800 FLOP/s, slower than any device: write 800e12 or 800TFLOP/s."),
        ("bf16=1e999999999", "is no rate of any device"),
        ("bfloat=1e12", 'no dtype "bfloat" has peaks; use one of float64, float32, '),
        ("bfloat=1e12", "Did you mean bfloat16"),
        ("tensor:bf16=1e12", 'no engine "tensor", use matmul or vector.'),
        ("matmull:bf16=1e12", "Did you mean matmul?"),
    ],
)
def test_peaks_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        override(H100, [text])
    assert message in str(caught.value)
    assert f'"{text}"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not parse: a rate is in B/s, such as 4e12 or 4TB/s."),
        ("4 TFLOP/s", "does not parse"),
        ("0", "is not above zero and finite"),
        ("-4TB/s", "is not above zero and finite"),
        ("nan", "is not above zero and finite"),
        ("4", "is 4 B/s, slower than any device: write 4e12 or 4TB/s."),
        ("900Gb/s", "a small b is bits; write bytes per second, such as 4e12 or 4TB/s."),
    ],
)
def test_bandwidths_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        override(H100, bandwidth=text)
    assert str(caught.value).startswith(f'the bandwidth "{text}"')
    assert message in str(caught.value)


def test_one_peak_has_one_value() -> None:
    with pytest.raises(AttnprofError, match='matmul bfloat16 is given twice: "matmul:bfloat16=2e12" comes second'):
        override(H100, ["bf16=1e12", "matmul:bfloat16=2e12"])
    with pytest.raises(AttnprofError, match=r'peaks is a sequence such as \["bf16=800e12"\], not the text "bf16=1e12"'):
        override(H100, "bf16=1e12")
