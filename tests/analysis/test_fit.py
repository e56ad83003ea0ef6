"""Whether a peak fits, and how it is said."""

from __future__ import annotations

import pytest

import attnprof
from attnprof.analysis.fit import Fit, alternatives, fit
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units

H100 = attnprof.device("h100-sxm")
ROOM = 80 * 2**30  # 85,899,345,920


def test_a_fit_is_exact() -> None:
    found = fit(61_200_000_000, H100)
    assert found == Fit(H100, 61_200_000_000, ROOM)
    assert found.margin == ROOM - 61_200_000_000
    assert found.fits


@pytest.mark.parametrize(("needed", "fits"), [(ROOM - 1, True), (ROOM, True), (ROOM + 1, False), (0, True)])
def test_the_last_byte_decides(needed: int, fits: bool) -> None:
    assert fit(needed, H100).fits is fits


@pytest.mark.parametrize(
    ("needed", "sentence", "verdict"),
    [
        # 85.899 - 61.2 = 24.699 GB, of 85.899: 28.75%
        (61_200_000_000, "fits, 61.2 of 85.9 GB (24.7 GB, 28.8% to spare)", "fits: 24.7 GB, 28.8% to spare"),
        (12_000_000, "fits, 12.0 MB of 85.9 GB (85.9 GB, >99.9% to spare)", "fits: 85.9 GB, >99.9% to spare"),
        (ROOM, "fits, 85.9 of 85.9 GB (0 B, 0% to spare)", "fits: 0 B, 0% to spare"),
        (ROOM + 1, "does not fit: needs 85.9 GB, 1 B more than its 85.9 GB", "does not fit: 1 B too much"),
        (100 * 10**9, "does not fit: needs 100 GB, 14.1 GB more than its 85.9 GB", "does not fit: 14.1 GB too much"),
        (2 * ROOM, "does not fit: needs 172 GB, 2.00x its 85.9 GB", "does not fit: 2.00x the memory"),
        # 1690 / 85.899 = 19.674
        (1_690 * 10**9, "does not fit: needs 1.69 TB, 19.7x its 85.9 GB", "does not fit: 19.7x the memory"),
    ],
)
def test_sentences(needed: int, sentence: str, verdict: str) -> None:
    assert fit(needed, H100).sentence() == f"h100-sxm: {sentence}"
    assert fit(needed, H100).verdict() == verdict


def test_units_are_the_readers() -> None:
    found = fit(60 * 2**30, H100)
    assert found.sentence(Units(binary=True)) == "h100-sxm: fits, 60.0 of 80.0 GiB (20.0 GiB, 25.0% to spare)"
    exact = f"fits, {60 * 2**30:,} of {ROOM:,} B ({20 * 2**30:,} B, 25.0% to spare)"
    assert found.sentence(Units(exact=True)) == f"h100-sxm: {exact}"


def test_what_the_driver_reports_is_the_capacity() -> None:
    """An H200's label says 141 GiB; its driver 143,156 MiB, which is 1.2 GiB less."""
    h200 = attnprof.device("h200-sxm")
    assert h200.memory_bytes == 141 * 2**30
    assert fit(140 * 2**30, h200).capacity == 143_156 * 2**20
    assert not fit(140 * 2**30, h200).fits


def test_ways_to_run_side_by_side() -> None:
    peaks = [
        ("as it is", 1_690 * 10**9),
        ("bf16", 845 * 10**9),
        ("activation checkpointing", 100 * 10**9),
        ("both", 61_200_000_000),
    ]
    assert alternatives(peaks, H100) == [
        "as it is                  1.69 TB  does not fit: 19.7x the memory",
        "bf16                       845 GB  does not fit: 9.84x the memory",
        "activation checkpointing   100 GB  does not fit: 14.1 GB too much",
        "both                      61.2 GB  fits: 24.7 GB, 28.8% to spare",
    ]
    assert alternatives([], H100) == []


@pytest.mark.parametrize("needed", [-1, True, 1.5, None, "80 GB"])
def test_what_is_not_a_number_of_bytes(needed: object) -> None:
    with pytest.raises(AttnprofError, match="peak_bytes is a number of bytes, not "):
        fit(needed, H100)  # type: ignore[arg-type]


def test_a_device_without_a_known_memory() -> None:
    with pytest.raises(AttnprofError, match=r'the memory of m1-max-32core is not known: .*"based_on": "m1-max-32core"'):
        fit(1, attnprof.device("m1-max-32core"))
    assert fit(1, DeviceSpec("mine", "mine", "", memory_bytes=1)).fits
