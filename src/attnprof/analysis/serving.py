"""Serving a decoder, predicted: what prefill and decode steps cost by batch, and what a device makes of them."""
# ruff: noqa: N803, N806 (the symbols are those of formulas)

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, get_args

from attnprof.analysis import decoder_config
from attnprof.analysis.decoder import Decoder
from attnprof.analysis.decoder_step import ATTENTION, Part, parts, total
from attnprof.analysis.matmul_intensity import rows_above
from attnprof.analysis.serving_rows import Ceiling, Phase, Serving, ServingRow
from attnprof.core.device import DeviceSpec, peak_dtype
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import at_most, one_of, positive
from attnprof.core.tensor import width

#: The dtypes that weights and cache can be in.
DTYPES = ("float64", "float32", "float16", "bfloat16", "float8", "int8")


def serving(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    phase: str = "decode",
    batch: int | Iterable[int] = 1,
    kv: int | None = None,
    prompt: int | None = None,
    dtype: str | None = None,
    devices: Sequence[DeviceSpec] = (),
    model_type: str | None = None,
) -> Serving:
    """What serving the model of a config costs: see :func:`attnprof.serving`, which takes devices by name, too."""
    one_of(get_args(Phase), phase=phase)
    batches = _batches(batch)
    if kv is None and (phase == "decode" or prompt is None):
        raise AttnprofError(f"a {phase} step depends on how many tokens are in the cache: give kv, as in kv=4096.")
    if phase == "decode" and prompt is not None:
        raise AttnprofError("a decode step has one new token: prompt is for phase='prefill'.")
    S = prompt if kv is None else kv
    T = 1 if phase == "decode" else (S if prompt is None else prompt)
    assert S is not None
    assert T is not None
    _size(kv=S, prompt=T)
    at_most(kv=S, prompt=T)
    model = decoder_config.read(config, model_type)
    if model.positions is not None and model.positions < S:
        raise AttnprofError(f"the {model.model_type} has {model.positions} positions: kv={S} is more.")
    kind = _dtype(str(dtype or model.dtype or "bfloat16"))
    step = _Step(model, T, S, width(kind))
    ceilings = tuple(_ceiling(spec, kind, step) for spec in devices)
    rows = tuple(step.row(b, ceiling) for ceiling in ceilings or (None,) for b in batches)
    limit = step.limit(step.whole)
    assert limit is not None  # every sequence has a cache of its own
    return Serving(
        model,
        "decode" if phase == "decode" else "prefill",
        T,
        S,
        kind,
        rows,
        ceilings,
        limit,
        Fraction(*step.attention(1)),
        tuple(_notes(model, S, kind, dtype)),
    )


class _Step:
    """A step of a model at any batch."""

    def __init__(self, model: Decoder, T: int, S: int, item_bytes: int) -> None:
        self.model, self.T, self.S, self.item_bytes = model, T, S, item_bytes
        #: A batch of which every expert has some rows.
        self.saturated = max((m.experts for _, layer in model.layers for m in layer.routed), default=1)

    def parts(self, batch: int) -> tuple[Part, ...]:
        return parts(self.model, batch, self.T, self.S, self.item_bytes)

    def row(self, batch: int, ceiling: Ceiling | None) -> ServingRow:
        cache = batch * self.model.cached_numbers(self.S) * self.item_bytes
        resident = cache + self.model.parameters * self.item_bytes
        return ServingRow(batch, self.T, self.parts(batch), cache, resident, ceiling)

    # FLOPs and bytes at a batch

    def whole(self, batch: int) -> tuple[int, int]:
        return _work(self.parts(batch))

    def matmuls(self, batch: int) -> tuple[int, int]:
        """Without attention."""
        return _work(part for part in self.parts(batch) if part.name != ATTENTION)

    def attention(self, batch: int) -> tuple[int, int]:
        return _work(part for part in self.parts(batch) if part.name == ATTENTION)

    # As the batch grows

    def limit(self, work: Callable[[int], tuple[int, int]]) -> Fraction | None:
        """What the intensity tends to, or None where it has no limit.

        FLOPs and bytes are lines in the batch, once it meets all experts.
        """
        (flops, moved), (more_flops, more_moved) = work(self.saturated), work(2 * self.saturated)
        return Fraction(more_flops - flops, more_moved - moved) if more_moved > moved else None

    def turns_at(self, work: Callable[[int], tuple[int, int]], ridge: Fraction) -> int | None:
        """The first batch with an intensity above the ridge; it rises with the batch, so halving finds it."""
        limit = self.limit(work)
        if limit is not None and limit <= ridge:
            return None

        def above(batch: int) -> bool:
            flops, moved = work(batch)
            return flops > ridge * moved

        low, high = 0, 1
        while not above(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if above(middle) else (middle, high)
        return high


def _work(found: Iterable[Part]) -> tuple[int, int]:
    step = total(found)
    return step.flops, step.bytes


def _ceiling(spec: DeviceSpec, dtype: str, step: _Step) -> Ceiling:
    peak, bandwidth = spec.require_peak(dtype), spec.bandwidth_bytes_per_s
    if bandwidth is None:
        raise AttnprofError(f"{spec.id} has no known bandwidth, so nothing is known about memory-bound work on it.")
    for what, rate in (("peak", peak), ("bandwidth", bandwidth)):
        if rate <= 0:
            raise AttnprofError(f"{spec.id} has a {what} of {rate!r}; it must be a positive number.")
    ridge, model = Fraction(peak, bandwidth), step.model
    most, each = None, model.cached_numbers(step.S) * step.item_bytes
    if spec.capacity_bytes is not None and each:
        most = max(0, (spec.capacity_bytes - model.parameters * step.item_bytes) // each)
    return Ceiling(
        spec,
        peak,
        bandwidth,
        step.turns_at(step.whole, ridge),
        step.turns_at(step.matmuls, ridge),
        most,
        rows_above(ridge, model.d, model.d, step.item_bytes),
    )


def _batches(batch: int | Iterable[int]) -> list[int]:
    found: list[Any] = list(batch) if isinstance(batch, Iterable) and not isinstance(batch, str) else [batch]
    if not found:
        raise AttnprofError("no batch was given: name at least one, as in batch=[1, 8, 64].")
    for each in found:
        _size(batch=each)
    return list(dict.fromkeys(found))


def _size(**sizes: Any) -> None:
    """Raise unless every size is a whole number above zero, and none that only a slip of the keyboard makes."""
    positive(**sizes)
    for name, size in sizes.items():
        if size > decoder_config.LARGEST:
            raise AttnprofError(f"{name} can be at most {float(decoder_config.LARGEST):.0e}.")


def _dtype(name: str) -> str:
    found = peak_dtype(name)
    if found not in DTYPES:
        raise AttnprofError(f"dtype must be one of {', '.join(DTYPES)}, not {name!r}.")
    return found


def _notes(model: Decoder, S: int, dtype: str, asked: str | None) -> Iterable[str]:
    """What a reader has to know besides."""
    if asked is None and model.dtype is None:
        yield f"The config names no dtype: {dtype} is taken."
    if model.quantized:
        yield f"The config's quantization is left out: weights are counted in {dtype}."
    if model.longest is not None and model.longest < S:
        yield f"{S:,} tokens are more than the {model.longest:,} that the model was made for."
    if any(layer.routed for _, layer in model.layers):
        yield "Experts: tokens are spread over them as evenly as can be; each expert that is met is read once."
