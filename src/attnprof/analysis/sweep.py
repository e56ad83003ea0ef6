"""One model at several shapes: what a call costs at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from attnprof.analysis.report import PHASES, Report

Quantity = Literal["forward", "backward", "recompute", "optimizer", "other", "vector", "bytes", "saved", "peak"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one run; None where none was asked for."""

    batch: int | None = None
    seq: int | None = None

    def __str__(self) -> str:
        sizes = {"batch": self.batch, "seq": self.seq}
        return ", ".join(f"{name} {size}" for name, size in sizes.items() if size is not None)


@dataclass(frozen=True, slots=True)
class Point:
    """One run, measured.

    ``forward``, ``backward``, ``recompute``, ``optimizer``, ``other``: matmul FLOPs of the phases. ``vector``: vector
    FLOPs of all of them, ``bytes``: their traffic. ``saved``: what autograd keeps for the backward; ``peak``: the most
    bytes that were live at once. ``parameters``: how many numbers. ``attainable_s``: of each device of the sweep, the
    least time of all phases there, in seconds. ``unpriced``: calls of ops without a formula.
    """

    shape: Shape
    forward: int
    backward: int
    recompute: int
    optimizer: int
    other: int
    vector: int
    bytes: int
    saved: int
    peak: int
    parameters: int
    unpriced: int = 0
    attainable_s: tuple[float, ...] = ()

    @classmethod
    def of(cls, shape: Shape, report: Report) -> Point:
        """What a report says, on the devices of it."""
        memory = report.memory
        matmul = {phase: cost.matmul_flops for phase, cost in report.phases.items()}
        return cls(
            shape,
            **{phase: matmul.get(phase, 0) for phase in ("forward", "backward", "recompute", "optimizer", "other")},
            vector=report.total.vector_flops,
            bytes=report.total.bytes,
            saved=0 if memory is None else memory.saved_bytes,
            peak=0 if memory is None or memory.peak is None else memory.peak.bytes,
            parameters=report.root.params,
            unpriced=sum(report.unpriced.values()),
            attainable_s=tuple(report.roofline_on(device).total.attainable.seconds for device in report.devices),
        )

    def of_quantity(self, quantity: Quantity) -> int:
        value: int = getattr(self, quantity)
        return value

    @property
    def matmul(self) -> int:
        """Matmul FLOPs of all phases."""
        return self.forward + self.backward + self.recompute + self.optimizer + self.other

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte; None where nothing is moved."""
        return (self.matmul + self.vector) / self.bytes if self.bytes else None


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep in their order. ``settings`` says what they have in common, ``notes`` what to know of them.

    ``wanted`` is how many runs there were to be: more than there are where one failed or was interrupted. ``devices``
    are those that times are given for, in the order of ``Point.attainable_s``.
    """

    points: tuple[Point, ...]
    wanted: int
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Quantity, ...]:
        """The quantities worth a column: those that are not zero everywhere."""
        return tuple(q for q in QUANTITIES if any(point.of_quantity(q) for point in self.points))


def settings_of(target: str, report: Report) -> dict[str, str]:
    """What all runs of a sweep have in common, as one of their reports says it."""
    root = report.root
    dtypes = {p.dtype for node in root.walk() for p in node.record.parameters}
    ran = {"optimizer" if phase == "optimizer_init" else phase for phase in report.ran}
    ran |= {phase for phase in PHASES if report.phases[phase]}
    return {
        "target": target,
        "model": root.class_name or "everything",
        "dtype": " + ".join(sorted(dtypes)) or "no parameters",
        "phases": " + ".join(phase for phase in PHASES if phase in ran) or "nothing ran",
        **({"run": "fake"} if report.meta.get("fake") else {}),
        "torch": str(report.meta.get("torch", "")),
    }


def common_notes(all_notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Each sentence once, in the order they first came."""
    return tuple(dict.fromkeys(note for notes in all_notes for note in notes))
