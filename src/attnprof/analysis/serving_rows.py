"""What serving a decoder costs: a step at each batch, and what a device allows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from attnprof.analysis.decoder import Decoder
from attnprof.analysis.decoder_step import Part, total
from attnprof.core.device import DeviceSpec
from attnprof.core.roofline import Attainable
from attnprof.core.tensor import width

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Ceiling:
    """What a device allows, whatever the batch: exact rates in FLOP/s and bytes/s.

    ``turns_at`` is the first batch whose step has an intensity above the ridge point, ``matmuls_turn_at`` the same
    without attention and its cache; None where no batch has. ``most_sequences`` fit beside the weights, None where
    the device's memory is not known. ``square_rows``: so many rows make a d x d matmul alone compute-bound.
    """

    device: DeviceSpec
    peak_flops_per_s: int
    bandwidth_bytes_per_s: int
    turns_at: int | None
    matmuls_turn_at: int | None
    most_sequences: int | None
    square_rows: int | None

    @property
    def ridge(self) -> Fraction:
        """FLOP/B from which on work is bound by the peak."""
        return Fraction(self.peak_flops_per_s, self.bandwidth_bytes_per_s)


@dataclass(frozen=True)
class ServingRow:
    """One step at one batch, on a device if one is given.

    ``new_tokens`` of each sequence go in. ``kv_cache_bytes`` are the keys and values of all sequences after the
    step, ``resident_bytes`` those and all weights.
    """

    batch: int
    new_tokens: int
    parts: tuple[Part, ...]
    kv_cache_bytes: int
    resident_bytes: int
    ceiling: Ceiling | None = None

    @cached_property
    def step(self) -> Part:
        """The sum of the parts."""
        return total(self.parts)

    @property
    def flops(self) -> int:
        """Matmul FLOPs, masked pairs included."""
        return self.step.flops

    @property
    def bytes(self) -> int:
        """What has to move: each weight once, keys and values. Activations are not in it."""
        return self.step.bytes

    @property
    def intensity(self) -> Fraction:
        """FLOPs per byte, exactly."""
        return Fraction(self.flops, self.bytes)

    @property
    def bound(self) -> Literal["compute", "memory"] | None:
        """``compute`` where the intensity is above the ridge point."""
        if self.ceiling is None:
            return None
        return "compute" if self.intensity > self.ceiling.ridge else "memory"

    @cached_property
    def attainable(self) -> Attainable | None:
        """The least time of the parts one after the other, each the longer of arithmetic and traffic."""
        if self.ceiling is None:
            return None
        compute, memory = Fraction(0), Fraction(0)
        for part in self.parts:
            arithmetic = Fraction(part.flops, self.ceiling.peak_flops_per_s)
            traffic = Fraction(part.bytes, self.ceiling.bandwidth_bytes_per_s)
            if arithmetic > traffic:
                compute += arithmetic
            else:
                memory += traffic
        return Attainable(float(compute), float(memory))

    @property
    def overlapped_s(self) -> float | None:
        """The least time if arithmetic and traffic of all parts overlap: what no schedule can go below."""
        if self.ceiling is None:
            return None
        arithmetic = Fraction(self.flops, self.ceiling.peak_flops_per_s)
        return float(max(arithmetic, Fraction(self.bytes, self.ceiling.bandwidth_bytes_per_s)))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of all sequences per second, at most: made by a decode step, read by a prefill."""
        return None if self.attainable is None else self.batch * self.new_tokens / self.attainable.seconds

    @property
    def tokens_per_s_per_sequence(self) -> float | None:
        return None if self.attainable is None else self.new_tokens / self.attainable.seconds

    @property
    def fits(self) -> bool | None:
        """Whether weights and cache fit the device; None where that is not known."""
        if self.ceiling is None or self.ceiling.device.capacity_bytes is None:
            return None
        return self.resident_bytes <= self.ceiling.device.capacity_bytes


@dataclass(frozen=True)
class Serving:
    """A model served in one dtype: ``new_tokens`` of each sequence against ``keys``, a row per device and batch.

    ``intensity_limit`` is what the intensity tends to as the batch grows, ``attention_intensity`` that of attention
    over its cache alone, at any batch.
    """

    model: Decoder
    phase: Phase
    new_tokens: int
    keys: int
    dtype: str
    rows: tuple[ServingRow, ...]
    ceilings: tuple[Ceiling, ...]
    intensity_limit: Fraction
    attention_intensity: Fraction
    notes: tuple[str, ...] = ()

    @property
    def item_bytes(self) -> int:
        return width(self.dtype)

    @property
    def weight_bytes(self) -> int:
        """All parameters."""
        return self.model.parameters * self.item_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """What a token adds to the cache of its sequence, while no window is full."""
        return self.model.cached_numbers(1) * self.item_bytes

    @property
    def kv_bytes_per_sequence(self) -> int:
        """The cache of one sequence of ``keys`` tokens."""
        return self.model.cached_numbers(self.keys) * self.item_bytes
