"""Lock files: what is written is what is read, and lines that are alike are one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof.core import lock
from attnprof.core.budget import PHASES
from attnprof.core.snapshot import MEMORY, Line, Snapshot
from attnprof.core.toml import key, quoted, written

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COUNTS = st.integers(0, 2**63 - 1)
LINES = st.builds(Line, COUNTS, COUNTS, COUNTS, COUNTS, st.lists(TEXTS, max_size=3).map(tuple))
MODULES = st.lists(st.sampled_from(["h", "0", "1", "2", "[0-1]", "é", "a b", "", '"', "\\"]), max_size=3).map(".".join)
SNAPSHOTS = st.builds(
    Snapshot,
    st.dictionaries(st.tuples(st.sampled_from(PHASES), MODULES), LINES, max_size=6),
    st.dictionaries(st.sampled_from(MEMORY), COUNTS),
    st.dictionaries(TEXTS, COUNTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS | st.booleans(), max_size=3),
)


def fits(snapshot: Snapshot) -> bool:
    return all(total < 2**63 for total in snapshot.totals().values())


@settings(max_examples=150)
@given(st.dictionaries(TEXTS, st.builds(lock.Entry, SNAPSHOTS.filter(fits), TEXTS), max_size=3))
def test_what_is_written_is_read(entries: dict[str, lock.Entry]) -> None:
    text = lock.dumps(entries)
    assert lock.loads(text, "the file") == entries
    assert lock.dumps(lock.loads(text, "the file")) == text


def line(flops: int) -> Line:
    return Line(matmul_flops=flops, ops=("aten.mm.default float32 [2,2] [2,2]",))


def test_modules_that_cost_the_same_share_a_line() -> None:
    lines = {("forward", f"h.{i}.mlp"): line(8 if i != 3 else 9) for i in range(6)}
    text = lock.dumps({"net": lock.Entry(Snapshot(lines))})
    assert [found for found in text.splitlines() if "mlp" in found] == [
        '"h.[0-2,4-5].mlp" = { matmul_flops = 8, ops = ["aten.mm.default float32 [2,2] [2,2]"] }',
        '"h.3.mlp" = { matmul_flops = 9, ops = ["aten.mm.default float32 [2,2] [2,2]"] }',
    ]


def test_entries_are_in_order_whenever_they_came() -> None:
    entries = {name: lock.Entry(Snapshot({})) for name in ("b", "a", "c")}
    assert lock.dumps(entries) == lock.dumps(dict(sorted(entries.items())))


def test_no_file_has_no_entries(tmp_path: Path) -> None:
    assert lock.read(tmp_path / "none.toml") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("version = 0\n", "states no"),
        ("version = true\n", "states no"),
        ("version = 1\nrun = 3\n", "the file is damaged (3 is not an object)"),
        ("version = 1\n[run.x]\n", "damaged in the entry 'x'"),
        ("version = 1\n||||||| base\n", "merge conflict in line 2"),
        ("version = 1\n=======\n", "merge conflict in line 2"),
        ('version = 1\n[run.x]\nenvironment = {}\ntotal = {}\nforward."a" = 1\n', "1 is not an object"),
        ("version = 1\n[runs.x]\n", "the file has 'runs', which is nothing of a lock file: entries are [run.NAME]."),
        ("version = 1\nrun.x = " + "[" * 5000, "is not TOML"),
    ],
)
def test_damage_is_said(text: str, sentence: str) -> None:
    with pytest.raises(lock.LockError) as refused:
        lock.loads(text, "the file")
    assert sentence in str(refused.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(lock.LockError, match="cannot be read: Is a directory"):
        lock.read(tmp_path)


def test_toml() -> None:
    assert quoted('a"\\\n\x7fé') == r'"a\"\\\n\u007fé"'
    assert key("a-b_1") == "a-b_1"
    assert [key(name) for name in ("", "a.b", "é", "a b")] == ['""', '"a.b"', '"é"', '"a b"']
    assert written({"a": 1_000, "b": [True, "x"]}) == '{ a = 1_000, b = [true, "x"] }'
