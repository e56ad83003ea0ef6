"""What a device can do at most: dense peaks by engine and dtype, bandwidth, memory, and who says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from attnprof.core.calibration import Conditions
from attnprof.core.cost import Engine
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import Units

#: ``quoted`` by the sources named; ``derived`` from other figures, as the derivation says; ``unsourced``:
#: no public source is known; ``measured`` here, by a calibration; ``given`` by the user in place of another.
Origin = Literal["quoted", "derived", "unsourced", "measured", "given"]

#: The dtypes that peaks are given for, those of one width beside each other.
PEAK_DTYPES = (
    *("float64", "float32", "tf32", "float16", "bfloat16", "float8", "float4"),
    *("int64", "int32", "int16", "int8", "int4"),
)

#: Other names of the dtypes that peaks are given for. Complex arithmetic is real arithmetic on the parts.
_SAME = {
    "fp64": "float64",
    "double": "float64",
    "complex128": "float64",
    "fp32": "float32",
    "float": "float32",
    "complex64": "float32",
    "fp16": "float16",
    "half": "float16",
    "complex32": "float16",
    "bf16": "bfloat16",
    "fp8": "float8",
    "fp4": "float4",
}
#: The next wider dtypes, each of which holds every value of the dtype; those of one width beside each other.
_WIDER: dict[str, tuple[tuple[str, ...], ...]] = {
    "float4": (("float8",), ("float16", "bfloat16"), ("float32",), ("float64",)),
    "float8": (("float16", "bfloat16"), ("float32",), ("float64",)),
    "float16": (("float32",), ("float64",)),
    "bfloat16": (("float32",), ("float64",)),
    "tf32": (("float32",), ("float64",)),
    "float32": (("float64",),),
    "int4": (("int8",), ("int16", "float16", "bfloat16"), ("int32", "float32"), ("float64",)),
    "int8": (("int16", "float16", "bfloat16"), ("int32", "float32"), ("float64",)),
    "uint8": (("int16", "float16", "bfloat16"), ("int32", "float32"), ("float64",)),
    "int16": (("int32", "float32"), ("float64",)),
    "int32": (("int64", "float64"),),
}
#: What NVIDIA, AMD and Intel call the units of the GPUs that PyTorch has foreach kernels for.
_FOREACH_UNITS = ("SM", "CU", "Xe-core")
#: PyTorch computes pointwise and reduction kernels on these in float32, and converts on load and store.
_COMPUTED_IN_FLOAT32 = ("float16", "bfloat16")


def peak_dtype(dtype: str) -> str:
    """The name a peak is listed under: ``bf16`` and ``torch.bfloat16`` are bfloat16, ``float8_e5m2`` is float8."""
    name = dtype.strip().lower().removeprefix("torch.")
    for family in ("float8", "float4"):
        if name.startswith(f"{family}_"):
            return family
    return _SAME.get(name, name)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from, and what others say instead.

    ``derivation`` is how the figure follows from others: what it was derived by, or what confirms a quoted
    one. ``also_quoted`` are rival figures that were not taken, in the unit of the figure.
    """

    origin: Origin
    sources: tuple[str, ...] = ()
    derivation: str = ""
    also_quoted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Peak:
    """One dense peak in FLOP/s (OP/s for integers), a multiply-add being 2.

    ``matmul`` peaks accumulate in float32 unless ``mode`` says otherwise.
    """

    engine: Engine
    dtype: str
    flops_per_s: int
    provenance: Provenance
    mode: str = ""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device, as PyTorch sees devices. None is a figure that is not known.

    ``units`` are its SMs, CUs or cores (``unit`` says which), each with ``on_chip_bytes_per_unit`` of
    memory that a kernel addresses itself. ``reported_as`` are the names drivers give it.
    ``memory_bytes`` is the size on the label, ``memory_reported_bytes`` what a driver says is there.
    ``interconnect_bytes_per_s`` is both directions together. ``launch_overhead_ns`` is the time that one more
    op takes, however small it is. ``measured_on`` are the conditions of a calibration, None for a datasheet.
    """

    id: str
    product: str
    vendor: str
    architecture: str = ""
    target: str = ""
    form_factor: str = ""
    unit: str = "unit"
    aliases: tuple[str, ...] = ()
    reported_as: tuple[str, ...] = ()
    notes: str = ""
    memory_bytes: int | None = None
    memory_reported_bytes: int | None = None
    bandwidth_bytes_per_s: int | None = None
    l2_bytes: int | None = None
    last_level_cache_bytes: int | None = None
    on_chip_bytes_per_unit: int | None = None
    units: int | None = None
    clock_hz: int | None = None
    interconnect_bytes_per_s: int | None = None
    tdp_watts: int | None = None
    launch_overhead_ns: int | None = None
    peaks: tuple[Peak, ...] = ()
    provenances: tuple[tuple[str, Provenance], ...] = field(default=(), repr=False)
    measured_on: Conditions | None = None

    @property
    def capacity_bytes(self) -> int | None:
        """The memory there is to fill: what a driver reports where that is known, else the label's."""
        return self.memory_bytes if self.memory_reported_bytes is None else self.memory_reported_bytes

    @property
    def steps_by_foreach(self) -> bool:
        """Whether PyTorch steps optimizers with foreach kernels there, unless told otherwise: on CUDA, ROCm and XPU."""
        return self.unit in _FOREACH_UNITS

    def provenance(self, figure: str) -> Provenance | None:
        """Where a figure (``"memory_bytes"``) or the reported names (``"reported_as"``) come from."""
        return dict(self.provenances).get(figure)

    def find_peak(self, dtype: str, engine: Engine = "matmul") -> Peak | None:
        """The peak that work of a dtype runs against, or None where it is not known.

        A matmul without a matrix engine for its dtype runs on the vector units: float32 on NVIDIA, unless
        TF32 is allowed (ask for ``tf32``). Vector work in float16 and bfloat16 runs at float32's rate
        where no own rate is listed, as PyTorch computes it in float32.
        """
        if engine not in get_args(Engine):
            raise AttnprofError(f'no engine "{engine}": use {" or ".join(get_args(Engine))}.')
        name = peak_dtype(dtype)
        listed = {(peak.engine, peak.dtype): peak for peak in self.peaks if not peak.mode}
        found = listed.get((engine, name)) or listed.get(("vector", name))
        if found is None and engine == "vector" and name in _COMPUTED_IN_FLOAT32:
            return listed.get(("vector", "float32"))
        return found

    def peak(self, dtype: str, engine: Engine = "matmul") -> int | None:
        """The dense peak in FLOP/s that work of a dtype runs against, or None where it is not known."""
        found = self.find_peak(dtype, engine)
        return None if found is None else found.flops_per_s

    def wider_peak(self, dtype: str, engine: Engine = "matmul") -> Peak | None:
        """The peak of the next wider dtype that has one: what work of a dtype could run as instead.

        After float8 come float16 and bfloat16 (the faster of them), then float32, then float64. None where
        nothing wider is known. It is for messages: no roofline uses it in place of a peak that is not known.
        """
        for equals in _WIDER.get(peak_dtype(dtype), ()):
            found = [peak for name in equals if (peak := self.find_peak(name, engine))]
            if found:
                return max(found, key=lambda peak: peak.flops_per_s)
        return None

    def require_peak(self, dtype: str, engine: Engine = "matmul") -> int:
        """``peak``, or an error that names the dtypes whose peak is known, and the next wider of them."""
        found = self.peak(dtype, engine)
        if found is None:
            known = sorted({p.dtype for p in self.peaks if not p.mode and p.engine in (engine, "vector")})
            listed = f"known are {', '.join(known)}" if known else "none is known"
            wider = self.wider_peak(dtype, engine)
            near = f"; the next wider is {wider.dtype}, {Units().named(wider.flops_per_s)}/s." if wider else "."
            near += "" if peak_dtype(dtype) in PEAK_DTYPES else closest(peak_dtype(dtype), known)
            raise AttnprofError(f"{self.id} has no known {engine} peak for {dtype}: {listed}{near}")
        return found

    @property
    def launch_overhead_s(self) -> float | None:
        """The time in seconds that one more op takes, however small it is, or None where it is not known."""
        return None if self.launch_overhead_ns is None else self.launch_overhead_ns / 10**9

    def ridge(self, dtype: str, engine: Engine = "matmul") -> float | None:
        """The ridge point in FLOP/B: work of less arithmetic intensity is bound by the memory."""
        peak = self.peak(dtype, engine)
        if peak is None or not self.bandwidth_bytes_per_s:
            return None
        return peak / self.bandwidth_bytes_per_s
