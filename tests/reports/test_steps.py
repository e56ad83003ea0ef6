"""The table of steps: like steps folded, growth said exactly, never wider than the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.steps import StepCost
from attnprof.core.cost import Cost
from attnprof.core.errors import AttnprofError
from attnprof.core.memory import KVCache, MemoryTrace
from attnprof.core.units import Units
from attnprof.reports.formats import to_json
from attnprof.reports.steps import runs, step_table
from attnprof.reports.table import render
from attnprof.reports.view import View
from reports.traces import Hand, mm


def generation(keys: Sequence[int], prompt: int = 4, layers: int = 0, per_token: int = 8) -> Hand:
    """A prefill of ``prompt`` rows and a decode step per number of keys: 2 * 8 * keys FLOPs.

    With ``layers``, a cache of ``per_token`` bytes a token and layer, of as many tokens as keys.
    """
    hand, caches = Hand().add("a"), []
    for i, n in enumerate((prompt, *keys)):
        hand.ran("a", mm(prompt, 8, prompt) if i == 0 else mm(1, 8, n)).trace.steps.append(i + 1)
        hand.trace.step_labels[i] = f"decode {i}" if i else "prefill"
        caches.append(KVCache(i + 1, (n * per_token,) * layers, n))
    if layers:
        hand.trace.memory = MemoryTrace(caches=caches, log=[], log_at=[])
    return hand


def table(hand: Hand, width: int = 120, units: str = "decimal", phases: Sequence[str] = PHASES) -> list[str]:
    return step_table(hand.report(), phases, Units.parse(units), width)


def test_the_whole_table() -> None:
    # prefill 2*4*8*4 FLOPs; decode with n keys 2*8*n; bytes of mm(m, 8, n): reads 4*(8m + 8n), writes 4*m*n
    # 2 layers of 8 bytes a token: 4 tokens 64 bytes, 9 tokens 144
    assert "\n".join(table(generation([5, 6, 7, 8, 9], layers=2))) == WHOLE.strip("\n") + "\n"


WHOLE = """
          matmul  read  written          cache  cache
