"""Footprints of modules and the fused bound: by hand, where one byte takes a nanosecond, and of real modules."""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from analysis.devices import GIGA, op, toy
from attnprof.analysis.report import Report
from attnprof.analysis.roofline import PHASES, Roofline
from attnprof.core.roofline import RooflinePoint
from attnprof.core.signature import OpSignature
from attnprof.core.trace import Call, ParameterRecord
from attnprof.hardware.catalog import device
from reports.traces import Hand, unknown

EXAMPLES = Path(__file__).parents[2] / "examples"


def on(hand: Hand, **rates: Any) -> Roofline:
    return hand.report().roofline_on(toy(**rates))


def module(
    hand: Hand,
    fqn: str,
    moved: Mapping[str, int | None],
    *,
    parameters: int = 0,
    calls: int = 1,
    backward: int = 0,
    recomputed: int = 0,
    trainable: bool = True,
    ident: int | None = None,
    class_name: str = "Layer",
) -> Hand:
    """A module whose calls moved so many bytes by phase, with a parameter of so many bytes."""
    if fqn:
        hand.add(fqn, class_name)
    record = hand.trace.modules[hand.index(fqn)]
    record.calls = {("float32[1]",): calls} if calls else {}
    record.call_kinds = {Call((), (), backward=True): backward} if backward else {}
    record.recomputed_calls = recomputed
    record.call_bytes = dict(moved)
    if parameters:
        number = len(hand.trace.modules) if ident is None else ident
        record.parameters = (ParameterRecord("weight", (parameters // 4,), "float32", trainable, number),)
    return hand


def bytes_of(roofline: Roofline, fqn: str, phase: str | None = None) -> int | None:
    return roofline.point(fqn, phase).footprint_bytes


# By hand


def test_parameters_inputs_and_outputs_once_per_call() -> None:
    hand = module(Hand(), "a", {"forward": 3 * 50}, parameters=40, calls=3).ran("a", op(moved=400), times=3)
    point = on(hand).point("a")
    assert point.footprint_bytes == 3 * 40 + 3 * 50
    assert point.fused_s == (3 * 40 + 3 * 50) / GIGA
    assert point.headroom == 3 * 400 / (3 * 40 + 3 * 50)


def test_arithmetic_bounds_what_is_fused_too() -> None:
    hand = module(Hand(), "a", {"forward": 50}).ran("a", op(moved=400, matmul=70, vector=30))
    assert on(hand).point("a").fused_s == (70 + 30) / GIGA
    assert on(hand, matmul=10 * GIGA, vector=10 * GIGA).point("a").fused_s == 50 / GIGA


def test_one_launch_for_each_call() -> None:
    hand = module(Hand(), "a", {"forward": 50}, calls=2).ran("a", op(moved=40), times=10)
    point = on(hand, launch_overhead_ns=100).point("a")
    assert (point.attainable.seconds, point.fused_s) == (10 * 100 / GIGA, 2 * 100 / GIGA)


def test_never_more_than_op_by_op() -> None:
    """A module that passes its input on moves nothing."""
    hand = module(Hand(), "a", {"forward": 1000}).ran("a", op(moved=30))
    point = on(hand).point("a")
    assert (point.footprint_bytes, point.fused_s) == (30, 30 / GIGA)


def test_a_backward_writes_the_gradients_of_trainable_parameters() -> None:
    for trainable, parameters in ((True, 2 * 40), (False, 40)):
        hand = module(Hand(), "a", {"backward": 75}, parameters=40, backward=1, trainable=trainable)
        hand.ran("a", op(moved=400), "backward")
        assert bytes_of(on(hand), "a", "backward") == 75 + parameters


def test_modules_are_fused_with_what_is_below_them() -> None:
    """Each alone moves what is between them; together they do not."""
    hand = module(Hand(), "a", {"forward": 20 + 20})
    module(hand, "a.b", {"forward": 20 + 100}, parameters=8)
    module(hand, "a.c", {"forward": 100 + 20}, parameters=12)
    hand.ran("a.b", op(moved=300)).ran("a.c", op(moved=500))
    roofline = on(hand)
    assert [bytes_of(roofline, name) for name in ("a.b", "a.c", "a")] == [20 + 100 + 8, 100 + 20 + 12, 20 + 20 + 8 + 12]
    assert roofline.point("a").headroom == (300 + 500) / (20 + 20 + 8 + 12)


def test_a_list_of_modules_is_as_its_parts() -> None:
    hand = module(Hand(), "h", {}, calls=0, class_name="ModuleList")
    for i in range(3):
        module(hand, f"h.{i}", {"forward": 50}).ran(f"h.{i}", op(moved=200, matmul=70))
    assert bytes_of(on(hand), "h") == 3 * 50
    assert on(hand).point("h").fused_s == 3 * 70 / GIGA


def test_a_shared_parameter_counts_once_in_a_call_of_both_its_users() -> None:
    hand = module(Hand(), "a", {"forward": 10})
    module(hand, "a.b", {"forward": 10}, parameters=40, ident=7).ran("a.b", op(moved=100))
    module(hand, "a.c", {"forward": 10}, parameters=40, ident=7).ran("a.c", op(moved=100))
    assert bytes_of(on(hand), "a") == 10 + 40


def test_a_parameter_that_is_used_twice_in_a_call_is_read_once() -> None:
    hand = module(Hand(), "a", {"forward": 10})
    module(hand, "a.b", {"forward": 5 * 10}, parameters=40, calls=5).ran("a.b", op(moved=100), times=5)
    assert bytes_of(on(hand), "a") == 10 + 40
    assert bytes_of(on(hand), "a.b") == 5 * 10 + 5 * 40


def test_an_expert_counts_as_often_as_it_ran() -> None:
    hand = module(Hand(), "a", {"forward": 4 * 10}, calls=4)
    module(hand, "a.e", {}, calls=0, class_name="ModuleList")
    for i, calls in enumerate((3, 1, 0)):
        module(hand, f"a.e.{i}", {"forward": calls * 10}, parameters=40, calls=calls, class_name="Expert")
        hand.ran(f"a.e.{i}", op(moved=100), times=calls)
    assert bytes_of(on(hand), "a") == 4 * 10 + (3 + 1) * 40


def test_a_module_that_is_never_called_is_used_directly() -> None:
    """As torch.nn.MultiheadAttention does with out_proj."""
    hand = module(Hand(), "a", {"forward": 10}).ran("a", op(moved=100))
    module(hand, "a.out", {}, parameters=40, calls=0)
    assert bytes_of(on(hand), "a") == 10 + 40


def test_no_more_of_a_parameter_than_the_ops_of_its_module_read() -> None:
    """Of a table of 4000 bytes, 60 are selected."""
    hand = module(Hand(), "a", {"forward": 100})
    module(hand, "a.table", {"forward": 70}, parameters=4000).ran("a.table", op(moved=60))
    hand.ran("a", op(moved=5000))
    assert bytes_of(on(hand), "a") == 100 + 60


def test_no_more_of_all_parameters_of_a_module_than_its_ops_read() -> None:
    """Of two times eight experts in two parameters, 60 bytes are used."""
    hand = module(Hand(), "a", {"forward": 100})
    module(hand, "a.experts", {"forward": 70}).ran("a.experts", op(moved=60)).ran("a", op(moved=5000))
    record = hand.trace.modules[hand.index("a.experts")]
    record.parameters = tuple(ParameterRecord(f"w{i}", (8, 50), "float32", True, i) for i in range(2))
    assert bytes_of(on(hand), "a") == 100 + 60


def test_what_is_cached_below_is_moved() -> None:
    hand = module(Hand(), "a", {"forward": 10}).ran("a", op(moved=1000))
    module(hand, "a.b", {"forward": 10 + 30, "cache": 30})
    assert bytes_of(on(hand), "a") == 10 + 30
    assert bytes_of(on(module(hand, "a.c", {"forward": None, "cache": None})), "a") is None


def test_a_backward_moves_no_cache() -> None:
    hand = module(Hand(), "a", {"forward": 10, "backward": 25}, backward=1)
    module(hand, "a.b", {"forward": 10 + 30, "backward": 25, "cache": 30}, backward=1)
    hand.ran("a.b", op(moved=1000)).ran("a.b", op(moved=1000), "backward")
    assert [bytes_of(on(hand), "a", phase) for phase in ("forward", "backward")] == [10 + 30, 25]


def test_a_backward_leaves_out_the_parameters_of_modules_that_it_did_not_reach() -> None:
    hand = module(Hand(), "a", {"forward": 10, "backward": 15}, backward=1).ran("a", op(moved=1000), "backward")
    module(hand, "a.reached", {"forward": 10}, parameters=8, backward=1, class_name="Linear", trainable=False)
    module(hand, "a.frozen", {"forward": 10}, parameters=4000, class_name="Embedding", trainable=False)
    assert bytes_of(on(hand), "a", "backward") == 15 + 8


def test_an_unpriced_op_moves_what_the_default_rule_says() -> None:
    """It reads and writes 25 elements of 4 bytes: the footprint is below that."""
    hand = module(Hand(), "a", {"forward": 120}).ran("a", unknown(n=25))
    point = on(hand).point("a")
    assert (point.footprint_bytes, point.fused_s) == (120, 120 / GIGA)


def test_unknown_inputs_leave_the_footprint_unknown_there_and_above_where_needed() -> None:
    hand = module(Hand(), "h", {}, calls=0, class_name="ModuleList")
    module(hand, "h.0", {"forward": None}).ran("h.0", op(moved=50))
    module(hand, "h.1", {}).ran("h.1", op(moved=50))  # a trace of before such bytes were noted
    module(hand, "h.2", {"forward": 20}).ran("h.2", op(moved=50))
    roofline = on(hand)
    for name, known in (("h.0", False), ("h.1", False), ("h.2", True), ("h", False)):
        point = roofline.point(name)
        assert (point.footprint_bytes is not None) == (point.fused_s is not None) == known
        assert (point.headroom is not None) == known


def test_a_backward_of_no_known_call() -> None:
    hand = module(Hand(), "a", {"forward": 20}).ran("a", op(moved=50)).ran("a", op(moved=50), "backward")
    assert bytes_of(on(hand), "a", "forward") == 20
    assert bytes_of(on(hand), "a", "backward") is None
    assert bytes_of(on(hand), "a") is None


def test_what_no_module_ran_is_not_fused() -> None:
    """The model moves 30 bytes; the loss takes its ops' 70, as the optimizer does its 90."""
    hand = module(Hand(), "", {"forward": 30}).ran("", op(moved=500))
    hand.ran(None, op(moved=70)).ran("(optimizer)", op(moved=90, matmul=91), "optimizer")
    roofline = on(hand)
    assert roofline.by_phase["forward"].footprint_bytes == 30 + 70
    assert roofline.by_phase["optimizer"].footprint_bytes == 90
    assert (roofline.total.footprint_bytes, roofline.total.fused_s) == (30 + 70 + 90, (30 + 70 + 91) / GIGA)


def test_what_a_module_runs_in_other_phases_is_not_fused() -> None:
    hand = module(Hand(), "a", {"forward": 30}).ran("a", op(moved=500)).ran("a", op(moved=70), "other")
    assert [bytes_of(on(hand), "a", phase) for phase in ("forward", "other")] == [30, 70]


def test_modules_that_are_no_part_of_the_model_stand_beside_it() -> None:
    hand = module(Hand(), "", {"forward": 30}).ran("", op(moved=500))
    module(hand, "(CrossEntropyLoss)", {"forward": 12}).ran("(CrossEntropyLoss)", op(moved=70))
    assert on(hand).total.footprint_bytes == 30 + 12


def test_rebuilt_scores_add_arithmetic_and_no_bytes() -> None:
    """200 bytes: 150 FLOPs of the backward wait for them, and of 100 more half do."""
    hand = module(Hand(), "a", {"backward": 200}, backward=1)
    hand.ran("a", op(matmul=150, rebuilt=100, moved=220), "backward")
    roofline = on(hand)
    assert roofline.point("a", "backward").fused_s == 200 / GIGA
    assert roofline.point("a", "recompute").fused_s == 30 / GIGA  # op by op it adds 250 - 220
    assert roofline.point("a", "recompute").footprint_bytes == 0
    assert roofline.point("a").fused_s == 230 / GIGA


def test_repeated_forwards_have_footprints_of_their_own() -> None:
    hand = module(Hand(), "a", {"forward": 50, "recompute": 45}, parameters=40, recomputed=1)
    hand.ran("a", op(moved=300)).ran("a", op(moved=300), "recompute")
    assert bytes_of(on(hand), "a", "recompute") == 45 + 40


def test_without_what_is_below_there_is_no_footprint() -> None:
    hand = module(Hand(), "a", {"forward": 50}).ran("a", op(moved=60))
    point = on(hand).point("a", inclusive=False)
    assert (point.footprint_bytes, point.fused_s) == (None, None)


# Any tree

AMOUNTS = st.integers(0, 10**9)
OPS = st.builds(op, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
NAMES = ("", "a", "a.b", "a.b.c", "d", "(Loss)")
CALLS = st.tuples(
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 1000).map(lambda n: 4 * n),
    st.dictionaries(st.sampled_from(["forward", "backward", "recompute"]), AMOUNTS, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*(CALLS for _ in NAMES)),
    st.lists(st.tuples(st.sampled_from(NAMES), OPS, st.sampled_from(PHASES)), max_size=10),
    st.none() | st.integers(0, 10**6),
)
def test_fused_is_never_more_than_op_by_op(
    calls: Sequence[tuple[int, int, int, int, dict[str, int]]],
    ops: Sequence[tuple[str, OpSignature, str]],
    overhead: int | None,
) -> None:
    hand = Hand()
    for name, (forward, backward, again, parameters, moved) in zip(NAMES, calls, strict=True):
        module(hand, name, moved, parameters=parameters, calls=forward, backward=backward, recomputed=again)
    for name, each, phase in ops:
        hand.ran(name, each, phase)
    roofline = on(hand, launch_overhead_ns=overhead)
    for name in NAMES:
        whole = roofline.point(name)
        parts = [roofline.point(name, phase) for phase in PHASES]
        assert (whole.fused_s is None) == any(point.fused_s is None for point in parts)
        for point in (whole, *parts):
            assert (point.fused_s is None) == (point.footprint_bytes is None)
            if point.footprint_bytes is not None and point.fused_s is not None:
                assert 0 <= point.footprint_bytes <= point.cost.bytes
                assert 0 <= point.fused_s <= point.attainable.seconds * (1 + 2**-50)  # the right is a sum of three


# Real modules


def is_consistent(report: Report) -> None:
    """Fused is never more than op by op, in any phase; and the phases of a module add up."""
    roofline = report.roofline_on(device("a100-80gb-sxm"))
    for node in report.root.walk():
        whole = roofline.point(node.fqn)
        parts = [roofline.point(node.fqn, phase) for phase in PHASES]
        for point in (whole, *parts):
            assert point.fused_s is not None
            assert point.footprint_bytes is not None
            assert point.fused_s <= point.attainable.seconds * (1 + 2**-50)  # the right side is a sum of three
            assert point.footprint_bytes <= point.cost.bytes
        assert whole.footprint_bytes == sum(point.footprint_bytes or 0 for point in parts)


def forward(report: Report, fqn: str = "") -> RooflinePoint:
    return report.roofline_on(toy()).point(fqn, "forward")


def test_a_linear_layer() -> None:
    """Fused with its bias it moves the bias once and its weight once, in and out: as addmm does."""
    n, d, f = 6, 8, 5
    report = attnprof.run(nn.Linear(d, f), (torch.ones(n, d, requires_grad=True),), backward=True)
    assert forward(report).footprint_bytes == 4 * (n * d + d * f + f + n * f)
    backward = report.roofline_on(toy()).point("", "backward")
    # Inputs and weights again, the bias, the gradient of the output; those of input, weight and bias.
    assert backward.footprint_bytes == 4 * (n * d + d * f + f + n * f) + 4 * (n * d + d * f + f)
    is_consistent(report)


def test_an_embedding_moves_the_rows_it_selects() -> None:
    rows, d, n = 1000, 8, 6
    report = attnprof.run(nn.Embedding(rows, d), (torch.arange(n),))
    assert forward(report).footprint_bytes == 2 * 4 * n * d + 8 * n  # never more than its traffic, which is this


def test_attention_of_one_input_three_times() -> None:
    B, T, d, H = 2, 16, 8, 2  # noqa: N806
    x = torch.randn(B, T, d)
    report = attnprof.run(nn.MultiheadAttention(d, H, batch_first=True), (x, x, x), {"need_weights": False})
    assert forward(report).footprint_bytes == 4 * (B * T * d + 4 * d * d + 4 * d + B * T * d)
    is_consistent(report)


def test_checkpointed_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=False)  # type: ignore[assignment]
            return x

    report = attnprof.run(Net(), (torch.randn(4, 8, requires_grad=True),), backward=True)
    assert report.phases["recompute"].flops
    again = report.roofline_on(toy()).point("layers.1", "recompute")
    assert again.footprint_bytes is not None
    is_consistent(report)


@pytest.mark.parametrize("optimizer", [None, "adamw"])
def test_the_example(optimizer: str | None) -> None:
    target = runpy.run_path(str(EXAMPLES / "tiny_gpt.py"))["build"]()
    model, args = target[0], target[1]
    is_consistent(attnprof.run(model, args, backward=True, optimizer=optimizer, fake=True))


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_model_of_transformers(use_cache: bool) -> None:
    config = hf.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=60,
    )  # fmt: skip
    with attnprof.fake_tensors():
        model = hf.LlamaForCausalLM(config)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    inputs = {"input_ids": tokens, "labels": tokens, "use_cache": use_cache}
    is_consistent(attnprof.run(model, (), inputs, backward=True, fake=True))


def test_generation_moves_its_cache() -> None:
    """Of every step, the layers of attention move their keys and values: P, P + 1, ... tokens of them."""
    B, P, steps, layers, heads, width = 2, 8, 3, 2, 2, 8  # noqa: N806
    config = hf.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4, head_dim=width,
        num_key_value_heads=heads, vocab_size=60,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config)
    report = attnprof.run(model, (), {"input_ids": torch.zeros(B, P, dtype=torch.long)}, generate=steps)
    is_consistent(report)
    cached = sum(2 * B * (P + step) * heads * width * 4 for step in range(steps))
    found = {node.fqn: node.record.call_bytes.get("cache") for node in report.root.walk()}
    assert [found[f"model.layers.{i}.self_attn"] for i in range(layers)] == [cached] * layers
