"""The public surface: wrap code in :func:`profile`, or count one call with :func:`run`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.analysis.report import Report as _Report
from attnprof.core import trace_json
from attnprof.core.errors import AttnprofError, TraceFormatError
from attnprof.core.trace import Trace
from attnprof.costs.pricing import with_user_prices
from attnprof.reports.files import write_text

if TYPE_CHECKING:
    from torch import nn

    from attnprof.capture.loss import Loss
    from attnprof.capture.optimizers import OptimizerLike
    from attnprof.capture.plans import Plan
    from attnprof.capture.recorder import Recorder


class Report(_Report):
    """What a run cost, with the forms people read it in. ``print(report)`` shows the table."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the trace, with the prices of your own formulas, as JSON; :func:`load` reads it again."""
        trace = replace(self.trace, signatures=[with_user_prices(op) for op in self.trace.signatures])
        write_text(Path(path), trace_json.dumps(trace) + "\n")

    def to_table(self, **options: Any) -> str:
        """The table as text; options as :func:`attnprof.reports.table.render`."""
        from attnprof.reports.table import render

        return render(self, **options)

    def to_markdown(self, **options: Any) -> str:
        """The layer table as Markdown; options as those of :meth:`to_table`."""
        from attnprof.reports.formats import to_markdown
        from attnprof.reports.view import View

        return to_markdown(self, View.of(**options))

    def to_latex(self, **options: Any) -> str:
        """The layer table as a LaTeX ``tabular``; options as those of :meth:`to_table`."""
        from attnprof.reports.formats import to_latex
        from attnprof.reports.view import View

        return to_latex(self, View.of(**options))

    def to_csv(self) -> str:
        """One line per module with plain integers."""
        from attnprof.reports.formats import to_csv

        return to_csv(self)

    def to_json(self) -> str:
        """Every number as JSON. To read a run again, :meth:`save` it instead."""
        from attnprof.reports.formats import to_json

        return to_json(self)

    def __str__(self) -> str:
        return self.to_table()


