"""States of many parts, told apart while steps must cost nothing: by every sixteenth part, by others the next time.

What hundreds of modules and parameters are in takes about a microsecond for each to look at, as a step leaves nothing
of it in a cache. Where that is little beside a step, every look is a whole one. Where it is not, a sample is looked at.
What is switched for all parts, or for sixteen of a kind that follow each other, shows in every sample; what is switched
for fewer shows when their turn comes. Two states that were seen and that have a sample in common are not told apart so:
from then on every look is a whole one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

#: A sample is every sixteenth part.
STRIDE = 16
#: Looks before samples are trusted: the states that a program takes turns in are known by then.
WHOLE_LOOKS = 32
#: Of fewer parts than this a sample saves nothing.
FEW = 2 * STRIDE
#: Multiples of the golden ratio, of which 32 bits are kept, are spread evenly, and so is every second, third, ... of
#: them: each sample has its turn soon, at each place of a program too that looks several times a step.
_BITS = 32
_GOLDEN, _MASK = 2654435769, 2**_BITS - 1
#: What a whole look costs for a part, in nanoseconds, and which part of a step it may cost.
_OF_A_PART, _OF_A_STEP = 1000, 200

Subject = TypeVar("Subject")


class Sampled(ABC, Generic[Subject]):
    """The state of something, looked at whole or by samples.

    ``numbers`` are those of the states, equal for equal ones, and may be shared. ``late`` is told of a change that was
    seen where samples before may have missed it.
    """

    def __init__(self, numbers: dict[Hashable, int], late: Callable[[], None]) -> None:
        self._numbers, self._late = numbers, late
        self._stands_for: dict[tuple[int, Hashable], int] = {}  # the state that a sample was of
        self._learned: set[int] = set()  # the states whose samples these are
        self._looks = self._turn = 0
        self._below_ns = 0  # samples are looked at in steps that are shorter
        self._was_sampled = self._needs_whole = False
        #: Its parts are others than those that samples were of; :meth:`whole` says so.
        self.is_another = False

    @abstractmethod
    def whole(self, subject: Subject) -> tuple[Hashable, int]:
        """All of its state now, and of how many parts that is; 0 where some samples would have none of some kind."""

    @abstractmethod
    def sample(self, subject: Subject, which: int) -> Hashable:
        """Parts ``which``, ``which + STRIDE``, ... of what was last looked at as a whole."""

    def number(self, subject: Subject, step_ns: int) -> int:
        """The number of its state, where a step takes so long (0: not known)."""
        if 0 < step_ns < self._below_ns:
            self._turn += 1
            which = (self._turn * _GOLDEN & _MASK) * STRIDE >> _BITS
            number = self._stands_for.get((which, self.sample(subject, which)))
            if number is not None:
                self._was_sampled = True
                return number
            self._learned.clear()  # a sample was not among those
        whole, parts = self.whole(subject)
        number = self._numbers.setdefault(whole, len(self._numbers))
        self._looks += 1
        if parts >= FEW and not self._needs_whole and (self.is_another or number not in self._learned):
            self._learn(subject, number)
        trusted = parts >= FEW and not self._needs_whole and self._looks >= WHOLE_LOOKS
        self._below_ns = parts * _OF_A_PART * _OF_A_STEP if trusted else 0
        self._was_sampled = False
        return number

    def forget(self) -> None:
        """Of no sample is known what it stands for: the next look is a whole one."""
        self._stands_for.clear()
        self._learned.clear()
        self._below_ns = 0

    def begin_anew(self) -> None:
        """The subject will be in other states than so far."""
        self.forget()
        self._looks = 0

    def _learn(self, subject: Subject, number: int) -> None:
        """Each of its samples stands for this state; one that stands for another as well makes them useless."""
        samples = [(which, self.sample(subject, which)) for which in range(STRIDE)]
        if any(self._stands_for.get(sample, number) != number for sample in samples):
            self._needs_whole = True
            if self._was_sampled:
                self._late()
        if self._needs_whole or self.is_another:
            self._stands_for.clear()
            self._learned.clear()
            self.is_another = False
        self._stands_for.update(dict.fromkeys(samples, number))
        self._learned.add(number)