step        FLOP     B        B  FLOP/B      B     +B
prefill      256   256       64   0.800     64     64
decode 1      80   192       20   0.377     80     16
…
decode 5     144   320       36   0.404    144     16
total        816  1536      204   0.469      –      –
decode [1-5]: each step +16 FLOP of matmul, +36 B of traffic, +16 B of cache over the one before.
cache: 144 B for 9 tokens, in 2 layers of 72 B; a token adds 16 B.
"""


def rows(hand: Hand, **options: str) -> list[str]:
    """The labels of the rows below the heading, up to the total."""
    found = [line.split("  ")[0].strip() for line in table(hand, **options)[2:]]
    return found[: found.index("total") + 1] if "total" in found else found[:1]


def test_equal_steps_are_one_row() -> None:
    assert rows(generation([5] * 6)) == ["prefill", "decode [1-6] x6, each", "total"]
    assert rows(generation([5, 5, 9])) == ["prefill", "decode [1-2] x2, each", "decode 3", "total"]


def test_the_numbers_of_a_folded_row_are_those_of_one_step() -> None:
    row = next(line for line in table(generation([5] * 6)) if line.startswith("decode"))
    assert row.split()[4] == str(2 * 8 * 5)


def test_too_few_steps_show_no_growth() -> None:
    assert rows(generation([5, 6, 7])) == ["prefill", "decode 1", "decode 2", "decode 3", "total"]


def test_growth_that_grows() -> None:
    keys = [10, 11, 13, 16, 20, 25]
    text = " ".join(table(generation(keys), width=300))
    assert rows(generation(keys)) == ["prefill", "decode 1", "…", "decode 6", "total"]
    first, second = 2 * 8 * (11 - 10), 2 * 8 * (13 - 11)
    assert f"decode [1-6]: each step +{first} FLOP of matmul (and +{second - first} FLOP on that each time)" in text


def test_growth_may_be_negative() -> None:
    text = " ".join(table(generation([9, 8, 7, 6]), width=300))
    assert f"each step -{2 * 8} FLOP of matmul, -{4 * (8 + 1)} B of traffic over the one before." in text


def test_what_is_irregular_is_shown_one_by_one() -> None:
    assert len(rows(generation([5, 9, 6, 30, 2]))) == 1 + 5 + 1


def test_many_irregular_steps_are_not_all_shown() -> None:
    keys = [(7 * i * i + 3 * i**3) % 41 + 1 for i in range(100)]
    hand = generation(keys)
    total, shown = len(keys) + 1, sum(len(run.steps) for run in first_and_last(runs(hand.report().steps)))
    text = table(hand, width=300)
    assert f"{total - shown} steps that follow no rule are not shown." in text
    assert rows(hand).count("…") == 1
    assert len(text) < 40


def first_and_last(found: list[object]) -> list[object]:
    return [*found[:16], *found[-4:]]


def test_numbers_must_follow_each_other() -> None:
    hand = generation([5] * 4)
    hand.trace.step_labels[3] = "decode 7"
    assert rows(hand) == ["prefill", "decode [1-2] x2, each", "decode 7", "decode 4", "total"]


def test_steps_without_a_name_are_numbered_and_folded() -> None:
    hand = generation([4] * 3, prompt=1)
    hand.trace.step_labels.clear()
    assert rows(hand)[1:] == ["step [2-4] x3, each", "total"]


def test_one_step_needs_no_total() -> None:
    assert rows(generation([])) == ["prefill"]


def test_labels_are_escaped() -> None:
    hand = generation([])
    hand.trace.step_labels[0] = "pre\x1b[31mfill"
    assert rows(hand) == ["pre\\x1b[31mfill"]


def test_only_the_phases_asked_for() -> None:
    hand = generation([5, 6])
    hand.ran(None, mm(100, 100, 100), "other").trace.steps[-1] += 1
    assert "2000000" not in "".join(table(hand, phases=("forward",), units="exact")).replace(",", "")
    assert "2000000" in "".join(table(hand, units="exact")).replace(",", "")


def test_phases_have_columns_where_there_are_several() -> None:
    hand = Hand().add("a").ran("a", mm(1, 2, 3)).ran("a", mm(1, 2, 3), "backward", times=2)
    hand.trace.steps.append(3)
    assert table(hand)[1].split()[:5] == ["step", "fwd", "FLOP", "bwd", "FLOP"]


def test_multiply_adds() -> None:
    text = " ".join(table(generation([5, 6, 7, 8]), width=300, units="macs"))
    assert f"each step +{8 * 1} MAC of matmul" in text


@pytest.mark.parametrize(
    ("caches", "sentence"),
    [
        ([KVCache(1, (8,), 1)], "cache: 8 B for 1 token, in 1 layer of 8 B."),
        (
            [KVCache(1, (8,), 1), KVCache(2, (24,), 3)],
            "cache: 24 B for 3 tokens, in 1 layer of 24 B; a token adds 8 B.",
        ),
        ([KVCache(1, (8, 4)), KVCache(2, (8, 4))], "cache: 12 B, in 2 layers of 4 to 8 B; it no longer grows."),
        ([KVCache(1, (8,), 1), KVCache(2, (13,), 3)], "cache: 13 B for 3 tokens, in 1 layer of 13 B."),
    ],
)
def test_the_cache_in_a_sentence(caches: list[KVCache], sentence: str) -> None:
    hand = generation([5, 5])
    hand.trace.memory = MemoryTrace(caches=caches)
    assert table(hand)[-2] == sentence


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("keys", [[5] * 5, [5, 6, 7, 8, 9], [10, 11, 13, 16, 20, 25], [3, 1, 4, 1, 5] * 20])
def test_never_wider_than_the_terminal(keys: list[int], width: int) -> None:
    hand = generation([n * 10**6 for n in keys], layers=3, per_token=4096)
    hand.ran(None, mm(7, 7, 7), "other").ran("a", mm(1, 1, 1), "backward")
    hand.trace.steps.append(hand.trace.steps[-1] + 2)
    for units in ("decimal", "binary", "exact"):
        assert max(map(len, table(hand, width, units))) <= width


# In the report


def shown(report: Report, **options: str) -> list[str]:
    return [line.split()[0] for line in render(report, width=100, **options).splitlines() if line.strip()]


def test_named_steps_stand_below_the_layers() -> None:
    words = shown(generation([5] * 5).report())
    assert words.index("layer") < words.index("step") < words.index("coverage")


def test_steps_without_names_are_shown_when_asked_for() -> None:
    hand = generation([5] * 5)
    hand.trace.step_labels.clear()
    assert "step" not in shown(hand.report())
    words = shown(hand.report(), by="step")
    assert "step" in words
    assert "layer" not in words
    assert "step" not in shown(generation([5]).report(), by="op")


def test_a_run_without_steps_says_so() -> None:
    text = render(Hand().add("a").ran("a", mm(1, 2, 3)).report(), by="step", width=120)
    assert "No step was marked: end each with prof.step(), or run with --generate." in text


@pytest.mark.parametrize("option", [{"sort": "flops"}, {"top": 3}])
def test_steps_keep_their_order(option: dict[str, object]) -> None:
    with pytest.raises(AttnprofError, match="steps are shown in their order"):
        View.of(by="step", **option)  # type: ignore[arg-type]


def test_json_has_every_step() -> None:
    data = json.loads(to_json(generation([5, 6], layers=2).report()))
    assert [step["label"] for step in data["steps"]] == ["prefill", "decode 1", "decode 2"]
    assert [step["matmul_flops"] for step in data["steps"]] == [2 * 4 * 8 * 4, 2 * 8 * 5, 2 * 8 * 6]
    assert [(step["cache_bytes"], step["cache_tokens"]) for step in data["steps"]] == [
        (2 * 8 * n, n) for n in (4, 5, 6)
    ]


# Runs


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_runs_keep_every_step_and_follow_their_rule(changes: list[int], times: int) -> None:
    values = changes
    for _ in range(times):  # sums of few different numbers: growth, and growth that grows, are common
        values = [sum(values[: i + 1]) for i in range(len(values))]
    steps = [StepCost(f"step {i}", Cost(n), {"forward": Cost(n)}) for i, n in enumerate(values)]
    found = runs(steps)
    assert [step for run in found for step in run.steps] == steps
    for run in found:
        level = [step.cost.matmul_flops for step in run.steps]
        for _ in range(run.degree):
            level = [b - a for a, b in pairwise(level)]
        assert len(set(level)) == 1
