"""Formulas of real modules, from their runs: where they hold, where they break, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import attnprof
from attnprof.analytic.symbols import CeilLog2, symbol
from attnprof.api.counted_points import CountedPoints
from attnprof.core.errors import AttnprofError
from attnprof.recovery.outcome import DataDependent, Formula, NoFormula
from recovery.models import Doubling, LastKeys, Layers, Padded, Routed, Switched

T, B, d, w, L = (symbol(name) for name in "TBdwL")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sequence(T: int, d: int = 8, B: int = 2) -> tuple[Tensor]:  # noqa: N803 - the symbols of formulas
    return (torch.randn(B, T, d, requires_grad=True),)


# Formulas


def test_attention_of_the_zoo() -> None:
    found = attnprof.scaling("mha", {"B": range(1, 9), "T": range(16, 4097), "d": range(16, 1025)}, fixed={"H": 4})
    # 4 projections of 2·B·T·d·d, and 2 products of 2·B·T·T·d
    assert found.expression == 8 * B * T * d**2 + 4 * B * T**2 * d
    assert found.module("q_proj") == 2 * B * T * d**2
    assert found.evaluate(B=3, T=10**6, d=512) == 8 * 3 * 10**6 * 512**2 + 4 * 3 * 10**12 * 512
    assert found.dominant("T") == 4 * B * T**2 * d
    assert found.crossover("T") == 2 * d
    assert found.symbols == ("B", "T", "d")
    assert {point.role for point in found.points} == {"fit", "held out"}
    assert sum(point.role == "fit" for point in found.points) == found.formula.runs


def test_one_run_per_point_serves_every_quantity() -> None:
    found = attnprof.scaling("mha", {"T": range(16, 513)}, phase="backward", fixed={"d": 64, "H": 4})
    assert found.of("matmul", "forward").runs == found.runs
    # backward: twice the forward of 8·T·64² + 4·T²·64
    assert found.expression == 2 * (8 * T * 64**2 + 4 * T**2 * 64)
    assert found.of("flops", "all").expression == sympy.expand(
        found.of("matmul", "all").expression + found.of("vector", "all").expression
    )


def test_layers_extrapolate() -> None:
    def build(T: int, L: int) -> Any:  # noqa: N803
        return Layers(8, L), sequence(T)

    found = attnprof.scaling(build, {"T": range(4, 65), "L": range(2, 13)})
    # B = 2: L products of 2·2·T·8·8, and a head of 2·2·T·8·3
    assert found.expression == 256 * L * T + 96 * T
    assert found.modules.keys() >= {"blocks.*", "head"}
    assert found.module("blocks.*") == 256 * L * T


def test_a_window_ends_where_the_sequence_does() -> None:
    def build(T: int, w: int) -> Any:  # noqa: N803
        return LastKeys(w), sequence(T)

    found = attnprof.scaling(build, {"T": range(2, 257), "w": range(2, 129)})
    # two products of 2·B·T·min(T, w)·d
    assert found.expression == 4 * 2 * 8 * T * sympy.Min(T, w)


def test_padding_to_a_multiple() -> None:
    def build(T: int) -> Any:  # noqa: N803
        return Padded(8, 48), sequence(T)

    found = attnprof.scaling(build, {"T": range(16, 1025)})
    assert found.expression == 2 * 2 * 48 * sympy.ceiling(T / 48) * 8 * 8


def test_a_switch_of_kernels_is_found_to_the_last_size() -> None:
    def build(T: int) -> Any:  # noqa: N803
        return Switched(100), sequence(T)

    found = attnprof.scaling(build, {"T": range(16, 1025)})
    pieces = {(piece.condition, piece.expression) for piece in found.formula.pieces}
    # x @ x.mT @ x: two products of 2·B·T·T·d; beyond 100, one of 2·B·T·d·d
    assert pieces == {(sympy.Le(T, 100), 64 * T**2), (sympy.Gt(T, 100), 256 * T)}


def test_rounds_of_doubling() -> None:
    def build(T: int) -> Any:  # noqa: N803
        return Doubling(8), sequence(T)

    found = attnprof.scaling(build, {"T": range(2, 1025)})
    assert found.expression == 2 * 2 * T * 8 * 8 * CeilLog2(T)


def test_a_peak_is_the_largest_of_several() -> None:
    """Two linear layers without a backward: after the first, x and its output live; after the second, all three."""

    def build(T: int, d: int) -> Any:  # noqa: N803
        return nn.Linear(d, 4 * d, bias=False), sequence(T, d)

    found = attnprof.scaling(build, {"T": range(4, 65), "d": range(4, 65)}, of="saved")
    assert found.expression == 4 * 2 * T * d  # the input, which autograd keeps for the weight's gradient
    peak = found.of("peak")
    for t, width in ((5, 64), (64, 5), (33, 34)):
        model, args = build(t, width)
        report = attnprof.run(model, args, backward=True)
        assert report.memory is not None
        assert peak.evaluate(T=t, d=width) == report.memory.peak.bytes


# Data


def routed(T: int) -> Any:  # noqa: N803
    return Routed(8), (torch.randn(T, 8),)


def test_counts_that_depend_on_data_have_a_spread_and_no_formula() -> None:
    found = attnprof.scaling(routed, {"T": range(64, 513)})
    assert isinstance(found.outcome, DataDependent)
    assert all(least < most for _, least, most in found.outcome.spread)
    assert "Counted on real tensors: the model looks at values." in found.notes
    with pytest.raises(AttnprofError, match=r"^the count depends on data: at T=\d+, 2 runs came to \d+ and \d+\.$"):
        found.expression  # noqa: B018


def test_what_does_not_depend_on_data_has_a_formula() -> None:
    found = attnprof.scaling("moe", {"T": range(16, 129)}, fixed={"d": 8, "f": 16, "E": 4, "k": 2})
    # the router, 2·T·d·E, and k experts for each token, of 2·2·d·f
    assert found.expression == T * (2 * 8 * 4 + 2 * 2 * 2 * 8 * 16)
    assert isinstance(found.modules["experts.0"], DataDependent)


def test_no_formula_is_an_answer_with_its_points() -> None:
    class Collatz(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, square = x.shape[0], torch.ones(4, 4)
            while n > 1:
                square = square @ square
                n = n // 2 if n % 2 == 0 else 3 * n + 1
            return square

    found = attnprof.scaling(lambda T: (Collatz(), (torch.ones(T),)), {"T": range(3, 200)})  # noqa: N803
    assert isinstance(found.outcome, NoFormula)
    assert {point.role for point in found.points} == {"fit"}
    at = {point.sizes["T"]: point.count for point in found.points}
    steps = {3: 7, 199: 119}  # of the sequences 3, 10, 5, 16, ... and 199, 598, ...
    assert {size: at[size] for size in steps} == {size: n * 2 * 4**3 for size, n in steps.items()}


# Many layers


def stacked(T: int, L: int = 40) -> Any:  # noqa: N803
    return Layers(8, L), sequence(T)


def test_few_of_many_layers_count_the_same_integers() -> None:
    few, plain = (CountedPoints(stacked, {}, backward=True, memory=True, by_layers=way) for way in (None, False))
    for size in (16, 24, 55):
        found, counted = ({k: v for k, v in points({"T": size}).items() if k[0] != "live"} for points in (few, plain))
        assert found == counted
    assert (few.layers, plain.layers) == (40, 0)


def test_layers_that_differ_are_all_run() -> None:
    def build(T: int) -> Any:  # noqa: N803
        model = Layers(8, 40)
        model.blocks[20][0].weight.requires_grad_(False)
        return model, sequence(T)

    points = CountedPoints(build, {}, backward=True, memory=True)
    points({"T": 16})
    points({"T": 24})
    assert (points.layers, points.by_layers) == (0, None)


def test_layers_alike_that_cost_differently_are_all_run() -> None:
    class Every(Layers):
        def forward(self, x: Tensor) -> Tensor:
            for i, block in enumerate(self.blocks):
                x = x + block(block(x) if i == 30 else x)
            return self.head(x)  # type: ignore[no-any-return]

    points = CountedPoints(lambda T: (Every(8, 40), sequence(T)), {}, backward=False, memory=False)  # noqa: N803
    # 41 calls of blocks, 2·2·T·8·8 each, and the head
    assert [points({"T": size})["matmul", "forward", ""] for size in (16, 24)] == [
        41 * 256 * n + 96 * n for n in (16, 24)
    ]
    assert points.by_layers is False


# What a user gives


def test_the_model_is_left_as_it_was() -> None:
    model = Layers(8, 40)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    attnprof.scaling(lambda T: (model, sequence(T)), {"T": [16, 24, 32, 48, 56]}, phase="backward")  # noqa: N803
    assert torch.equal(torch.get_rng_state(), state)
    assert len(model.blocks) == 40
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sizes_at_which_the_model_fails_are_left_out_and_said() -> None:
    def build(T: int) -> Any:  # noqa: N803
        return nn.Unflatten(1, (T // 16, 16)), (torch.ones(2, T),)

    found = attnprof.scaling(build, {"T": range(16, 513)}, of="bytes")
    assert isinstance(found.outcome, Formula)
    (note,) = found.notes
    assert note.startswith("The formulas are for sizes with T a multiple of 16; elsewhere it fails, at T=")


def test_an_interruption_passes() -> None:
    def build(T: int) -> Any:  # noqa: N803
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attnprof.scaling(build, {"T": range(16, 513)})


def plain(T: int, d: int = 8) -> nn.Module:  # noqa: N803
    return nn.Linear(d, T)


def failing(T: int) -> nn.Module:  # noqa: N803
    raise ValueError("no checkpoint at /nowhere")


def other(T: int) -> Any:  # noqa: N803
    return [1, T]


@pytest.mark.parametrize(
    ("build", "sizes", "settings", "message"),
    [
        (plain, {"S": [1, 2]}, {}, "plain takes no argument 'S'; it takes T, d."),
        (plain, {"T": [1, 2], "D": [1, 2]}, {}, "plain takes no argument 'D'; it takes T, d. Did you mean d?"),
        (plain, {"d": [8, 16]}, {}, "plain needs T: vary it, or fix it."),
        (plain, {"T": [8, 16]}, {"fixed": {"T": 4}}, "T is fixed and varies: give it once."),
        (
            plain,
            {"T": [128]},
            {},
            "T has one size, 128: how a count grows with T takes several; fix what does not vary.",
        ),
        (plain, {}, {}, 'scaling() needs what varies, as in {"T": [128, 256, 512]}, not {}.'),
        (failing, {"T": [8, 16]}, {}, "the model fails at T=8: ValueError: no checkpoint at /nowhere."),
        (
            other,
            {"T": [8, 16]},
            {},
            "build returned (list); it must return a module, (module, args) or (module, args, kwargs).",
        ),
        ("gqa", {"q": [8, 16]}, {}, "gqa has no symbol 'q'; it is built from B, T, d, H, Hkv, dh, causal."),
        ("gq", {"T": [8, 16]}, {}, "no mechanism 'gq'. Did you mean gqa?"),
        (3, {"T": [8, 16]}, {}, "build is a int; it must be a callable, or a name of the zoo."),
        (
            plain,
            {"T": [8, 16]},
            {"of": "flop"},
            "of must be one of flops, matmul, vector, bytes, saved, peak, not 'flop'.",
        ),
    ],
)
def test_what_cannot_be_scaled_is_one_sentence(build: Any, sizes: Any, settings: Any, message: str) -> None:
    with pytest.raises(AttnprofError) as error:
        attnprof.scaling(build, sizes, **settings)
    assert str(error.value).startswith(message)


def test_questions_to_a_scaling() -> None:
    found = attnprof.scaling("mha", {"T": range(16, 257)}, fixed={"d": 64, "H": 4})
    with pytest.raises(AttnprofError, match=r"^d was not varied; T was\.$"):
        found.evaluate(d=64, T=16)
    with pytest.raises(AttnprofError, match=r"^T varied: give a value of each, as in T=128\.$"):
        found.evaluate()
    with pytest.raises(AttnprofError, match=r"^there is no module 'w_q'; there are q_proj, k_proj, v_proj, out_proj"):
        found.module("w_q")


# A model of a library


@pytest.mark.slow
def test_a_llama_of_transformers() -> None:
    import transformers

    H, dh, f, V, B = 4, 16, 96, 120, 2  # noqa: N806 - the symbols of formulas

    def build(T: int, L: int) -> Any:  # noqa: N803
        config = transformers.LlamaConfig(
            hidden_size=H * dh,
            intermediate_size=f,
            num_hidden_layers=L,
            num_attention_heads=H,
            num_key_value_heads=H // 2,
            vocab_size=V,
        )
        return transformers.LlamaForCausalLM(config), (torch.zeros((B, T), dtype=torch.int64),), {"use_cache": False}

    found = attnprof.scaling(build, {"T": range(8, 129), "L": range(1, 9)})
    width = H * dh
    linear = 2 * B * T * width * (width + width // 2 + width // 2 + width + 3 * f)  # q, k, v, o, and a gated network
    assert found.expression == sympy.expand(L * (linear + 4 * B * T**2 * width) + 2 * B * T * width * V)
    assert found.module("model.layers.*.mlp") == L * 2 * B * T * width * 3 * f
    assert found.module("lm_head") == 2 * B * T * width * V
