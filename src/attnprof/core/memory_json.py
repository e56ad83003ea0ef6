"""The memory of a trace as JSON and back, checked: a block lives once, and nothing names what is not there."""

from __future__ import annotations

from itertools import accumulate, groupby, pairwise
from typing import Any

from attnprof.core.memory import KINDS, KVCache, MemoryTrace, Saved
from attnprof.core.plain import as_count, as_counts, as_dict, as_flag, as_ints, as_list, as_text


def to_dict(memory: MemoryTrace) -> dict[str, Any]:
    """Plain lists and dicts. ``log_at`` is stored as differences, ``made`` as runs ``[made, blocks]``."""
    return {
        "bytes": memory.block_bytes,
        "kinds": memory.block_kinds,
        "made": [[made, sum(1 for _ in run)] for made, run in groupby(memory.block_made)],
        "log": memory.log,
        "log_at": [after - before for before, after in pairwise([0, *memory.log_at])],
        "saved": [
            {
                "at": saved.at,
                "by_module": list(map(list, saved.by_module.items())),
                "input_bytes": saved.input_bytes,
                "weight_copy_bytes": saved.weight_copy_bytes,
                "held": list(map(list, saved.held.items())),
            }
            for saved in memory.saved
        ],
        "caches": [[cache.at, list(cache.layer_bytes), cache.tokens] for cache in memory.caches],
        "state_bytes": memory.state_bytes,
        "optimizer_bytes": memory.optimizer_bytes,
    }


def from_dict(data: dict[str, Any], *, events: int, modules: int) -> MemoryTrace:
    """The memory of a trace with so many events and modules; raises an error that says what is wrong."""
    sizes = as_counts(data["bytes"])
    runs = [(as_flag(made), as_count(blocks)) for made, blocks in map(as_list, as_list(data["made"]))]
    if sum(blocks for _, blocks in runs) != len(sizes):
        raise ValueError(f"{len(sizes)} blocks, of which {sum(blocks for _, blocks in runs)} were made or given")
    memory = MemoryTrace(
        block_bytes=sizes,
        block_kinds=as_counts(data["kinds"]),
        block_made=[made for made, blocks in runs for _ in range(blocks)],
        log=as_ints(data["log"]),
        log_at=list(accumulate(as_ints(data["log_at"]))),
        saved=[_decode_saved(as_dict(item)) for item in as_list(data["saved"])],
        caches=[
            KVCache(as_count(at), tuple(as_counts(layers)), None if tokens is None else as_count(tokens))
            for at, layers, tokens in map(as_list, as_list(data["caches"]))
        ],
        state_bytes=_sizes(data["state_bytes"]),
        optimizer_bytes=_sizes(data["optimizer_bytes"]),
    )
    _check_blocks(memory)
    _check_places(memory, events, modules)
    return memory


def _decode_saved(item: dict[str, Any]) -> Saved:
    return Saved(
        at=as_count(item["at"]),
        by_module=_by_module(item["by_module"]),
        input_bytes=as_count(item["input_bytes"]),
        weight_copy_bytes=as_count(item["weight_copy_bytes"]),
        held=_by_module(item["held"]),
    )


def _by_module(value: Any) -> dict[int, int]:
    pairs = [(as_count(module), as_count(size)) for module, size in map(as_list, as_list(value))]
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a module is named twice")
    return dict(pairs)


def _sizes(value: Any) -> dict[str, int]:
    return {as_text(name): as_count(size) for name, size in as_dict(value).items()}


def _check_blocks(memory: MemoryTrace) -> None:
    """Every block comes to life once and ends at most once, afterwards."""
    blocks = len(memory.block_bytes)
    if len(memory.block_kinds) != blocks or max(memory.block_kinds, default=0) >= len(KINDS):
        raise ValueError(f"the {blocks} blocks do not each have one of {len(KINDS)} kinds")
    if len(memory.log) != len(memory.log_at):
        raise ValueError(f"{len(memory.log)} entries in the log at {len(memory.log_at)} places")
    unborn, alive, dead = 0, 1, 2
    states = bytearray(blocks)
    for entry in memory.log:
        block = entry if entry >= 0 else ~entry
        if block >= blocks or states[block] != (unborn if entry >= 0 else alive):
            raise ValueError(f"the log has an entry {entry} that cannot be there")
        states[block] = alive if entry >= 0 else dead
    if unborn in states:
        raise ValueError(f"block {states.index(unborn)} never comes to life")


def _check_places(memory: MemoryTrace, events: int, modules: int) -> None:
    """Nothing happens before the first op call or after the last. Places may go back: threads take turns."""
    places = memory.log_at + [s.at for s in memory.saved] + [c.at for c in memory.caches]
    if places and not (min(places) >= 0 and max(places) <= events):
        raise ValueError(f"something happens at op call {min(places)} or {max(places)} of {events}")
    for saved in memory.saved:
        if max([*saved.by_module, *saved.held], default=0) >= modules:
            raise ValueError("a module saves something and is not there")
        if max(saved.input_bytes, saved.weight_copy_bytes) > saved.bytes:
            raise ValueError("a part of what was saved is larger than the whole")
