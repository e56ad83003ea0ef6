"""What a run holds in memory: states, what the forward saved, the peak and what was alive there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from attnprof.analysis.timeline import Point, Timeline
from attnprof.core.errors import ConservationError
from attnprof.core.memory import KINDS, KVCache, MemoryTrace, Saved
from attnprof.core.trace import Trace


@dataclass(frozen=True, slots=True)
class Place:
    """One op call: its number, the op, the module it belongs to and the phase."""

    event: int
    op: str
    module: str
    phase: str


@dataclass(frozen=True, slots=True)
class Block:
    """One storage: its bytes, its kind, and the op call that made it (None: it was given)."""

    bytes: int
    kind: str
    made_by: Place | None


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes that were live at once, by kind, and the op call that made it so.

    ``place`` is None when that was before the first op: nothing the run did added to what was there.
    """

    bytes: int
    by_kind: dict[str, int]
    place: Place | None

    @property
    def event(self) -> int | None:
        return self.place.event if self.place else None

    @property
    def op(self) -> str | None:
        return self.place.op if self.place else None

    @property
    def module(self) -> str | None:
        return self.place.module if self.place else None

    @property
    def phase(self) -> str | None:
        return self.place.phase if self.place else None


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """The key-value cache at its largest.

    ``bytes_per_token`` is its growth between two calls over the tokens that came: None where no call added
    any, or where it is not the same whole number each time.
    """

    layer_bytes: tuple[int, ...]
    tokens: int | None
    bytes_per_token: int | None

    @property
    def bytes(self) -> int:
        return sum(self.layer_bytes)


