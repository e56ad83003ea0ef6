"""What a model needs at sizes beyond those it was counted at: :func:`extrapolate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attnprof.analysis.scaling_extrapolation import Extrapolation, beyond, bound_seconds, least_seconds, notes_of
from attnprof.api.report import specs
from attnprof.api.running import fake_tensors, run
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import positive
from attnprof.recovery.scaling import Phase, Quantity, Scaling

if TYPE_CHECKING:
    from attnprof.api.report import Report

__all__ = ["Extrapolation", "extrapolate"]

#: A run with more op calls than this is not made: its formula is all there is.
_MOST_CALLS = 100_000
_QUANTITIES: tuple[Quantity, ...] = ("flops", "matmul", "vector", "bytes", "saved")


def extrapolate(
    scaling: Scaling,
    sizes: Mapping[str, int],
    *,
    build: Callable[..., Any] | str | None = None,
    device: str | DeviceSpec | None = None,
    count: int = 1,
) -> Extrapolation:
    """FLOPs, bytes and saved memory at some sizes, by the recovered formulas, and the least time on so many devices.

    ``sizes`` has a size of each symbol that varied. With ``build``, what the scaling was made from, the model is
    counted at these very sizes as well where that takes no memory and few op calls: the formulas are checked there, and
    the time is that of op after op. Otherwise it is that of the sums, a lower bound. ``count`` devices share the work
    evenly, and what they tell each other takes no time.

    Raises :class:`AttnprofError` for sizes that are missing or none, a device that is not known and a count below one.
    """
    positive(**dict(sizes), count=count)
    missing = [name for name in scaling.symbols if name not in sizes]
    unknown = [name for name in sizes if name not in scaling.symbols]
    if unknown:
        raise AttnprofError(f"{unknown[0]} did not vary; {', '.join(scaling.symbols)} did.")
    if missing:
        raise AttnprofError(f"{', '.join(missing)} varied: give a size of each, as in {missing[0]}=4096.")
    found = specs(device)
    if len(found) > 1:
        raise AttnprofError(f"an extrapolation is for one device, not for {len(found)}.")
    spec = found[0] if found else None
    phase: Phase = "forward" if scaling.phase == "forward" else "all"
    amounts: dict[Quantity, int | None] = {}
    for quantity in _QUANTITIES:
        try:
            amounts[quantity] = scaling.of(quantity, phase).evaluate(**sizes)
        except AttnprofError:
            amounts[quantity] = None  # there is no formula, or none that holds there
    at = _Counted(scaling, build, phase != "forward")
    report, notes = at.report(sizes) if build is not None else (None, [])
    counted, seconds, bound = None, None, False
    if report is not None:
        total = report.total if phase == "all" else report.phases[phase]
        counted = all(
            known in (None, amount)
            for known, amount in ((amounts["matmul"], total.matmul_flops), (amounts["vector"], total.vector_flops))
        )
    split: dict[str, set[str]] = {}
    if spec is not None and build is not None:
        near = report or at.largest()
        for engine, dtype, _ in near.total.split if near else ():
            split.setdefault(engine, set()).add(dtype)
        if report is not None:
            seconds = least_seconds(report, spec, phase, count)
            notes += notes_of(report, spec)
        else:
            seconds, bound = bound_seconds(amounts, split, spec, count), True
    dtypes = tuple(sorted(split.get("matmul", ())))
    outside = tuple(beyond(sizes, scaling.domains))
    return Extrapolation(
        dict(sizes), phase, amounts, outside, counted, spec, count, seconds, bound, dtypes, tuple(notes)
    )


class _Counted:
    """The model that a scaling was made from, counted at single sizes on tensors without memory."""

    def __init__(self, scaling: Scaling, build: Callable[..., Any] | str | None, backward: bool) -> None:
        from attnprof.api.zoo_builds import of_zoo

        names = (*scaling.symbols, *scaling.fixed)
        self._build = of_zoo(build, names) if isinstance(build, str) else build
        self._scaling, self._backward = scaling, backward

    def report(self, sizes: Mapping[str, int]) -> tuple[Report | None, list[str]]:
        """The run at these sizes, or None and why there is none."""
        first, last = self._corner(first=True), self.largest()
        if first is None or last is None:
            return None, []
        grown = len(last.trace) - len(first.trace)
        if grown > 0:
            stretch = max(size / self._scaling.domains[name].last for name, size in sizes.items())
            if len(last.trace) * stretch > _MOST_CALLS:
                return None, ["The number of op calls grows with the sizes: the time is that of the sums alone."]
        try:
            return self._run(sizes), []
        except Exception as error:  # whatever a model may raise at sizes it was not made for
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            return None, [f"The model itself fails at these sizes ({type(error).__name__}: {told})."]

    def largest(self) -> Report | None:
        """The run at the largest sizes that were asked for."""
        return self._corner(first=False)

    def _corner(self, *, first: bool) -> Report | None:
        point = self._scaling.points[0 if first else -1] if self._scaling.points else None
        try:
            return None if point is None else self._run(point.sizes)
        except Exception:  # a model that needs values cannot be run without
            return None

    def _run(self, sizes: Mapping[str, int]) -> Report:
        import torch

        from attnprof.api.counted_points import parts

        with torch.random.fork_rng(devices=[]), fake_tensors():
            assert self._build is not None
            model, args, kwargs = parts(self._build(**sizes, **self._scaling.fixed))
        return run(model, args, kwargs, backward=self._backward, fake=True, memory=False)
