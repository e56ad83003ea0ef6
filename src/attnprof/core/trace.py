"""The record of a run: which ops, in which module, in which phase, in what order. No price yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from attnprof.core.memory import MemoryTrace
from attnprof.core.signature import OpSignature
from attnprof.core.timing import LayerTimes, Timing

Scalar: TypeAlias = "int | float | bool | str | tuple[Scalar, ...] | None"

#: Every phase an event can be in. ``optimizer_init`` is the step that creates optimizer state.
PHASES = ("forward", "backward", "recompute", "optimizer", "optimizer_init", "other")

#: The modules every trace has: the run itself, what no module ran, and the optimizer.
ROOT, OUTSIDE, OPTIMIZER = 0, 1, 2

#: Hyper-parameter of a module that computes with a part of its weights; other processes have the rest (tensor
#: parallelism). Its parameters are recorded whole.
SPREAD = "spread_over_ranks"


@dataclass(frozen=True, slots=True)
class ParameterRecord:
    """One parameter a module owns. ``ident`` is equal for the same parameter under two names."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    ident: int


@dataclass(frozen=True, slots=True)
class Call:
    """A kind of call of a module: its tensors, and what theory has to know beside their shapes.

    ``tensors`` are the arguments as in ``ModuleRecord.calls``, with those in a tuple or list (``* float32[2,3]``);
    ``gradients`` says which of them needed a gradient. ``backward``: a backward went through the call.
    ``recomputed``: it repeated an earlier one for a checkpoint. ``returned``: it came to its end.
    """

    tensors: tuple[str, ...]
    gradients: tuple[bool, ...]
    backward: bool = False
    recomputed: bool = False
    returned: bool = True


@dataclass(slots=True)
class ModuleRecord:
    """One ``nn.Module``: its names, class, parameters and scalar hyper-parameters, and its calls.

    ``fqn`` is the dotted name from the root (wrappers such as ``_orig_mod`` removed), ``aliases`` its
    other names, ``parent`` the index of the enclosing module. ``calls`` counts forward calls by the shapes
    they were given: a call is the tuple of its tensor arguments, as text such as ``float32[2,128]``. ``home`` is the
    Python module that defines the class; ``call_kinds`` counts all calls, recomputed ones too, in more detail.
    Both are empty in traces of before schema 3. ``call_bytes`` are the bytes of all tensors that its calls were
    given and returned, each once per call, by phase (``backward``: with their gradients); None where some are not
    known; ``cache`` is the part in its layer of a key-value cache. Empty in traces of before schema 4.
    """

    fqn: str
    class_name: str
    parent: int | None
    aliases: tuple[str, ...] = ()
    parameters: tuple[ParameterRecord, ...] = ()
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    training: bool | None = None
    calls: dict[tuple[str, ...], int] = field(default_factory=dict)
    recomputed_calls: int = 0
    home: str = ""
    call_kinds: dict[Call, int] = field(default_factory=dict)
    call_bytes: dict[str, int | None] = field(default_factory=dict)

    @property
    def call_count(self) -> int:
        return sum(self.calls.values())


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an op belongs: a module (an index) and a phase."""

    module: int
    phase: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """The op calls ``start`` to ``stop`` - 1 ran ``times`` more, in steps like theirs that were not counted again."""

    start: int
    stop: int
    times: int


@dataclass(slots=True)
class Trace:
    """What one capture saw.

    Event ``i`` is the op call ``signatures[event_signatures[i]]`` in ``scopes[event_scopes[i]]``; events
    are in order per thread. ``steps`` are the event counts at which ``prof.step()`` was called, and
    ``step_labels`` names some of them, by position in ``steps`` (``prefill``, ``decode 1``). ``repeats`` are
    events that stand for more calls than their own. ``meta`` says how the run was made; ``notes`` are
    sentences the reader of a report must see.
    """

    signatures: list[OpSignature]
    scopes: list[Scope]
    event_signatures: list[int]
    event_scopes: list[int]
    modules: list[ModuleRecord]
    steps: list[int] = field(default_factory=list)
    step_labels: dict[int, str] = field(default_factory=dict)
    meta: dict[str, Scalar] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    memory: MemoryTrace | None = None  # None: memory was not tracked
    repeats: list[Repeat] = field(default_factory=list)
    timing: Timing | None = None  # None: no step was timed
    layer_times: LayerTimes | None = None  # None: no layer was timed

    def __len__(self) -> int:
        return len(self.event_signatures)

    def counts(self) -> Counter[tuple[int, int]]:
        """Calls by (signature, scope), repeated ones included."""
        return self.counts_in(0, len(self))

    def counts_in(self, start: int, stop: int) -> Counter[tuple[int, int]]:
        """The same of the events ``start`` to ``stop`` - 1."""
        found = self.between(start, stop)
        for repeat in self.repeats:
            for pair, calls in self.between(max(start, repeat.start), min(stop, repeat.stop)).items():
                found[pair] += calls * repeat.times
        return found

    def times(self, at: int) -> int:
        """How many times what happened after ``at`` events did: once, and in every step that is taken to be alike."""
        return 1 + sum(repeat.times for repeat in self.repeats if repeat.start < at <= repeat.stop)

    def between(self, start: int, stop: int) -> Counter[tuple[int, int]]:
        """Calls by (signature, scope) among the events ``start`` to ``stop`` - 1, each as often as it is there."""
        stop = max(start, stop)
        return Counter(zip(self.event_signatures[start:stop], self.event_scopes[start:stop], strict=True))

    def events(self) -> Iterator[tuple[OpSignature, Scope]]:
        """The op calls in order, each once: repeated ones are not repeated here."""
        for signature, scope in zip(self.event_signatures, self.event_scopes, strict=True):
            yield self.signatures[signature], self.scopes[scope]
