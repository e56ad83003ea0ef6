"""Below the steps of a generation: what prefill and decode take on a device at best, and decode at other batches."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from attnprof.analysis.measured_serving import Batch, StepsOfAKind, kinds, last_decode
from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.core.units import Units, align, durations, intensity, rounded
from attnprof.reports.columns import Column
from attnprof.reports.fitted import fitted
from attnprof.reports.text import printable, wrapped


def lines(report: Report, spec: DeviceSpec, units: Units, width: int) -> list[str]:
    """A row for each kind of step, and sentences on the batch; nothing for a run without a prefill or decode step."""
    roofline = report.roofline_on(spec)
    found = kinds(report, roofline)
    if not found:
        return []
    labels = [kind.name if kind.steps == 1 else f"{kind.name} x{kind.steps}" for kind in found]
    text = fitted(printable(spec.id), labels, _choices(found, units), width)
    peak = None if roofline.ridge is None else roofline.ridge.flops_per_s
    if any(kind.name == "decode" for kind in found):
        text += wrapped(printable(decode_sentence(last_decode(report), spec, peak, units)), width)
    return [*text, ""]


def decode_sentence(batch: Batch | str, spec: DeviceSpec, peak_flops_per_s: int | None, units: Units) -> str:
    """When decode would turn compute-bound, by its last step; or why nobody can say."""
    if isinstance(batch, str):
        return f"At which batch decode turns compute-bound is not known: {batch}."
    weights, each = units.text(batch.weight_bytes, "bytes"), units.text(float(batch.bytes_per_sequence), "bytes")
    start = f"The last decode step, at batch {batch.size:,}, reads {weights} of weights and moves {each} a sequence"
    if peak_flops_per_s is None or not spec.bandwidth_bytes_per_s:
        return f"{start}."
    ridge = Fraction(peak_flops_per_s, spec.bandwidth_bytes_per_s)
    limit = "rises without limit" if batch.limit is None else f"tends to {intensity(float(batch.limit))} FLOP/B"
    turns, at = batch.turns_at(ridge), intensity(float(ridge))
    start += ": if only the weights are shared, decode is compute-bound"
    if turns is None:
        return f"{start} at no batch, as its intensity {limit}, which is not above the ridge of {at}."
    return f"{start} from about batch {turns:,} on; its intensity {limit}, the ridge is at {at}."


def _choices(found: Sequence[StepsOfAKind], units: Units) -> list[list[Column]]:
    """Sets of columns, the fullest first."""
    unit, cells = units.column([kind.cost.matmul_flops for kind in found], "matmul")
    matmul = Column(("matmul", unit), tuple(cells))
    unit, cells = units.column([kind.cost.bytes for kind in found], "bytes")
    moved = Column(("bytes", unit), tuple(cells))
    rate = Column(("", "FLOP/B"), tuple(align([intensity(kind.cost.intensity) for kind in found])))
    words = [kind.attainable.bound or "–" for kind in found]
    bound = Column(("", "bound"), tuple(word.rjust(max(map(len, words))) for word in words))
    unit, cells = durations([kind.attainable.seconds for kind in found])
    time = Column(("at best", unit), tuple(cells))
    rates = align([None if k.tokens_per_s is None else rounded(k.tokens_per_s) for k in found])
    tokens = [Column(("tokens/s", "at most"), tuple(rates))] if any(k.tokens_per_s for k in found) else []
    unit, cells = units.column([kind.cache_bytes for kind in found], "bytes")
    cache = [Column(("KV cache", unit), tuple(cells))] if any(kind.cache_bytes for kind in found) else []
    return [
        [matmul, moved, rate, bound, time, *tokens, *cache],
        [moved, rate, bound, time, *tokens, *cache],
        [rate, bound, time, *tokens],
        [bound, *tokens],
        [bound],
    ]