def load(path: str | os.PathLike[str]) -> Report:
    """The report of a trace that :meth:`Report.save` wrote. Needs neither the model nor torch.

    Raises :class:`TraceFormatError` when the file is missing, damaged, not a trace or of a newer schema.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TraceFormatError(f"{os.fspath(path)} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFormatError(f"{os.fspath(path)} cannot be read: {error}.") from None
    return Report(trace_json.loads(text, os.fspath(path)))


class Profile:
    """A context that counts every op inside it; see :func:`profile`.

    Entering it again while it is open does nothing; entering it after it closed goes on counting. What
    another thread does is counted from where that thread enters it too.
    """

    def __init__(self, model: nn.Module | None = None, *, strict: bool = False, memory: bool = True) -> None:
        from torch import nn

        if model is not None and not isinstance(model, nn.Module):
            raise AttnprofError(f"profile() takes an nn.Module or nothing, not a {type(model).__name__}.")
        self._model = model
        self._strict = strict
        self._memory = memory
        self._recorder: Recorder | None = None
        self._lock = threading.Lock()
        self._fake = False
        self._notes: list[str] = []

    def __enter__(self) -> Profile:
        from attnprof.capture.recorder import Recorder

        with self._lock:  # threads may enter at once
            if self._recorder is None:
                self._recorder = Recorder(self._model, memory=self._memory)
        self._recorder.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        recorder = self._running("__exit__")
        recorder.__exit__(*error)
        if not recorder.is_open:
            self._model = None  # nothing of the model is kept alive

    def step(self, label: str | None = None) -> None:
        """Mark the end of one step, of training or of generation, and name it if you like. Optional."""
        self._running("step").step(label)

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
        return trace

    def report(self) -> Report:
        """What was counted so far; also inside the context, and after an exception ended it.

        Raises :class:`UnpricedError` under ``strict`` when an op has no formula.
        """
        report = Report(self.trace)
        if self._strict:
            report.require_priced()
        return report


def profile(model: nn.Module | None = None, *, strict: bool = False, memory: bool = True) -> Profile:
    """Count everything that runs inside ``with attnprof.profile(model) as prof: ...``.

    ``model`` gives the names of the table; without one, modules are named as they first run. Nothing is
    printed and nothing is changed: outputs, gradients and random numbers are those of the bare run. With
    ``memory=False`` storages are not followed, which takes less time, and ``report.memory`` is None.
    """
    return Profile(model, strict=strict, memory=memory)


def run(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backward: bool = False,
    loss: Loss | None = None,
    optimizer: OptimizerLike | None = None,
    plan: Plan | None = None,
    generate: int | None = None,
    fake: bool = False,
    strict: bool = False,
    strict_prediction: bool = False,
    memory: bool = True,
) -> Report:
    """Count one call of ``model(*args, **kwargs)``, and its backward and optimizer step if asked.

    The model is left as it was: parameters' ``.grad``, buffers, the random state and, after a step of an
    optimizer, the parameters are put back. With ``fake`` nothing is computed or allocated.

    The backward starts from ``loss(output)``, a scalar tensor whose ops are counted; without a ``loss``, from
    the output's ``.loss``, or else from the sum of all floating outputs that need a gradient, in structures and
    dataclasses too; that sum is not counted. The output itself is let go then. ``optimizer`` is a name as on
    the command line (``"adamw"``, ``"adamw:fused"``, ``"sgd,momentum=0.9"``), a ``torch.optim.Optimizer`` or
    several, or a callable that makes one of the trainable parameters. Both imply ``backward``.

    An optimizer is counted in its steady state: a whole step, which creates that state, runs before and is not
    counted, and everything is put back, the state of an optimizer of yours included. On real tensors this
    takes the memory of a copy of the parameters, the buffers and that state, which no report mentions.

    ``plan`` says how to run the step: in another dtype, under autocast, with activation checkpointing, with
    frozen parameters. See :class:`attnprof.Plan`. ``memory=False`` leaves memory out of the report.

    ``generate`` makes so many tokens after the prompt in the arguments, greedily, without gradients and in
    evaluation mode: a prefill, then one decode step for each further token. ``report.steps`` has each apart.

    Raises :class:`AttnprofError` when there is nothing to differentiate or to step, :class:`UnpricedError` under
    ``strict`` for an op without a formula, and :class:`attnprof.analysis.comparison.PredictionError` under
    ``strict_prediction`` where theory and measurement differ; an exception of the model's passes through.
    """
    _check_call(model, args)
    counting = Profile(model, strict=strict, memory=memory)
    drive(
        counting,
        model,
        args,
        kwargs,
        backward=backward,
        loss=loss,
        optimizer=optimizer,
        plan=plan,
        generate=generate,
        fake=fake,
    )
    report = counting.report()
    if strict_prediction:
        report.theory.require_exact()
    return report


def drive(
    counting: Profile,
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backward: bool = False,
    loss: Loss | None = None,
    optimizer: OptimizerLike | None = None,
    plan: Plan | None = None,
    generate: int | None = None,
    fake: bool = False,
) -> None:
    """:func:`run` into a profile of yours, which keeps what was counted when the model raises."""
    from attnprof.capture import driver
    from attnprof.capture.plans import Plan

    _check_call(model, args)
    if plan is not None and not isinstance(plan, Plan):
        raise AttnprofError(f"plan takes an attnprof.Plan, not a {type(plan).__name__}.")
    if fake:
        counting._fake = True
        counting._notes.append(_fake_note(kwargs or {}))
    driver.drive(
        counting,
        model,
        args,
        kwargs or {},
        training=driver.Training(backward, loss, optimizer),
        plan=plan or Plan(),
        fake=fake,
        notes=counting._notes,
        generate=generate,
    )


def _check_call(model: object, args: object) -> None:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise AttnprofError(f"run() takes an nn.Module, not a {type(model).__name__}.")
    if isinstance(args, str | Mapping):
        raise AttnprofError(
            f"args must be a tuple of positional arguments, not a {type(args).__name__}; named ones go into kwargs."
        )


def _fake_note(kwargs: Mapping[str, Any]) -> str:
    masks = [name for name in kwargs if "mask" in name]
    which = f"with {', '.join(masks)}" if masks else "without a mask argument"
    return (
        f"Counted on fake tensors, {which}. They have no values: a model that looks at some (is this mask all ones?) "
        "may take another path than in a real run, with the same matmul FLOPs but other vector FLOPs and bytes."
    )


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Build a model of any size without memory: every tensor made inside is fake."""
    from attnprof.capture.fake import building

    with building():
        yield
