"""Counting one call of a model, and its backward and optimizer step if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attnprof.api.profile import Profile
from attnprof.api.report import Devices, Report
from attnprof.core.errors import AttnprofError

if TYPE_CHECKING:
    from torch import nn

    from attnprof.capture.layer_times import Step, Told
    from attnprof.capture.loss import Loss
    from attnprof.capture.optimizers import OptimizerLike
    from attnprof.capture.plans import Plan
    from attnprof.saved.loaded import Loaded


def run(
    model: nn.Module | Loaded,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backward: bool = False,
    loss: Loss | None = None,
    optimizer: OptimizerLike | None = None,
    plan: Plan | None = None,
    generate: int | None = None,
    fake: bool = False,
    device: Devices = None,
    strict: bool = False,
    strict_prediction: bool = False,
    memory: bool = True,
    time: bool | int = False,
) -> Report:
    """Count one call of ``model(*args, **kwargs)``, and its backward and optimizer step if asked.

    What :func:`attnprof.load_model` opened is a model too, with the arguments of its file unless others are given.
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

    ``time`` measures how long the layers take: after it was counted, the step runs bare, and then under torch's
    profiler, 5 times each, or as often as ``time`` says. ``report.layer_times`` has the result.

    ``device`` (``"h100-sxm"``, a spec, or several) is what ``report.roofline`` holds the run against.

    Raises :class:`AttnprofError` when there is nothing to differentiate, to step or to time,
    :class:`UnpricedError` under ``strict`` for an op without a formula, and
    :class:`attnprof.analysis.comparison.PredictionError` under ``strict_prediction`` where theory and measurement
    differ; an exception of the model's passes through.
    """
    model, args, kwargs, notes, fake = _opened(model, args, kwargs, fake)
    _check_call(model, args)
    counting = Profile(model, device=device, strict=strict, memory=memory, recount_every=1)
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
        notes=notes,
        time=time,
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
    notes: Sequence[str] = (),
    time: bool | int = False,
    told: Told | None = None,
) -> None:
    """:func:`run` into a profile of yours, which keeps what was counted when the model raises.

    ``notes`` go into the report; ``told`` is called after each step that is run for its time.
    """
    from attnprof.capture import driver, layer_times
    from attnprof.capture.plans import Plan

    _check_call(model, args)
    if plan is not None and not isinstance(plan, Plan):
        raise AttnprofError(f"plan takes an attnprof.Plan, not a {type(plan).__name__}.")
    steps = layer_times.check(time, fake=fake, generate=generate is not None)
    timed = _timed(counting, layer_times.device_of(model), steps, told) if steps else None
    counting._notes.extend(notes)
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
        timed=timed,
    )


def _timed(counting: Profile, device: str, steps: int, told: Told | None) -> Callable[[Step], None]:
    """What times a step that was counted, so often, and puts the result into the profile."""
    from attnprof.capture import layer_times

    def timed(step: Step) -> None:
        counting.is_counted = True
        modules = counting._running("run").modules
        counting._layer_times = layer_times.measure(step, device, modules, steps, told)
        counting._timed_on = layer_times.name_of(device)

    return timed


def _opened(
    model: nn.Module | Loaded, args: Sequence[Any], kwargs: Mapping[str, Any] | None, fake: bool
) -> tuple[nn.Module, Sequence[Any], Mapping[str, Any] | None, tuple[str, ...], bool]:
    """A model from a file with what comes with it: its arguments where none are given, its notes."""
    from attnprof.saved.loaded import Loaded

    if not isinstance(model, Loaded):
        return model, args, kwargs, (), fake
    if not args and not kwargs:
        args, kwargs = model.args, model.kwargs
    return model.model, args, kwargs, model.notes, fake or model.fake


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
