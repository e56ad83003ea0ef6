"""What a run held in memory: every storage, when it came and went, and what autograd kept for the backward.

A block is one storage. It counts once however many tensors view it, from the op that allocated it until its
bytes are freed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: What a block is, the first that applies: a storage that is a parameter is never called an input.
#: ``saved`` was kept by autograd when an outermost module call returned; ``input`` was made by no op that
#: was seen (the caller's tensors); ``temporary`` is everything else, outputs and losses included.
KINDS = ("parameter", "buffer", "gradient", "optimizer", "cache", "input", "saved", "temporary")


@dataclass(frozen=True, slots=True)
class Saved:
    """What autograd kept for the backward when one outermost module call returned.

    ``at`` is the number of op calls before. ``by_module`` maps a module (index) to the bytes its ops saved:
    distinct storages, each at the op that saved it first, parameters and buffers left out. Of their sum,
    ``input_bytes`` are the call's own inputs, and ``weight_copy_bytes`` casts of parameters (autocast makes
    them). ``held`` maps a module to bytes that its ops made, that outlive the call and that neither autograd
    nor the output refers to: caches, tensors kept as attributes. They are not part of ``by_module``.
    """

    at: int
    by_module: dict[int, int]
    input_bytes: int = 0
    weight_copy_bytes: int = 0
    held: dict[int, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.by_module.values())


@dataclass(frozen=True, slots=True)
class KVCache:
    """The key-value cache after one outermost module call: ``layer_bytes`` per layer, ``tokens`` it holds.

    ``at`` is the number of op calls before; ``tokens`` is None for a state that does not grow with them.
    """

    at: int
    layer_bytes: tuple[int, ...]
    tokens: int | None = None

    @property
    def bytes(self) -> int:
        return sum(self.layer_bytes)


@dataclass(slots=True)
class MemoryTrace:
    """The storages of one capture.

    Block ``b`` had ``block_bytes[b]`` bytes and was ``KINDS[block_kinds[b]]``. ``log`` tells what happened in
    order of time: ``b`` for block ``b`` coming to life, ``~b`` for its end; ``log_at[i]`` is the number of op
    calls that had ended when ``log[i]`` happened, so a block that op call ``e`` allocates is logged at ``e``
    while what is freed after it, before the next op, is logged at ``e + 1``. Blocks that were there before
    the capture come first, at 0. ``block_made[b]`` says whether an op allocated the block; others were given.

    ``state_bytes`` are the sizes read from the model and its optimizers at their largest: ``parameter``,
    ``trainable`` (those parameters that need a gradient), ``buffer``, ``gradient``. ``optimizer_bytes`` maps
    the name of an optimizer's state (``exp_avg``, ``momentum_buffer``, ``step``) to its bytes.
    """

    block_bytes: list[int] = field(default_factory=list)
    block_kinds: list[int] = field(default_factory=list)
    block_made: list[bool] = field(default_factory=list)
    log: list[int] = field(default_factory=list)
    log_at: list[int] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    caches: list[KVCache] = field(default_factory=list)
    state_bytes: dict[str, int] = field(default_factory=dict)
    optimizer_bytes: dict[str, int] = field(default_factory=dict)
