"""Any memory a trace can have."""

from __future__ import annotations

from hypothesis import strategies as st

from attnprof.core.memory import KINDS, KVCache, MemoryTrace, Saved

SIZES = st.integers(0, 2**40)


@st.composite
def memories(draw: st.DrawFn, events: int, modules: int) -> MemoryTrace:
    """Blocks that come and go in some order, at places up to ``events``."""
    blocks = draw(st.integers(0, 8))
    births = draw(st.permutations(range(blocks)))
    log = list(births)
    for block in draw(st.lists(st.sampled_from(births), unique=True)) if blocks else []:
        log.insert(draw(st.integers(log.index(block) + 1, len(log))), ~block)
    by_module = st.dictionaries(st.integers(0, modules - 1), SIZES, max_size=3)
    places = st.integers(0, events)

    def saved() -> Saved:
        kept = draw(by_module)
        part = st.integers(0, sum(kept.values()))
        return Saved(draw(places), kept, draw(part), draw(part), draw(by_module))

    return MemoryTrace(
        block_bytes=draw(st.lists(SIZES, min_size=blocks, max_size=blocks)),
        block_kinds=draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=blocks, max_size=blocks)),
        block_made=draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks)),
        log=log,
        log_at=draw(st.lists(places, min_size=len(log), max_size=len(log))),
        saved=[saved() for _ in range(draw(st.integers(0, 2)))],
        caches=draw(
            st.lists(
                st.builds(KVCache, places, st.lists(SIZES, max_size=3).map(tuple), st.none() | st.integers(0, 9)),
                max_size=2,
            )
        ),
        state_bytes=draw(st.dictionaries(st.sampled_from(["parameter", "trainable", "buffer", "gradient"]), SIZES)),
        optimizer_bytes=draw(st.dictionaries(st.sampled_from(["exp_avg", "exp_avg_sq", "step"]), SIZES)),
    )
