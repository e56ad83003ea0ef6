"""Will it fit: the peak of a run against a device, and what other ways to run it would hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from attnprof import api
from attnprof.analysis.fit import alternatives, fit
from attnprof.cli.request import Request
from attnprof.cli.target import Target
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.tensor import width
from attnprof.core.units import Units
from attnprof.reports.memory import NOT_TRACKED
from attnprof.reports.text import printable, width_of_terminal, wrapped
from attnprof.reports.view import View

AS_IT_IS, HALVED, CHECKPOINTED, BOTH = "as it is", "bf16", "activation checkpointing", "both"


def verdict(report: api.Report, spec: DeviceSpec, units: Units) -> str:
    """Whether a run fits."""
    if report.memory is None:
        return f"{spec.id}: {NOT_TRACKED}, so whether the run fits is not known."
    if spec.capacity_bytes is None:
        return f"{spec.id}: its memory is not known, so whether the run fits is not known either."
    return fit(report.memory.peak.bytes, spec).sentence(units)


def verdicts(
    report: api.Report,
    specs: Sequence[DeviceSpec],
    view: View,
    request: Request | None = None,
    made: Target | None = None,
) -> Iterator[str]:
    """Whether a run fits; and where runs cost nothing, whether it would in bf16 and with checkpoints.

    The table of several devices says what fits which. The other ways to run are tried where ``request`` and
    ``made``, the run and its model, are given.
    """
    if len(specs) == 1 or view.by == "memory" or report.memory is None:
        for spec in specs:
            yield verdict(report, spec, view.units)
    if report.memory is None or request is None or made is None or not (request.fake and request.differentiates):
        return
    known = [spec for spec in specs if spec.capacity_bytes is not None]
    if not known:
        return
    peaks: list[tuple[str, int]] = [(AS_IT_IS, report.memory.peak.bytes)]
    refused: list[str] = []
    for label, other in _others(report, request, made):
        if label == BOTH and refused:
            continue
        found = _peak(other)
        if isinstance(found, int):
            peaks.append((label, found))
        else:
            refused.append(f"{label}: {found}")
    if len(peaks) + len(refused) > 1:
        yield ""
        yield from alternatives(peaks, known[0], view.units) if len(known) == 1 else where(peaks, known, view.units)
        yield from refused


def as_stepped(optimizer: str, specs: Sequence[DeviceSpec], fake: bool) -> tuple[str, str]:
    """The optimizer as PyTorch steps it by default on the devices, and the sentence that says so.

    On GPUs that is ``foreach``, on a CPU a loop over the parameters. A run on real tensors stays what it is,
    and the sentence says what differs.
    """
    from attnprof.capture import optimizers

    named = [spec.id for spec in specs if spec.steps_by_foreach]
    foreach = optimizers.as_foreach(optimizer) if named else None
    if foreach is None:
        return optimizer, ""
    on = f"PyTorch's default on {', '.join(named)}, with the temporaries of all parameters at once"
    if fake:
        loop = foreach.replace(":foreach", ":loop", 1)
        return foreach, f"The optimizer steps as foreach: {on}. --optimizer {loop} is the CPU's loop over them."
    return optimizer, f"The optimizer stepped as the CPU's loop. --optimizer {foreach} is {on}."


def where(peaks: Sequence[tuple[str, int]], specs: Sequence[DeviceSpec], units: Units) -> list[str]:
    """Aligned lines, one per way to run: what it is called, its peak, and which devices that fits."""
    needs = [units.text(peak, "bytes") for _, peak in peaks]
    longest, widest = (max(map(len, column)) for column in ([label for label, _ in peaks], needs))
    lines = []
    for (label, peak), need in zip(peaks, needs, strict=True):
        found = [fit(peak, spec) for spec in specs]
        fitting = [f.device.id for f in found if f.fits]
        short = [f"{f.device.id} ({units.text(-f.margin, 'bytes')} short)" for f in found if not f.fits]
        parts = [f"fits {', '.join(fitting)}"] if fitting else []
        parts += [f"not {', '.join(short)}"] if short else []
        lines.append(f"{label:<{longest}}  {need:>{widest}}  {'; '.join(parts)}")
    return lines


def show(lines: Iterable[str]) -> None:
    """Print lines below a table, each once it is known, what is already known included."""
    for position, line in enumerate(lines):
        if position == 0 and line:
            print()
        print("\n".join(wrapped(printable(line), width_of_terminal())), flush=True)


def _others(report: api.Report, request: Request, made: Target) -> Iterator[tuple[str, Request]]:
    """The same run under other plans, those left out that it was made under."""
    halved = replace(request.plan, dtype="bf16", autocast=None)
    wide = any(
        p.dtype.startswith("float") and width(p.dtype) > 2 for record in report.trace.modules for p in record.parameters
    )
    already = any(getattr(module, "gradient_checkpointing", False) for module in made.model.modules())
    keeps_all = not (request.plan.checkpoint or already)
    if wide:
        yield HALVED, replace(request, plan=halved)
    if keeps_all:
        yield CHECKPOINTED, replace(request, plan=replace(request.plan, checkpoint=True))
    if wide and keeps_all:
        yield BOTH, replace(request, plan=replace(halved, checkpoint=True))


def _peak(request: Request) -> int | str:
    """The peak of a run, or in words why there is none."""
    made = request.build()
    counting = api.profile(made.model, recount_every=1)
    try:
        request.drive(counting, made)
    except AttnprofError as error:
        return str(error)
    except Exception as error:  # whatever a model may raise when it is run as nobody meant it to be
        first = (str(error).strip().splitlines() or ["no more is known"])[0]
        return f"the model raised {type(error).__name__}: {first}"
    memory = counting.report().memory
    assert memory is not None
    return memory.peak.bytes
