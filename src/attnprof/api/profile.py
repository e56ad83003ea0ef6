"""Counting what a program runs: the context that people wrap it in."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from attnprof.analysis.pace import Live, StepWork, calls_of
from attnprof.api.report import Devices, Report, specs
from attnprof.core import sizes
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Trace
from attnprof.costs.pricing import price

if TYPE_CHECKING:
    from torch import nn

    from attnprof.capture.recorder import Recorder
    from attnprof.core.timing import LayerTimes


#: Steps that the pace of the moment is the median of.
_LATEST = 20


class Profile:
    """A context that counts every op inside it; see :func:`profile`.

    Entering it again while it is open does nothing; entering it after it closed goes on counting. What
    another thread does is counted from where that thread enters it too.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        device: Devices = None,
        strict: bool = False,
        memory: bool = True,
        recount_every: int | None = None,
    ) -> None:
        from torch import nn

        if model is not None and not isinstance(model, nn.Module):
            raise AttnprofError(f"profile() takes an nn.Module or nothing, not a {type(model).__name__}.")
        if recount_every is not None:
            sizes.positive(recount_every=recount_every)
        self._devices = specs(device)
        self._recount_every = recount_every
        self._model = model
        self._strict = strict
        self._memory = memory
        self._recorder: Recorder | None = None
        self._lock = threading.Lock()
        self._step_costs: dict[tuple[tuple[int, int], ...], StepWork] = {}
        self._fake = False
        self._notes: list[str] = []
        self.is_counted = False  # all of a run: what comes now is timed
        self._layer_times: LayerTimes | None = None
        self._timed_on = ""

    def __enter__(self) -> Profile:
        from attnprof.capture.recorder import Recorder

        with self._lock:  # threads may enter at once
            if self._recorder is None:
                self._recorder = Recorder(self._model, memory=self._memory, recount_every=self._recount_every)
        self._recorder.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        recorder = self._running("__exit__")
        recorder.__exit__(*error)
        if not recorder.is_open:
            self._model = None  # nothing of the model is kept alive

    def step(self, label: str | None = None, *, tokens: int = 0, samples: int = 0) -> None:
        """Mark the end of one step, of training or of generation, and name it if you like. Optional.

        From the first one on, steps that call the model alike are counted once; the others run bare and are
        timed, see :func:`profile`. Steps with names are all counted, to be seen apart. ``tokens`` and ``samples`` are
        how many this step processed: with them :attr:`Report.pace` has a rate.
        """
        if type(tokens) is not int or type(samples) is not int or tokens < 0 or samples < 0:
            raise AttnprofError(f"step(tokens={tokens!r}, samples={samples!r}): both are whole numbers, 0 or more.")
        self._running("step").step(label, tokens=tokens, samples=samples)

    def recount(self) -> None:
        """Count the step that comes next, and those like it anew: something that no call shows has changed.

        Such as layers that were frozen or unfrozen, or a flag that the model looks at.
        """
        self._running("recount").recount()

    def live(self) -> Live | None:
        """How fast the last steps were, for a progress bar; None before a step was timed.

        The median of the last 20 steps like the last one, held against the first device of the profile.
        """
        recorder = self._running("live")
        found = None if recorder.stepping is None else recorder.stepping.live(_LATEST)
        if found is None:
            return None
        kind, latest_ns = found
        work = self._step_costs.get(kind.pieces)
        if work is None:  # priced once for each step that was counted
            trace = recorder.ops()
            work = StepWork.of(calls_of(kind.pieces, trace), trace, lambda i: price(trace.signatures[i]))
            self._step_costs[kind.pieces] = work
        return Live.of(work, latest_ns, self._devices[0] if self._devices else None)

    def restart(self, model: nn.Module | None = None) -> None:
        """Forget what was counted so far: the next time the context is entered, counting begins anew."""
        if self._recorder is not None and self._recorder.is_open:
            raise AttnprofError("restart() belongs outside the context: leave it before.")
        self._recorder, self._model = None, model

    def unseen(self) -> AbstractContextManager[None]:
        """Ops inside this context are not counted."""
        return self._running("unseen").unseen()

    def _running(self, method: str) -> Recorder:
        if self._recorder is None:
            raise AttnprofError(f"{method}() belongs inside the context: `with attnprof.profile(model) as prof: ...`.")
        return self._recorder

    @property
    def has_begun(self) -> bool:
        """Whether the context was entered, and so whether there is a :attr:`trace`."""
        return self._recorder is not None

    @property
    def trace(self) -> Trace:
        """What was seen so far, unpriced."""
        trace = self._running("report").trace()
        trace.meta["fake"] = self._fake
        trace.notes.extend(self._notes)
        if self._layer_times is not None:
            trace.layer_times = self._layer_times
            trace.meta["timed_on"] = self._timed_on
        return trace

    def report(self, device: Devices = None) -> Report:
        """What was counted so far; also inside the context, and after an exception ended it.

        ``device`` (``"h100-sxm"``, a spec, or several) is what it is held against; by default the profile's own.
        Raises :class:`UnpricedError` under ``strict`` when an op has no formula.
        """
        report = Report(self.trace)
        report.devices = self._devices if device is None else specs(device)
        if self._strict:
            report.require_priced()
        return report


def profile(
    model: nn.Module | None = None,
    *,
    device: Devices = None,
    strict: bool = False,
    memory: bool = True,
    recount_every: int | None = None,
) -> Profile:
    """Count everything that runs inside ``with attnprof.profile(model) as prof: ...``.

    ``model`` gives the names of the table; without one, modules are named as they first run. Nothing is
    printed and nothing is changed: outputs, gradients and random numbers are those of the bare run. With
    ``memory=False`` storages are not followed, which takes less time, and ``report.memory`` is None.

    Where the program marks its steps (``prof.step()``) and ``model`` is given, a step whose calls of the model
    are new is counted. Every other one runs bare, is timed, and its counts are those of the step like it: the
    report's totals are of all steps. Two steps are alike when they call the model with tensors of the same
    shapes, in the same modes, and step the same optimizers, in the same order. ``recount_every=100`` counts
    every hundredth of them again, for models whose work depends on the values in their tensors (routing);
    ``recount_every=1`` counts every step.

    ``device`` is what the time is held against: a name (``"h100-sxm"``), an :func:`attnprof.device`, or several.
    """
    return Profile(model, device=device, strict=strict, memory=memory, recount_every=recount_every)