class MemorySummary:
    """The memory of a run in bytes. A storage counts once, however many tensors view it.

    ``parameter_bytes`` (of which ``trainable_bytes`` need a gradient), ``buffer_bytes``, ``gradient_bytes`` and
    ``optimizer_bytes`` are the states at their largest; ``optimizer_states`` has the last by name, the ``step``
    counters too. ``saved_bytes`` is what autograd kept for the backward when an outermost module call returned,
    parameters and buffers excluded, for the call that saved most; of it, ``saved_input_bytes`` are the call's
    own inputs and ``saved_weight_copy_bytes`` casts of parameters. ``held_bytes`` outlived the call that held
    most without autograd or the output needing them.

    That storages are conserved is checked when the summary is made.
    """

    def __init__(self, trace: Trace, memory: MemoryTrace) -> None:
        self._trace = trace
        self._memory = memory
        states = memory.state_bytes
        self.parameter_bytes = states.get("parameter", 0)
        self.trainable_bytes = states.get("trainable", 0)
        self.frozen_bytes = self.parameter_bytes - self.trainable_bytes
        self.buffer_bytes = states.get("buffer", 0)
        self.gradient_bytes = states.get("gradient", 0)
        self.optimizer_states = dict(memory.optimizer_bytes)
        self.optimizer_bytes = sum(self.optimizer_states.values())
        most = max(memory.saved, key=lambda saved: saved.bytes, default=Saved(0, {}))
        self._saved = most
        self.saved_bytes = most.bytes
        self.saved_input_bytes = most.input_bytes
        self.saved_weight_copy_bytes = most.weight_copy_bytes
        self.held_bytes = max((sum(saved.held.values()) for saved in memory.saved), default=0)
        live = self._live()
        self._check(live)
        self._peak = live.index(max(live)) if live else -1  # in the log; -1: nothing ever lived
        self._peak_bytes = live[self._peak] if live else 0

    def _live(self) -> list[int]:
        """The live bytes after each entry of the log."""
        sizes = self._memory.block_bytes
        return list(accumulate(sizes[entry] if entry >= 0 else -sizes[~entry] for entry in self._memory.log))

    def _check(self, live: list[int]) -> None:
        """Raise unless bytes are never negative, and what is left are the blocks that did not end."""
        ended = {~entry for entry in self._memory.log if entry < 0}
        left = sum(size for block, size in enumerate(self._memory.block_bytes) if block not in ended)
        if min(live, default=0) < 0 or left != (live[-1] if live else 0):
            raise ConservationError(
                f"{live[-1] if live else 0} bytes are live at the end of the log and {left} by its blocks, at least "
                f"{min(live, default=0)} at any time: a defect in attnprof, please report it."
            )

    # What was saved

    def saved_by_module(self, inclusive: bool = True) -> dict[str, int]:
        """Saved bytes by dotted module name; with what is below (inclusive) or without."""
        modules = self._trace.modules
        own = [self._saved.by_module.get(index, 0) for index in range(len(modules))]
        if inclusive:
            for index in range(len(modules) - 1, 0, -1):  # a parent comes before its children
                own[modules[index].parent or 0] += own[index]
        return {record.fqn: size for record, size in zip(modules, own, strict=True)}

    # Over time

    @cached_property
    def peak(self) -> Peak:
        """The most that was live at once, and where."""
        by_kind = dict.fromkeys(KINDS, 0)
        for block in self._alive_at_peak:
            by_kind[KINDS[self._memory.block_kinds[block]]] += self._memory.block_bytes[block]
        return Peak(self._peak_bytes, {kind: size for kind, size in by_kind.items() if size}, self._peak_place())

    def _peak_place(self) -> Place | None:
        memory = self._memory
        if not any(memory.block_made[entry] for entry in memory.log[: self._peak + 1] if entry >= 0):
            return None
        return self.place(min(memory.log_at[self._peak], len(self._trace) - 1))

    @cached_property
    def _alive_at_peak(self) -> dict[int, int]:
        """The blocks alive at the peak, with the number of the op call at which each came to life."""
        memory = self._memory
        alive: dict[int, int] = {}
        for entry, at in zip(memory.log[: self._peak + 1], memory.log_at, strict=False):
            if entry >= 0:
                alive[entry] = at
            else:
                del alive[~entry]
        return alive

    @cached_property
    def blocks_at_peak(self) -> list[Block]:
        """The storages alive at the peak, largest first."""
        memory = self._memory
        blocks = [
            Block(
                memory.block_bytes[block],
                KINDS[memory.block_kinds[block]],
                self.place(at) if memory.block_made[block] else None,
            )
            for block, at in self._alive_at_peak.items()
        ]
        return sorted(blocks, key=lambda block: -block.bytes)

    @cached_property
    def timeline(self) -> Timeline:
        """Live bytes by kind, op call by op call."""
        return Timeline(self._memory)

    def at(self, event: int) -> Point:
        """What was live while op call ``event`` ran."""
        return self.timeline.at(event)

    def place(self, event: int) -> Place | None:
        """Where op call ``event`` ran; None after the last."""
        trace = self._trace
        if event >= len(trace):
            return None
        scope = trace.scopes[trace.event_scopes[event]]
        phase = "optimizer" if scope.phase == "optimizer_init" else scope.phase
        op = trace.signatures[trace.event_signatures[event]].op
        return Place(event, op, trace.modules[scope.module].fqn, phase)

    # Caches

    @cached_property
    def cache(self) -> CacheSummary | None:
        """The key-value cache at its largest; None for a model that carries none."""
        if not self._memory.caches:
            return None
        largest = max(self._memory.caches, key=lambda cache: (cache.bytes, cache.tokens or 0))
        return CacheSummary(largest.layer_bytes, largest.tokens, _growth(self._memory.caches))


def _growth(caches: Iterable[KVCache]) -> int | None:
    """Bytes per token: the same between any two calls of which the second added tokens, or None."""
    rates = set()
    for before, after in pairwise(caches):
        if before.tokens is not None and after.tokens is not None and after.tokens > before.tokens:
            rates.add(divmod(after.bytes - before.bytes, after.tokens - before.tokens))
    if len(rates) != 1:
        return None
    rate, rest = rates.pop()
    return None if rest else rate
