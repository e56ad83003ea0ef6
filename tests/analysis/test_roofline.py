"""The time of ops on devices with round rates, and its sums by module, phase, operator and step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.devices import GIGA, ns, op, peak, toy, whole_ns
from attnprof.analysis.roofline import PHASES, Roofline
from attnprof.core.cost import Cost
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, ConservationError
from attnprof.core.roofline import Attainable, Ridge
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.trace import Repeat
from attnprof.hardware.overrides import override
from reports.traces import Hand, mm, stack, tensor, unknown


def on(hand: Hand, device: DeviceSpec) -> Roofline:
    return hand.report().roofline_on(device)


def ran(*ops: OpSignature) -> Hand:
    hand = Hand().add("a")
    for each in ops:
        hand.ran("a", each)
    return hand


# One op


def test_arithmetic_of_both_engines_adds_up_and_the_longer_of_it_and_traffic_counts() -> None:
    device = toy(matmul=2 * GIGA, vector=GIGA)
    assert on(ran(op(matmul=200, vector=70, moved=169)), device).total.attainable == ns(compute=200 // 2 + 70)
    assert on(ran(op(matmul=200, vector=70, moved=171)), device).total.attainable == ns(memory=171)


def test_a_product_of_matrices_at_the_ridge() -> None:
    """n x n matrices of float32: 2 n^3 FLOPs, 3 n^2 elements of 4 bytes, so n / 6 FLOP/B. The ridge is 4 FLOP/B."""
    device = toy(matmul=4 * GIGA)
    below, at, above = (on(ran(mm(n, n, n)), device) for n in (23, 24, 25))
    assert at.ridge == Ridge("matmul", "float32", 4 * GIGA, 4.0)
    assert at.total.intensity == 4.0
    assert 2 * 24**3 / 4 == 3 * 24**2 * 4
    assert at.total.attainable == ns(memory=3 * 24**2 * 4)  # compute-bound is only what is above the ridge
    assert below.total.attainable == ns(memory=3 * 23**2 * 4)
    assert above.total.attainable == Attainable(compute_s=2 * 25**3 / (4 * GIGA))
    assert (below.total.bound, at.total.bound, above.total.bound) == ("memory", "memory", "compute")


def test_the_time_of_a_module_is_that_of_its_ops_and_not_that_of_their_sum() -> None:
    roofline = on(ran(op(matmul=100, moved=10), op(matmul=10, moved=90)), toy())
    point = roofline.point("a")
    assert point.attainable == ns(compute=100, memory=90)
    assert max(point.cost.flops, point.cost.bytes) == 110  # what the sum alone would take
    assert point.attainable.share("memory") == pytest.approx(90 / 190)  # a quotient of rounded times
    assert point.bound == "compute"


def test_launching_is_what_a_small_op_waits_for() -> None:
    device = toy(launch_overhead_ns=50)
    assert on(ran(op(matmul=49, moved=30)), device).total.attainable == ns(launch=50)
    assert on(ran(op(matmul=50, moved=30)), device).total.attainable == ns(compute=50)
    assert on(ran(op(matmul=20, moved=50)), device).total.attainable == ns(memory=50)


def test_nothing_is_launched_for_what_does_nothing() -> None:
    view = OpSignature("aten.view.default", (("self", tensor(6, ident=0)),), (tensor(2, 3, ident=1),), view=True)
    empty = OpSignature("aten.empty.memory_format", (), (tensor(6),))
    nothing = OpSignature("aten.relu.default", (("self", tensor(0, 3, ident=0)),), (tensor(0, 3, ident=1),))
    assert on(ran(view, empty, nothing), toy(launch_overhead_ns=50)).total.attainable == Attainable()


def test_no_op_at_all() -> None:
    roofline = on(Hand(), toy())
    assert roofline.total.attainable == Attainable()
    assert roofline.total.bound is None
    assert (roofline.ridge, roofline.missing, roofline.notes, roofline.steps) == (None, [], [], [])
    assert roofline.by_operator() == {}


# What is not known


def unpriced_hand() -> Hand:
    return ran(unknown(n=25), mm(10, 10, 10))


def test_an_unpriced_op_takes_the_time_of_its_traffic() -> None:
    """It reads and writes 25 elements of 4 bytes by the default rule."""
    roofline = on(unpriced_hand(), toy())
    assert roofline.total.attainable == ns(compute=2 * 10 * 10 * 10, memory=2 * 25 * 4)
    assert roofline.total.cost.bytes == 3 * 10 * 10 * 4  # costs leave it out, as everywhere
    assert roofline.notes == [
        "1 call has no price: nothing but its traffic, 200 B, is in the times, which are lower bounds."
    ]


def test_an_unpriced_op_is_launched() -> None:
    assert on(ran(unknown(n=25)), toy(launch_overhead_ns=300)).total.attainable == ns(launch=300)


def half(n: int, dtype: str = "float16") -> OpSignature:
    """n additions in a dtype."""
    x, y = (TensorMeta((n,), (1,), dtype, ident=i) for i in (0, 1))
    return OpSignature("aten.neg.default", (("self", x),), (y,))


def test_a_peak_that_is_not_known_is_never_replaced_by_another() -> None:
    """n negations of float8 read and write n bytes each; the float32 peak would have them take n ns."""
    n = 1000
    roofline = on(ran(half(n, "float8_e4m3fn"), mm(10, 10, 10)), toy(bandwidth=4 * GIGA))
    assert roofline.total.attainable == Attainable(2 * 10**3 / GIGA, 2 * n / (4 * GIGA))
    (missing,) = roofline.missing
    assert (missing.engine, missing.dtype, missing.flops) == ("vector", "float8_e4m3fn", n)
    assert missing.share == n / (n + 2 * 10**3)
    assert missing.wider == peak("vector", "float32")
    assert roofline.notes == [
        "toy has no known vector peak for float8_e4m3fn: 1000 FLOP (33.3% of all) take no time here, so times are "
        "lower bounds. The next wider is float32, 1.00 GFLOP/s, and is not used. --peak vector:float8_e4m3fn=RATE "
        "gives one."
    ]


def test_a_contraction_without_a_peak_names_the_option_as_it_is_written() -> None:
    hand = ran(mm(10, 10, 10))
    device = DeviceSpec("bare", "Bare", "nobody", bandwidth_bytes_per_s=GIGA)
    roofline = on(hand, device)
    assert roofline.total.attainable == ns(memory=3 * 10 * 10 * 4)
    assert roofline.ridge is None
    assert roofline.notes == [
        "bare has no known matmul peak for float32: 2000 FLOP (100% of all) take no time here, so times are lower "
        "bounds. --peak float32=RATE gives one."
    ]


def test_integers_without_a_peak_share_one_short_sentence() -> None:
    roofline = on(ran(half(30, "int64"), half(20, "bool"), op(matmul=50)), toy())
    assert [(m.dtype, m.flops) for m in roofline.missing] == [("int64", 30), ("bool", 20)]
    assert roofline.notes == [
        "50 operations on int64, bool (50.0% of all) take no time here: toy has no known peak for them."
    ]


def test_half_precision_on_the_vector_units_runs_at_the_rate_of_float32() -> None:
    """PyTorch computes it in float32: the device says so, not the roofline."""
    assert on(ran(half(1000)), toy(vector=GIGA // 10)).total.attainable == ns(compute=1000 * 10)


def test_without_a_bandwidth_traffic_takes_no_time_and_that_is_said() -> None:
    roofline = on(unpriced_hand(), toy(bandwidth=None))
    assert roofline.total.attainable == ns(compute=2 * 10 * 10 * 10)
    assert roofline.ridge is None
    assert roofline.notes == [
        "toy has no known bandwidth: 1400 B of traffic take no time here, so times are lower bounds. --bandwidth RATE "
        "gives one.",
        "1 call has no price: nothing of it is in the times, which are lower bounds.",
    ]


def test_tf32_is_named_where_float32_contractions_could_use_it() -> None:
    device = toy(peak("matmul", "tf32", 8 * GIGA))
    assert on(ran(op(matmul=10)), device).notes == [
        "float32 contractions are held against 1.00 GFLOP/s, without TF32. Where the program allows TF32, "
        "8.00 GFLOP/s is their peak: --peak float32=0.008e12 says so."
    ]
    assert on(ran(op(vector=10)), device).notes == []


def test_a_peak_that_was_given_is_the_one_that_was_meant() -> None:
    device = toy(peak("matmul", "tf32", 8 * GIGA))
    run = ran(op(matmul=10))
    assert on(run, override(device, ["fp32=2e9"])).notes == []
    assert len(on(run, override(device, ["vector:fp32=2e9"])).notes) == 1  # still no matmul peak of its own


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"matmul": 0}, r"toy has a matmul peak for float32 of 0; it must be a positive number, or left out\."),
        ({"matmul": -GIGA}, "matmul peak for float32 of -1000000000"),
        ({"bandwidth": 0}, "toy has a bandwidth of 0;"),
        ({"launch_overhead_ns": -1}, r"toy has a launch overhead of -1 ns; it must be 0 or more\."),
    ],
)
def test_rates_that_are_none(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(AttnprofError, match=said):
        on(ran(op(matmul=1)), toy(**changed))


# Sums


def sums(points: Iterable[Attainable]) -> tuple[int, int, int]:
    each = [whole_ns(point) for point in points]
    return tuple(map(sum, zip(*each, strict=True)))  # type: ignore[return-value]


def test_modules_phases_and_operators_add_up_to_the_total() -> None:
    hand = stack(3, extra=2)
    hand.ran(None, mm(1, 2, 3), "other").ran("head", op(vector=5, moved=9, name="step"), "optimizer")
    hand.ran("head", op(vector=700, moved=900, name="step"), "optimizer_init")
    roofline = on(hand, toy(launch_overhead_ns=400))
    total = whole_ns(roofline.total.attainable)
    assert all(total)
    assert sums(point.attainable for point in roofline.by_phase.values()) == total
    assert sums(point.attainable for point in roofline.by_operator().values()) == total
    own = roofline.by_module(inclusive=False)
    assert sums(point.attainable for point in own.values()) == total
    for phase, point in roofline.by_phase.items():
        assert sums(p.attainable for p in roofline.by_module(phase, inclusive=False).values()) == whole_ns(
            point.attainable
        )
        operators = [p.attainable for p in roofline.by_operator(phase).values()] or [Attainable()]
        assert sums(operators) == whole_ns(point.attainable)
        assert Cost.sum(p.cost for p in roofline.by_operator(phase).values()) == point.cost
    assert sums(roofline.point(f"h.{i}").attainable for i in range(3)) == whole_ns(roofline.point("h").attainable)


def test_points_are_the_modules_in_the_order_of_the_tree_with_the_costs_of_the_report() -> None:
    report = stack(2).report()
    roofline = report.roofline_on(toy())
    assert [point.module for point in roofline.points] == [node.fqn for node in report.root.walk()]
    assert {point.module: point.cost for point in roofline.points} == report.by_module()
    assert roofline.points[0] == roofline.total == roofline.point("")
    for phase in PHASES:
        assert roofline.by_phase[phase].cost == report.phases[phase]
        found = {name: point.cost for name, point in roofline.by_module(phase).items()}
        assert found == report.by_module(phase)
        found = {name: point.cost for name, point in roofline.by_operator(phase).items()}
        assert found == report.by_operator(phase)
    assert {name: point.calls for name, point in roofline.by_operator().items()} == report.operator_calls()


def test_the_time_of_a_call_that_rebuilds_is_split_by_what_the_rebuilding_adds() -> None:
    """100 FLOPs of its own and 25 rebuilt, on 90, 110 and 200 bytes: 25, then 15, then nothing more for them."""
    for moved, own, more, bound in ((90, 100, 25, "compute"), (110, 110, 15, "compute"), (200, 200, 0, "memory")):
        roofline = on(Hand().add("a").ran("a", op(matmul=100, rebuilt=25, moved=moved), "backward"), toy())
        assert roofline.by_phase["backward"].attainable == ns(**{bound: own})
        assert roofline.by_phase["recompute"].attainable == ns(**{bound: more})
        assert roofline.total.attainable == ns(**{bound: own + more})
        assert roofline.by_phase["recompute"].cost.matmul_flops == 25
        assert [p.calls for p in roofline.by_operator("recompute").values()] == [1]


def test_repeated_calls_count_as_often_as_they_ran() -> None:
    hand = Hand().add("a").ran("a", op(matmul=7)).ran("a", op(matmul=100, name="other"), times=2)
    hand.trace.repeats.append(Repeat(1, 3, 4))
    roofline = on(hand, toy())
    assert roofline.total.attainable == ns(compute=7 + 2 * (1 + 4) * 100)
    assert roofline.by_operator()["mylib.other.default"].calls == 2 * (1 + 4)


def test_operators_come_longest_first() -> None:
    ops = (op(matmul=5, name="short"), op(moved=80, name="long"), op(matmul=30, name="middle"))
    names = list(on(ran(*ops), toy()).by_operator())
    assert names == ["mylib.long.default", "mylib.middle.default", "mylib.short.default"]


def test_steps_with_their_phases() -> None:
    hand = Hand().add("a").ran("a", op(matmul=10))
    hand.trace.steps.append(1)
    hand.trace.step_labels[0] = "prefill"
    hand.ran("a", op(moved=30)).ran("a", op(matmul=3, vector=2), "backward")
    roofline = on(hand, toy())
    assert [step.label for step in roofline.steps] == ["prefill", "(after the last step)"]
    assert [step.total.attainable for step in roofline.steps] == [ns(compute=10), ns(compute=5, memory=30)]
    assert {phase: point.attainable for phase, point in roofline.steps[1].by_phase.items()} == {
        "forward": ns(memory=30),
        "backward": ns(compute=5),
    }
    assert [step.total.cost for step in roofline.steps] == [step.cost for step in hand.report().steps]


def test_a_module_by_its_other_name() -> None:
    hand = Hand().add("a", aliases=("b",)).ran("a", op(matmul=10))
    assert on(hand, toy()).point("b") == on(hand, toy()).point("a")


def test_no_such_module_or_phase() -> None:
    roofline = on(stack(2), toy())
    with pytest.raises(AttnprofError, match=r'no module "h\.0\.upp" in this run\. Did you mean h\.0\.up,'):
        roofline.point("h.0.upp")
    with pytest.raises(AttnprofError, match=r'no phase "forwards": use forward, .* Did you mean forward\?'):
        roofline.point("h", "forwards")
    for question in (roofline.by_module, roofline.by_operator):
        with pytest.raises(AttnprofError, match=r"^no phase \"forwards\""):
            question("forwards")


def test_the_law_is_checked() -> None:
    report = stack(2).report()
    next(node for node in report.root.walk() if node.self_ops).self_ops.clear()
    with pytest.raises(ConservationError, match="on toy the times of the modules add up to"):
        report.roofline_on(toy())


def test_each_device_is_computed_once() -> None:
    report = stack(2).report()
    assert report.roofline_on(toy()) is report.roofline_on(toy())
    assert report.roofline_on(toy(matmul=2 * GIGA)) is not report.roofline_on(toy())


def test_ridges_of_every_dtype_that_worked() -> None:
    device = toy(peak("matmul", "float16", 8 * GIGA), matmul=2 * GIGA, bandwidth=4 * GIGA)
    x, y = (TensorMeta((10, 10), (10, 1), "float16", ident=i) for i in (0, 1))
    product = OpSignature("aten.mm.default", (("self", x), ("mat2", x)), (y,))
    roofline = on(ran(product, op(vector=10_000), op(matmul=7)), device)
    assert roofline.ridge == Ridge("matmul", "float16", 8 * GIGA, 2.0)
    assert roofline.ridges == [
        Ridge("vector", "float32", GIGA, 0.25),
        Ridge("matmul", "float16", 8 * GIGA, 2.0),
        Ridge("matmul", "float32", 2 * GIGA, 0.5),
    ]


# Any tree, any rates

AMOUNTS = st.integers(0, 10**12)
OPS = st.builds(op, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
RATES = st.integers(1, 10**16)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "a.b", "c"]), OPS, st.sampled_from(PHASES)), max_size=12),
    RATES,
    RATES,
    RATES,
    st.none() | st.integers(0, 10**6),
)
def test_any_run_on_any_device(
    calls: list[tuple[str, OpSignature, str]], matmul: int, vector: int, bandwidth: int, overhead: int | None
) -> None:
    hand = Hand().add("a").add("a.b").add("c")
    for fqn, each, phase in calls:
        hand.ran(fqn, each, phase)
    device = toy(matmul=matmul, vector=vector, bandwidth=bandwidth, launch_overhead_ns=overhead)
    total = on(hand, device).total
    cost = total.cost
    parts = (cost.matmul_flops / matmul + cost.vector_flops / vector, cost.bytes / bandwidth)
    # Sums and quotients of floats: each operation is off by at most 2^-53 of its result, and there are below 50.
    slack = 1 + 50 * 2**-53
    assert max(parts) <= total.attainable.seconds * slack  # the roofline of the sum is never above the sum
    launched = len(calls) * (overhead or 0) / GIGA
    assert total.attainable.seconds <= (sum(parts) + launched) * slack
