"""FlashAttention's traffic on a device: tiles in the on-chip memory of one of its units, against scores written out."""
# ruff: noqa: N803, N806 (the symbols are those of formulas)

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from attnprof.core.device import DeviceSpec, peak_dtype
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import one_of, positive
from attnprof.core.tensor import width

_LARGEST = 10**12
#: The dtypes that queries, keys and values can be in.
DTYPES = ("float64", "float32", "float16", "bfloat16", "float8")


@dataclass(frozen=True)
class AttentionIO:
    """The core of attention, forward, over T tokens in ``heads`` heads of width ``head_dim`` (all samples together).

    ``on_chip_elements`` is M, what the on-chip memory of one unit holds. ``explicit_bytes``: scores and
    probabilities written and read, 4 T² + 4 T dh elements per head. ``tiled_bytes``: Algorithm 1 of Dao et al.,
    2022, 2 T dh + ceil(T / Bc) (3 T dh + 4 T) elements with Bc = ceil(M / 4 dh); None outside dh <= M <= T dh.
    ``compulsory_bytes``: Q, K, V and the output, once each. ``flops`` are those of the two matmuls, 4 T² dh a head.
    """

    device: DeviceSpec
    dtype: str
    tokens: int
    head_dim: int
    heads: int
    on_chip_elements: int
    flops: int
    explicit_bytes: int
    tiled_bytes: int | None
    peak_flops_per_s: int
    bandwidth_bytes_per_s: int

    @property
    def key_block(self) -> int:
        """Bc: how many keys are on chip at a time."""
        return -(-self.on_chip_elements // (4 * self.head_dim))

    @property
    def compulsory_bytes(self) -> int:
        return 4 * self.heads * self.tokens * self.head_dim * width(self.dtype)

    @property
    def valid_from(self) -> int:
        """The fewest tokens the tile formula is for: M <= T dh."""
        return -(-self.on_chip_elements // self.head_dim)

    @property
    def gain(self) -> Fraction | None:
        """How many times the tiled traffic the explicit one is; at most 1 where tiling moves no less."""
        return None if self.tiled_bytes is None else Fraction(self.explicit_bytes, self.tiled_bytes)

    @property
    def ridge(self) -> Fraction:
        return Fraction(self.peak_flops_per_s, self.bandwidth_bytes_per_s)

    @property
    def explicit_ratio(self) -> Fraction:
        """The time of the explicit traffic over that of the matmuls: above 1, attention waits for memory."""
        return self.ridge * Fraction(self.explicit_bytes, self.flops)

    @property
    def tiled_ratio(self) -> Fraction | None:
        """The same of the tiled traffic."""
        return None if self.tiled_bytes is None else self.ridge * Fraction(self.tiled_bytes, self.flops)


def attention_io(
    *,
    T: int,
    dh: int,
    device: DeviceSpec,
    dtype: str = "bfloat16",
    B: int = 1,
    H: int = 1,
    M: int | None = None,
) -> AttentionIO:
    """What attention moves on a device, tile by tile or with its scores written out: :func:`attnprof.attention_io`."""
    from attnprof.analytic import predict

    given = {"T": T, "dh": dh, "B": B, "H": H, **({} if M is None else {"M": M})}
    positive(**given)
    for size, value in given.items():
        if value > _LARGEST:
            raise AttnprofError(f"{size} can be at most {float(_LARGEST):.0e}.")
    name = peak_dtype(str(dtype))
    one_of(DTYPES, dtype=name)
    if M is None:
        if device.on_chip_bytes_per_unit is None:
            raise AttnprofError(f"{device.id} has no known on-chip memory: give M, the elements that fit on chip.")
        M = device.on_chip_bytes_per_unit // width(name)
    if device.bandwidth_bytes_per_s is None:
        raise AttnprofError(f"{device.id} has no known bandwidth, so nothing is known about traffic on it.")
    sizes: dict[str, Any] = {"B": B, "H": H, "T": T, "dh": dh, "e": width(name)}
    if dh > M:
        raise AttnprofError(f"M must be at least dh, or no row fits on chip: M={M} is below dh={dh}.")

    def moved(formula: str, **more: Any) -> int:
        theory = predict(formula, **sizes, **more)
        return theory.evaluate("read_bytes", "forward") + theory.evaluate("write_bytes", "forward")

    return AttentionIO(
        device,
        name,
        T,
        dh,
        B * H,
        M,
        4 * B * H * T * T * dh,
        moved("attention-io"),
        moved("flash-io", M=M) if T * dh >= M else None,
        device.require_peak(name),
        device.bandwidth_bytes_per_s,
    )
