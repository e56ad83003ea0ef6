"""Other counters run on the same model, and their numbers beside a report's: :func:`crosscheck`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprof.analysis.crosscheck import checked
from attnprof.api.report import Report
from attnprof.api.running import run
from attnprof.core.crosscheck import Crosscheck, Reading
from attnprof.core.errors import AttnprofError, closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from attnprof.capture.driver import Training
    from attnprof.capture.plans import Plan

#: The counters there are, by name, with what each is called.
TOOLS = {"fvcore": "FlopCountAnalysis of fvcore", "torch": "FlopCounterMode of torch"}


def parse_tools(tools: str | Iterable[str]) -> tuple[str, ...]:
    """The counters named, each once: ``"fvcore,torch"`` or a list; :class:`AttnprofError` for one that is not known."""
    names = [name.strip() for name in (tools.split(",") if isinstance(tools, str) else tools)]
    for name in names:
        if name not in TOOLS:
            raise AttnprofError(
                f'no counter "{name}" to cross-check with: use {", ".join(TOOLS)}.{closest(name, TOOLS)}'
            )
    if not names:
        raise AttnprofError(f"a cross-check needs a counter: {', '.join(TOOLS)}.")
    return tuple(dict.fromkeys(names))


def crosscheck(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    tools: str | Iterable[str] = tuple(TOOLS),
    **how: Any,
) -> Report:
    """Count ``model(*args, **kwargs)`` with attnprof and with other counters; ``report.crosschecks`` has the result.

    ``tools`` are ``"fvcore"`` and ``"torch"``; the other arguments are those of :func:`attnprof.run`. fvcore counts
    forwards only. Each counter runs the model again, from the same random state, and leaves it as it was. A counter
    that cannot count the model has a ``problem`` instead of numbers. Of every module, the causes of a
    :class:`attnprof.core.crosscheck.CheckedModule` add up to the difference.

    Raises :class:`AttnprofError` for a counter that is not known, and what :func:`attnprof.run` raises.
    """
    from attnprof.capture.driver import Training
    from attnprof.capture.plans import Plan

    names = parse_tools(tools)
    report = run(model, args, kwargs, **how)
    request = Rerun(
        model,
        args,
        kwargs or {},
        Training(how.get("backward", False), how.get("loss"), how.get("optimizer")),
        how.get("plan") or Plan(),
        how.get("fake", False),
        how.get("generate"),
    )
    report.crosschecks = crosschecks(report, names, request)
    return report


@dataclass(frozen=True, slots=True)
class Rerun:
    """A run that was counted, to be made again under another counter."""

    model: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    training: Training
    plan: Plan
    fake: bool = False
    generate: int | None = None


def crosschecks(report: Report, tools: Iterable[str], request: Rerun) -> tuple[Crosscheck, ...]:
    """The report of a run held against other counters, which make the run again, one after the other."""
    return tuple(_CHECKS[tool](report, request) for tool in tools)


def _torch(report: Report, request: Rerun) -> Crosscheck:
    from attnprof.capture.driver import drive
    from attnprof.counters.flop_counter_mode import TorchCounter
    from attnprof.counters.torch_formulas import flops_of

    counter = TorchCounter(request.model)

    def count() -> Reading:
        drive(
            counter,
            request.model,
            request.args,
            request.kwargs,
            training=request.training,
            plan=request.plan,
            fake=request.fake,
            notes=[],
            generate=request.generate,
        )
        return counter.reading()

    reading = _attempted("torch", count)
    formulas = () if reading.problem else [flops_of(op) for op in report.trace.signatures]
    return checked(report, reading, formulas)


def _fvcore(report: Report, request: Rerun) -> Crosscheck:
    if request.fake:  # torch.jit may end the process: sizes become tensors without values
        return _not_counted(report, "fvcore", "it needs a torch.jit trace, and fake tensors cannot be traced")
    if request.generate is not None:
        return _not_counted(report, "fvcore", "it traces one call of a model, and generating takes many")
    return checked(report, _attempted("fvcore", lambda: _traced(request)))


def _traced(request: Rerun) -> Reading:
    import torch

    from attnprof.capture.modules import unwrap
    from attnprof.capture.signatures import Signatures
    from attnprof.capture.unchanged import unchanged
    from attnprof.counters import fvcore_analysis

    signatures = Signatures()

    def describe(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        return signatures.known[signatures.id_of(signatures.plan(func), args, kwargs, out)]

    args = (request.args,) if isinstance(request.args, torch.Tensor) else tuple(request.args)
    values: Any = (args, dict(request.kwargs))
    with ExitStack() as stack:
        values, _ = stack.enter_context(request.plan.applied(request.model, *values))
        if request.training.differentiates:
            stack.enter_context(torch.enable_grad())
        stack.enter_context(unchanged(request.model, values))
        stack.enter_context(request.plan.autocasting(request.model))
        return fvcore_analysis.count(unwrap(request.model), values[0], values[1], describe)


_CHECKS: dict[str, Callable[[Report, Rerun], Crosscheck]] = {"fvcore": _fvcore, "torch": _torch}


def _attempted(tool: str, count: Callable[[], Reading]) -> Reading:
    """What a counter says, or why it says nothing: its failure is no failure of the run."""
    try:
        with _uncompiled():
            return count()
    except Exception as error:  # whatever another tool raises on a model that it was not made for
        return Reading(tool, TOOLS[tool], problem=_told(error))


def _not_counted(report: Report, tool: str, why: str) -> Crosscheck:
    return checked(report, Reading(tool, TOOLS[tool], problem=f"{why}."))


def _told(error: Exception) -> str:
    """An exception as one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".:") if lines else ""
    return f"it raised {type(error).__name__}{': ' if first else ''}{first}."


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Compiled code runs as plain Python, and nothing is compiled for another counter's sake."""
    import sys

    import torch

    with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
        yield
