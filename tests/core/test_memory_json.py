"""A saved memory: what cannot have happened is refused, and a long run stays small and quick to read."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attnprof.core import memory_json
from attnprof.core.memory import MemoryTrace, Saved

EVENTS, MODULES = 4, 5


def data() -> dict[str, Any]:
    memory = MemoryTrace(
        block_bytes=[8, 16, 4],
        block_kinds=[0, 6, 7],
        block_made=[False, True, True],
        log=[0, 1, 2, ~2],
        log_at=[0, 0, 2, 4],
        saved=[Saved(3, {4: 16}, 8, 8, {4: 1})],
        state_bytes={"parameter": 8},
    )
    return memory_json.to_dict(memory)


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises((ValueError, TypeError, KeyError)) as caught:
        memory_json.from_dict(data() | changes, events=EVENTS, modules=MODULES)
    return str(caught.value)


def test_the_example_itself_is_fine() -> None:
    memory = memory_json.from_dict(data(), events=EVENTS, modules=MODULES)
    assert memory.log_at == [0, 0, 2, 4]
    assert memory.block_made == [False, True, True]


@pytest.mark.parametrize(
    ("log", "entry"),
    [
        ([0, 1, 2, 2], "2"),  # comes to life twice
        ([0, 1, ~2, 2], "-3"),  # ends before
        ([0, ~0, ~0, 1, 2], "-1"),  # ends twice
        ([0, 1, 2, ~2, 2], "2"),  # comes back
        ([0, 1, 2, 3], "3"),
        ([0, 1, 2, ~3], "-4"),
        ([0, 1, 2, 10**30], str(10**30)),
    ],
)
def test_a_log_that_cannot_be(log: list[int], entry: str) -> None:
    assert f"an entry {entry} that" in refused({"log": log, "log_at": [0] * len(log)})


def test_a_block_that_never_lives() -> None:
    assert "block 1 never comes to life" in refused({"log": [0, 2], "log_at": [0, 0]})


@pytest.mark.parametrize(
    ("differences", "least", "most"), [([0, 0, 2, 3], 0, 5), ([5, -1, 0, 0], 3, 5), ([0, 2, -3, 1], -1, 3)]
)  # at op call 3 something was saved
def test_a_place_that_is_not_there(differences: list[int], least: int, most: int) -> None:
    assert f"at op call {least} or {most} of {EVENTS}" in refused({"log_at": differences})


def test_places_of_threads_that_take_turns() -> None:
    found = memory_json.from_dict(data() | {"log_at": [3, -3, 4, -2]}, events=EVENTS, modules=MODULES)
    assert found.log_at == [3, 0, 4, 2]
    assert memory_json.to_dict(found)["log_at"] == [3, -3, 4, -2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bytes": [8, 16]}, "of which 3"),
        ({"bytes": [8, -16, 4]}, "-16 is negative"),
        ({"bytes": [8, 2**63, 4]}, "too large"),
        ({"made": [[True, 10**12]]}, "of which 1000000000000"),  # and no list of that length is made
        ({"kinds": [0, 6]}, "do not each have one"),
        ({"kinds": [0, 6, 8]}, "do not each have one"),
        ({"log_at": [0, 0, 2]}, "4 entries in the log at 3 places"),
        ({"caches": [[5, [1], None]]}, "op call 0 or 5 of 4"),
        ({"caches": [[1, [1], -1]]}, "negative"),
        ({"caches": [[1, [1]]]}, "not enough values"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], words: str) -> None:
    assert words in refused(changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"at": 5}, "op call 0 or 5 of 4"),
        ({"by_module": [[5, 16]]}, "a module saves something and is not there"),
        ({"held": [[5, 16]]}, "a module saves something and is not there"),
        ({"by_module": [[4, 8], [4, 8]]}, "named twice"),
        ({"input_bytes": 17}, "larger than the whole"),
        ({"weight_copy_bytes": 17}, "larger than the whole"),
    ],
)
def test_what_was_saved_is_checked(changes: dict[str, Any], words: str) -> None:
    saved = copy.deepcopy(data()["saved"])
    saved[0] |= changes
    assert words in refused({"saved": saved})


def test_a_million_entries_are_a_few_characters_each() -> None:
    import json
    import time

    count = 500_000
    memory = MemoryTrace(
        block_bytes=[1024] * count,
        block_kinds=[6, 7] * (count // 2),
        block_made=[True] * count,
        log=[entry for block in range(count) for entry in (block, ~block)],
        log_at=[at for block in range(count) for at in (block, block + 1)],
    )
    text = json.dumps(memory_json.to_dict(memory), separators=(",", ":"))
    # Of a block: its bytes 5 and kind 2; its two entries at most 7 and 8 with commas; their places 2 each.
    assert len(text) < 26 * count + 1000
    start = time.process_time()
    again = memory_json.from_dict(json.loads(text), events=count, modules=1)
    assert time.process_time() - start < 10  # some tenths of a second; quadratic work would take hours
    assert again == memory
