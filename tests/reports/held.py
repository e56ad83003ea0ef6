"""Memories made by hand: blocks that come and go, told op call by op call."""

from __future__ import annotations

from attnprof.core.memory import KINDS, MemoryTrace


class Held:
    """A memory in the making: ``given`` and ``made`` blocks get a name, ``freed`` ends them."""

    def __init__(self, **states: int) -> None:
        self.memory = MemoryTrace(state_bytes=states)
        self._blocks: dict[str, int] = {}

    def given(self, name: str, size: int, kind: str, at: int = 0) -> Held:
        return self._born(name, size, kind, at, made=False)

    def made(self, name: str, size: int, kind: str, at: int) -> Held:
        """Op call ``at`` allocates."""
        return self._born(name, size, kind, at, made=True)

    def freed(self, *names: str, at: int) -> Held:
        """Before op call ``at``."""
        for name in names:
            self.memory.log.append(~self._blocks.pop(name))
            self.memory.log_at.append(at)
        return self

    def _born(self, name: str, size: int, kind: str, at: int, made: bool) -> Held:
        memory = self.memory
        self._blocks[name] = len(memory.block_bytes)
        memory.log.append(self._blocks[name])
        memory.log_at.append(at)
        memory.block_bytes.append(size)
        memory.block_kinds.append(KINDS.index(kind))
        memory.block_made.append(made)
        return self
