"""Will it fit: the peak of a run against a device, and what other ways to run it would hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from attnprof import api
from attnprof.analysis.fit import alternatives, fit
from attnprof.cli.request import Request
from attnprof.cli.target import Target
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.tensor import width
from attnprof.core.units import Units
from attnprof.hardware import catalog
from attnprof.reports.memory import NOT_TRACKED
from attnprof.reports.text import printable, width_of_terminal, wrapped

AS_IT_IS, HALVED, CHECKPOINTED, BOTH = "as it is", "bf16", "activation checkpointing", "both"


def device(name: str) -> DeviceSpec:
    """The device of a name; :class:`AttnprofError` when it is not known, or its memory is not."""
    spec = catalog.device(name)
    fit(0, spec)
    return spec


def verdict(report: api.Report, spec: DeviceSpec, units: Units) -> str:
    """Whether a run fits."""
    if report.memory is None:
        return f"{spec.id}: {NOT_TRACKED}, so whether the run fits is not known."
    return fit(report.memory.peak.bytes, spec).sentence(units)


def verdicts(report: api.Report, spec: DeviceSpec, request: Request, made: Target, units: Units) -> Iterator[str]:
    """Whether a run fits; and where runs cost nothing, whether it would in bf16 and with checkpoints."""
    yield verdict(report, spec, units)
    if report.memory is None or not (request.fake and request.differentiates):
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
        yield from alternatives(peaks, spec, units)
        yield from refused


def show(lines: Iterable[str]) -> None:
    """Print lines below a table, each once it is known."""
    print()
    for line in lines:
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
    counting = api.profile(made.model)
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
