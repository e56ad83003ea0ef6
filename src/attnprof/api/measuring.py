"""The run behind a study: every mechanism at every length, on fake tensors where it needs no values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import lcm
from typing import TYPE_CHECKING, Any

from attnprof.analysis.study import Measures, crossings
from attnprof.api import fake_tensors, run
from attnprof.api.competitors import Competitor
from attnprof.api.study import Study
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError

if TYPE_CHECKING:
    from attnprof.api import Report
    from attnprof.capture.plans import Plan

#: Longer sequences have tensors of more elements than a 64-bit number counts.
LONGEST = 10**8


def measured(
    competitors: Sequence[Competitor],
    lengths: Sequence[int],
    settings: Mapping[str, str],
    *,
    batch: int = 1,
    backward: bool = False,
    dtype: str | None = None,
    devices: Sequence[DeviceSpec] = (),
    told: Callable[[str, int], None] = lambda label, length: None,
) -> Study:
    """Every mechanism at every length, and where they cross the first.

    ``settings`` is what the study says it was compared at, beside what it finds itself. ``told`` is called before
    each run with what is run. What cannot be built is an error before anything is run.
    """
    import torch

    from attnprof.capture.plans import Plan

    work = _Work(batch, backward, Plan(dtype=dtype), devices)
    by_label = {c.label: c for c in competitors}
    known: dict[tuple[str, int], Measures] = {}
    steps: dict[str, int] = {}
    for competitor in competitors:
        with fake_tensors():
            module, _ = work.build(competitor, lengths[0])
        steps[competitor.label] = step = lcm(*(getattr(part, "multiple_of", 1) for part in module.modules()))
        for length in lengths:
            if length % step:
                raise AttnprofError(f"{competitor.label} takes lengths that are multiples of {step}, not N={length}.")

    def measure(label: str, length: int) -> Measures:
        if (label, length) not in known:
            told(label, length)
            known[label, length] = work.measure(by_label[label], length)
        return known[label, length]

    for label in by_label:
        for length in lengths:
            measure(label, length)
    ids = tuple(device.id for device in devices)
    found = tuple(crossings(measure, list(by_label), lengths, ids, steps))
    settings = {**settings, "dtype": dtype or "fp32", "phases": "forward + backward" if backward else "forward"}
    settings["torch"] = torch.__version__
    return Study(settings, tuple(by_label), tuple(lengths), known, found, tuple(work.notes()), ids)


class _Work:
    """Runs mechanisms, and remembers what a reader has to know of how."""

    def __init__(self, batch: int, backward: bool, plan: Plan, devices: Sequence[DeviceSpec]) -> None:
        self.batch, self.backward, self.plan, self.devices = batch, backward, plan, devices
        self.real: set[str] = set()
        self.without_peak: set[tuple[str, str, str]] = set()

    def notes(self) -> list[str]:
        """Which mechanisms ran on real tensors, and what takes no time for want of a peak or bandwidth."""
        found = [f"{name} ran on real tensors: it has to look at values." for name in sorted(self.real)]
        found += [
            f"{device} has no known {engine} peak for {dtype}: this arithmetic takes no time here."
            for device, engine, dtype in sorted(self.without_peak)
        ]
        found += [
            f"{device.id} has no known bandwidth: traffic takes no time here."
            for device in self.devices
            if device.bandwidth_bytes_per_s is None
        ]
        return found

    def build(self, competitor: Competitor, length: int) -> tuple[Any, tuple[Any, ...]]:
        """The module and its arguments, which need a gradient where they can."""
        import torch

        from attnprof import zoo

        entry = zoo.find(competitor.name)
        given = dict(competitor.symbols)
        if "N" in entry.symbols:  # a longest length: as long as it has to be
            given.setdefault("N", length)
        module = zoo.build(competitor.name, **given)
        along = {"S": length} if entry.shape.get("T") == 1 else {s: length for s in ("T", "S") if s in entry.shape}
        args = zoo.inputs(competitor.name, **{**given, "B": self.batch, **along})
        with_gradient: Callable[[Any], Any] = torch.Tensor.requires_grad_
        return module, torch.utils._pytree.tree_map_only(_is_floating, with_gradient, args)

    def measure(self, competitor: Competitor, length: int) -> Measures:
        """On fake tensors, or on real ones where the module looks at values."""
        import torch
        from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

        if competitor.label not in self.real:
            with fake_tensors():
                module, args = self.build(competitor, length)
            try:
                return self._measures(run(module, args, backward=self.backward, plan=self.plan, fake=True, strict=True))
            except (DataDependentOutputException, DynamicOutputShapeException):
                self.real.add(competitor.label)
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
            torch.manual_seed(0)
            module, args = self.build(competitor, length)
            return self._measures(run(module, args, backward=self.backward, plan=self.plan, strict=True))

    def _measures(self, report: Report) -> Measures:
        assert report.memory is not None  # tracked unless asked not to
        seconds = []
        for device in self.devices:
            roofline = report.roofline_on(device)
            seconds.append(roofline.total.attainable.seconds)
            self.without_peak |= {(device.id, missing.engine, missing.dtype) for missing in roofline.missing}
        return Measures(
            forward=report.phases["forward"].matmul_flops,
            backward=report.phases["backward"].matmul_flops,
            recompute=report.phases["recompute"].matmul_flops,
            vector=report.phases["forward"].vector_flops,
            bytes=report.total.bytes,
            saved=report.memory.saved_bytes,
            parameters=report.root.params,
            attainable_s=tuple(seconds),
        )


def _is_floating(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point()
