"""Which storages were alive when: every one that an op makes or is given, until its bytes are freed.

A storage is known by the identity of its Python object, which torch keeps for as long as the bytes live,
and its end by a weak reference to that object. So nothing is kept alive, on fake tensors as on real ones.
An op's output whose storage is not known yet is an allocation; an input whose storage is not known was
given: it came from before the run or from outside of any op.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

from attnprof.capture.carried import tensors_in
from attnprof.capture.signatures import PLAIN
from attnprof.capture.sums import SUM, Sums
from attnprof.core.memory import KINDS

PARAMETER, BUFFER, GRADIENT, OPTIMIZER, CACHE, INPUT, SAVED, TEMPORARY = range(len(KINDS))

#: An entry of the log is one int, which threads cannot tear: (clock, position, block, whether it ended).
_BLOCK_BITS, _POSITION_BITS, _CLOCK_BITS = 27, 27, 8
_SHIFT = _BLOCK_BITS + 1
_CLOCK_SHIFT = _SHIFT + _POSITION_BITS
_CAST = "aten._to_copy.default"


class _Alive(weakref.ref[Any]):
    """A weak reference to a storage that knows its block, and the id it is known by."""

    __slots__ = ("block", "key")
    block: int
    key: int


class Clock:
    """The time of one thread: how many of its op calls have ended."""

    __slots__ = ("bits", "events")

    def __init__(self, events: list[int], number: int) -> None:
        self.events = events
        self.bits = min(number, (1 << _CLOCK_BITS) - 1) << _CLOCK_SHIFT

    def now(self) -> int:
        """This moment as an entry of the log without a block."""
        return self.bits | len(self.events) << _SHIFT


class Ledger:
    """The storages of one capture, as blocks with a size and a kind, and when each came and went.

    Time is told by the clock of the thread that ran the latest op.
    """

    def __init__(self) -> None:
        self.bytes = array("q")
        self.kinds = bytearray()
        self.made = bytearray()
        self.born = array("q")  # a moment for each block
        self.weight_copies: set[int] = set()
        self.on_meta = False  # whether tensors on meta are the run's own, and not torch asking for shapes
        self.hidden = 0  # tensors whose layout hides their storage
        self._lock = threading.RLock()  # blocks are numbered one after the other; a finalizer may run ops meanwhile
        self._clocks: list[Clock] = []
        self._clock = self.clock([])
        self.initial: list[int] = []  # blocks that were there before the first op
        self._log = array("q")
        self._known: dict[int, _Alive] = {}

        self.sums = Sums(_SHIFT)
        known, log, sums = self._known, self._log, self.sums

        def ended(alive: _Alive) -> None:
            if known.get(alive.key) is alive:
                del known[alive.key]
                end = self._clock.now() | alive.block << 1 | 1
                if alive.block == sums.first:
                    sums.tell(log, end)
                else:
                    log.append(end)

        self._ended = ended

    def clock(self, events: list[int]) -> Clock:
        """The clock of one more thread."""
        self._clocks.append(Clock(events, len(self._clocks)))
        return self._clocks[-1]

    # While the run goes on

    def note(self, clock: Clock, plan: Any, args: Sequence[Any], kwargs: dict[str, Any] | None, out: Any) -> None:
        """An op that is no view has run: what it was given, and what it made."""
        self._clock = clock
        if plan.resizes:
            for storage in self.storages((args, kwargs)):
                self.resized(storage)
        known = self._known
        for value in args:
            kind = value.__class__
            if kind in PLAIN:
                try:
                    if id(value.untyped_storage()) in known:
                        continue
                except (NotImplementedError, RuntimeError):
                    pass
                self._each(value, INPUT, made=False, clock=clock)
            elif kind is list or kind is tuple or isinstance(value, Tensor):
                self._each(value, INPUT, made=False, clock=clock)
        if kwargs:
            self._each(kwargs, INPUT, made=False, clock=clock)
        kind = out.__class__
        if kind in PLAIN:
            try:
                storage = out.untyped_storage()
            except (NotImplementedError, RuntimeError):
                self._each(out, TEMPORARY, made=True, clock=clock)
                return
            if id(storage) not in known and (kind is FakeTensor or self.on_meta or not out.is_meta):
                if out._is_zerotensor():  # forward-mode autograd's zeros have a size and no bytes
                    return
                alive = self._add(storage, TEMPORARY, made=True, clock=clock)
                if plan.name == _CAST and self.is_parameter(args[0]):
                    self.weight_copies.add(alive.block)
                elif plan.name == SUM and len(args) == 2 and not kwargs:
                    self.sums.note(self.blocks(args[0]), alive.block, self.bytes)
        elif out is not None:
            self._each(out, TEMPORARY, made=True, clock=clock)

    def resized(self, storage: Any) -> None:
        """A storage may have another size: new bytes are there, and then the old ones are gone."""
        with self._lock:
            alive = self._known.get(id(storage))
            if alive is not None and storage.nbytes() != self.bytes[alive.block]:
                self._append(storage, self.kinds[alive.block], made=True)
                self._log.append(self._clock.now() | alive.block << 1 | 1)

    def give(self, value: Any, kind: int) -> None:
        """Storages that no op was seen to make: they are there from now on."""
        self._each(value, kind, made=False)

    def classify(self, value: Any, kind: int, *, from_the_beginning: bool = True) -> dict[int, int]:
        """Say what the storages of ``value`` are, where nothing stronger was said; their blocks, with their bytes.

        One that was not known has been there from the beginning, or else from now on.
        """
        found: dict[int, int] = {}
        for storage in self.storages(value):
            alive = self._known.get(id(storage))
            if alive is None:
                alive = self._add(storage, kind, made=False, initial=from_the_beginning)
            if kind < self.kinds[alive.block]:
                self.kinds[alive.block] = kind
            found[alive.block] = self.bytes[alive.block]
        return found

    def blocks(self, value: Any) -> set[int]:
        """The known blocks behind the tensors in ``value``."""
        kind = value.__class__
        if kind in PLAIN:
            try:
                known = self._known.get(id(value.untyped_storage()))
                return set() if known is None else {known.block}
            except (NotImplementedError, RuntimeError):
                pass
        found = (self._known.get(id(storage)) for storage in self.storages(value))
        return {alive.block for alive in found if alive is not None}

    def alive(self) -> set[int]:
        """The living blocks."""
        return {alive.block for alive in list(self._known.values())}

    def ended_in(self, start: int, end: int) -> set[int]:
        """The blocks that ended, as this part of the log says."""
        return {_block(entry) for entry in self._log[start:end] if entry & 1}

    def made_by(self, clock: Clock, since: int) -> dict[int, int]:
        """The living blocks from number ``since`` on that ops of this thread made, with the op call."""
        found = (alive.block for alive in list(self._known.values()) if alive.block >= since)
        return {
            block: _position(self.born[block])
            for block in found
            if self.made[block] and self.born[block] >> _CLOCK_SHIFT == clock.bits >> _CLOCK_SHIFT
        }

    def is_parameter(self, value: Any) -> bool:
        """Whether it is known to be in a parameter's storage."""
        return any(self.kinds[block] == PARAMETER for block in self.blocks(value))

    def _each(self, value: Any, kind: int, *, made: bool, clock: Clock | None = None) -> None:
        for storage in self.storages(value):
            if id(storage) not in self._known:
                self._add(storage, kind, made=made, clock=clock)

    def _add(self, storage: Any, kind: int, **told: Any) -> _Alive:
        """The block of a storage; another thread may have met it since it was looked for."""
        with self._lock:
            return self._known.get(id(storage)) or self._append(storage, kind, **told)

    def _append(
        self, storage: Any, kind: int, *, made: bool, initial: bool = False, clock: Clock | None = None
    ) -> _Alive:
        """A new block, at the time of this thread: another's may have run an op since."""
        alive, size, now = _Alive(storage, self._ended), storage.nbytes(), (clock or self._clock).now()
        block = alive.block = len(self.bytes)
        alive.key = id(storage)
        try:
            self.bytes.append(size)
            self.kinds.append(kind)
            self.made.append(made)
            self.born.append(now)
        except BaseException:  # an interrupt: all say as much
            for column in (self.bytes, self.kinds, self.made, self.born):
                del column[block:]
            raise
        if initial:
            self.initial.append(block)
        else:
            self._log.append(now | block << 1)
        self._known[alive.key] = alive
        return alive

    # Tensors to storages

    def storages(self, value: Any) -> Iterator[Any]:
        """The distinct storages of a tensor, or of the tensors in lists, tuples and dicts."""
        seen: set[int] = set()
        for tensor in tensors_in(value):
            for storage in self._behind(tensor):
                if id(storage) not in seen:
                    seen.add(id(storage))
                    yield storage

    def _behind(self, tensor: Tensor) -> Iterable[Any]:
        with torch._C.DisableTorchFunction():
            if (not isinstance(tensor, FakeTensor) and tensor.is_meta and not self.on_meta) or tensor._is_zerotensor():
                return ()
            try:
                parts = None if tensor.__class__ in PLAIN and tensor.layout is torch.strided else _parts(tensor)
                if parts is not None:
                    return [storage for part in parts for storage in self._behind(part)]
                return (tensor.untyped_storage(),)
            except NotImplementedError:
                if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                    return self._behind(torch._C._functorch.get_unwrapped(tensor))
                self.hidden += 1
            except RuntimeError:  # a lazy parameter holds nothing yet
                pass
            return ()

    # Afterwards

    def entries(self, offsets: Mapping[int, int], end: int | None = None) -> Iterator[tuple[int, int]]:
        """The log up to entry ``end`` as (position, block or ~block), what was there before first.

        ``offsets`` are the positions in the whole trace at which each thread's events (by id) begin.
        """
        for block in self.initial:
            yield 0, block
        starts = [offsets.get(id(clock.events), 0) for clock in self._clocks]
        for entry in self._log[:end]:
            block = _block(entry)
            yield _position(entry) + starts[entry >> _CLOCK_SHIFT], ~block if entry & 1 else block

    def __len__(self) -> int:
        return len(self._log)


def _block(entry: int) -> int:
    return entry >> 1 & (1 << _BLOCK_BITS) - 1


def _position(moment: int) -> int:
    return moment >> _SHIFT & (1 << _POSITION_BITS) - 1


def _parts(tensor: Tensor) -> tuple[Tensor, ...] | None:
    """The tensors that hold the entries of a sparse tensor or a wrapper; None when it holds them itself."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        inner = (getattr(tensor, name) for name in names)
        return tuple(part for part in inner if isinstance(part, Tensor))
    with _disable_current_modes():
        if tensor.layout is torch.sparse_coo:
            return tensor._indices(), tensor._values()
        if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            return tensor.crow_indices(), tensor.col_indices(), tensor.values()
        if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return None
