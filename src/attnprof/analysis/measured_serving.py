"""Generation that was run, held against a device: prefill and decode as kinds of steps, and decode at other batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from attnprof.analysis.steps import step_ends
from attnprof.core.cost import Cost
from attnprof.core.roofline import Attainable, StepPoint
from attnprof.core.signature import OpSignature
from attnprof.core.trace import ParameterRecord

if TYPE_CHECKING:
    from attnprof.analysis.report import Report
    from attnprof.analysis.roofline import Roofline

_KIND = re.compile(r"(prefill|decode)( \d+)?")
_IDS = re.compile(r"int(?:32|64)\[(\d+),(\d+)\]")
#: Ops that read rows of a parameter, and not all of it.
_ROWS = ("aten.embedding", "aten.index_select", "aten.index", "aten.gather")
#: Ops that read so many of a parameter's matrices as the routing says.
_ROUTED = ("aten._grouped_mm", "aten._scaled_grouped_mm")


@dataclass(frozen=True, slots=True)
class StepsOfAKind:
    """All prefills of a run, or all its decode steps, on a device.

    ``tokens`` were read by the prefill, or made by the decode steps, of all sequences together; None where the
    inputs do not say. ``attainable`` is the sum over the ops. ``cache_bytes`` is the cache after the last of them.
    """

    name: str
    steps: int
    cost: Cost
    attainable: Attainable
    tokens: int | None = None
    cache_bytes: int | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of all sequences per second, at most."""
        seconds = self.attainable.seconds
        return None if self.tokens is None or not seconds else self.tokens / seconds


@dataclass(frozen=True, slots=True)
class Batch:
    """A decode step at the batch it was measured at, and what follows for others.

    Of its ``bytes`` of traffic ``weight_bytes`` are parameters, read once however many sequences there are; the
    others, and the ``flops``, are taken to grow with the batch.
    """

    size: int
    flops: int
    bytes: int
    weight_bytes: int

    @property
    def bytes_per_sequence(self) -> Fraction:
        return Fraction(self.bytes - self.weight_bytes, self.size)

    @property
    def limit(self) -> Fraction | None:
        """What the intensity tends to as the batch grows; None where it has no limit."""
        rest = self.bytes - self.weight_bytes
        return Fraction(self.flops, rest) if rest else None

    def turns_at(self, ridge: Fraction) -> int | None:
        """The first batch with an intensity above the ridge point, None where no batch has one."""
        gained = Fraction(self.flops, self.size) - ridge * self.bytes_per_sequence
        return None if gained <= 0 else int(ridge * self.weight_bytes // gained) + 1


def kinds(report: Report, roofline: Roofline) -> list[StepsOfAKind]:
    """Prefill and decode, where the steps of the run have these names."""
    found: dict[str, list[tuple[StepPoint, int | None]]] = {}
    for point, step in zip(roofline.steps, report.steps, strict=True):
        named = _KIND.fullmatch(point.label)
        if named:
            found.setdefault(named[1], []).append((point, step.cache_bytes))
    shape = _ids(report)
    made = []
    for name, steps in found.items():
        cost = Cost.sum(point.total.cost for point, _ in steps)
        attainable = sum((point.total.attainable for point, _ in steps), Attainable())
        each = None if shape is None else shape[0] * (shape[1] if name == "prefill" else 1)
        tokens = None if each is None else each * len(steps)
        made.append(StepsOfAKind(name, len(steps), cost, attainable, tokens, steps[-1][1]))
    return made


def last_decode(report: Report) -> Batch | str:
    """The last decode step, which has the longest cache; or why nothing follows from it for other batches."""
    labels = [step.label for step in report.steps]
    last = max((i for i, label in enumerate(labels) if _KIND.fullmatch(label) and label != "prefill"), default=None)
    if last is None:
        return "there is no decode step"
    shape = _ids(report)
    if shape is None:
        return "the inputs do not say how many sequences there are"
    ends = [0, *step_ends(report.trace)]
    trace = report.trace
    weight_bytes = 0
    for (signature, scope), calls in trace.between(ends[last], ends[last + 1]).items():
        op = trace.signatures[signature]
        if op.packet in _ROUTED:
            return "how many experts a step reads depends on its batch"
        record = trace.modules[trace.scopes[scope].module]
        weight_bytes += calls * _weight_bytes(op, record.parameters)
    cost = report.steps[last].cost
    if not cost.flops or weight_bytes > cost.bytes:
        return "its traffic does not hold its weights"
    return Batch(shape[0], cost.flops, cost.bytes, weight_bytes)


def _weight_bytes(op: OpSignature, parameters: Sequence[ParameterRecord]) -> int:
    """The bytes of those inputs of an op that are parameters of its module, by shape and dtype: each for one input."""
    if op.packet in _ROWS:
        return 0
    inputs = list(op.inputs)
    found = 0
    for parameter in {p.ident: p for p in parameters}.values():
        shapes = (parameter.shape, parameter.shape[::-1])
        for tensor in reversed(inputs):  # most ops take the input first
            if tensor.shape in shapes and tensor.dtype == parameter.dtype:
                found += tensor.bytes
                inputs.remove(tensor)
                break
    return found


def _ids(report: Report) -> tuple[int, int] | None:
    """Batch and length of the prompt: the ids of the model's first call."""
    for call in report.root.record.calls:
        for tensor in call:
            ids = None if tensor.startswith("->") else _IDS.search(tensor)
            if ids:
                return int(ids[1]), int(ids[2])
    return None
