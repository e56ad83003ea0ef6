"""What a run cost as a value small enough to commit: a line of numbers for each module and phase."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The numbers of a line, in order.
NUMBERS = ("matmul_flops", "vector_flops", "read_bytes", "write_bytes")
#: The numbers of a whole run that no sum of lines has.
MEMORY = ("peak_bytes", "saved_bytes")


@dataclass(frozen=True, slots=True)
class Line:
    """What one module itself, without those in it, cost in one phase; the ops it went to, the dearest first.

    An op is its name and its tensors, with ``xN`` for more than one call.
    """

    matmul_flops: int = 0
    vector_flops: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    ops: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        return self.matmul_flops, self.vector_flops, self.read_bytes, self.write_bytes

    @property
    def flops(self) -> int:
        return self.matmul_flops + self.vector_flops

    @property
    def bytes(self) -> int:
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The costs of a run by phase and module; ``memory`` has the numbers of :data:`MEMORY` where it was tracked.

    ``environment`` is what counts may depend on beside the model: the version of torch, the attention kernels,
    grad mode, dtypes. ``unpriced`` are op calls without a formula, by op.
    """

    lines: dict[tuple[str, str], Line]  # by (phase, module)
    memory: dict[str, int] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str | bool] = field(default_factory=dict)

    def totals(self) -> dict[str, int]:
        """FLOPs, bytes and memory of the whole run, by name."""
        lines = self.lines.values()
        found = {name: sum(line.numbers[i] for line in lines) for i, name in enumerate(NUMBERS)}
        return found | {name: self.memory[name] for name in MEMORY if name in self.memory}
