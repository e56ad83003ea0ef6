"""Programs of torch.export: the counts of the model they were exported from, module by module."""

from __future__ import annotations

import copy
import gc
import importlib
import inspect
import os
import runpy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import attnprof
from attnprof.api import Report
from attnprof.core.errors import AttnprofError
from saved.nets import Conv, Gpt, Odd


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(
    path: Path,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    decomposed: bool = False,
    **how: Any,
) -> Path:
    program = torch.export.export(model, args, kwargs, **how)
    if decomposed:
        program = program.run_decompositions()
    torch.export.save(program, path)
    return path


def per_module(report: Report) -> dict[str, dict[str, Any]]:
    """The cost of each module in each phase; those that cost nothing are left out."""
    return {
        phase: {name: cost for name, cost in report.by_module(phase).items() if cost.bytes or cost.flops}
        for phase in ("forward", "backward", "recompute")
    }


def contractions(report: Report) -> dict[str, dict[str, int]]:
    """The matmul FLOPs of each module in each phase."""
    return {
        phase: {n: cost.matmul_flops for n, cost in report.by_module(phase).items() if cost.matmul_flops}
        for phase in ("forward", "backward", "recompute")
    }


CASES = {
    "gpt": (Gpt, (torch.arange(14).view(2, 7),), {}),
    "conv": (Conv, (torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8),), {}),
    "odd": (Odd, (torch.linspace(-1, 1, 12).view(3, 4),), {"extra": {"bias": torch.ones(4)}}),
}


Exporting = Callable[..., Path]


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Exporting:
    """The program of a case, exported once for all tests: of a name, training or not, decomposed or not."""
    folder, known = tmp_path_factory.mktemp("programs"), {}

    def make(name: str, training: bool = False, **how: Any) -> Path:
        key = (name, training, *sorted(how.items()))
        if key not in known:
            kind, args, kwargs = CASES[name]
            known[key] = saved(folder / f"{len(known)}.pt2", kind().train(training), args, kwargs, **how)
        return known[key]

    return make


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_program_costs_what_its_model_does(file_of: Exporting, name: str, training: bool, strict: bool) -> None:
    kind, args, kwargs = CASES[name]
    model = kind().train(training)
    loaded = attnprof.load_model(file_of(name, training, **({"strict": True} if strict else {})))

    counted, expected = attnprof.run(loaded, backward=True), attnprof.run(model, args, kwargs, backward=True)

    assert per_module(counted) == per_module(expected)
    assert counted.unpriced == {}
    assert counted.memory is not None
    assert expected.memory is not None
    assert counted.memory.saved_bytes == expected.memory.saved_bytes
    assert counted.memory.gradient_bytes == expected.memory.gradient_bytes


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_named_as_it_was(file_of: Exporting, name: str) -> None:
    model = CASES[name][0]()
    program = attnprof.load_model(file_of(name)).model

    def described(module: nn.Module) -> dict[str, tuple[str, tuple[tuple[int, ...], ...]]]:
        return {
            path: (type(part).__qualname__, tuple(tuple(p.shape) for p in part._parameters.values() if p is not None))
            for path, part in module.named_modules()
            if not isinstance(part, nn.ModuleList) and type(part).__name__ not in ("Module", "Dropout")
        }

    ran = described(program)
    assert ran.items() <= described(model).items()
    assert {path for path, (_, shapes) in described(model).items() if shapes} <= {*ran, "unused"}
    assert sum(p.numel() for p in program.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_program(file_of: Exporting, name: str) -> None:
    _, args, kwargs = CASES[name]
    file = file_of(name)
    program, bare = attnprof.load_model(file).model, torch.export.load(file).module()

    def run(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        outputs = torch.utils._pytree.tree_leaves(module(*args, **kwargs))
        sum(out.sum() for out in outputs).backward()
        return outputs, [p.grad for _, p in sorted(module.named_parameters()) if p.grad is not None]

    (outputs, gradients), (expected, expected_gradients) = run(program), run(bare)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    # tied weights are one parameter here and two in the program, each with its part of the gradient
    total, expected_total = (sum(g.double().sum() for g in found) for found in (gradients, expected_gradients))
    if name == "gpt":
        assert torch.allclose(total, expected_total)  # the sum of two parts in float32, in another order
    else:
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))


def test_a_profiled_program_runs_as_a_bare_one(file_of: Exporting) -> None:
    loaded = attnprof.load_model(file_of("odd", True))
    bare = copy.deepcopy(loaded.model.state_dict())
    attnprof.run(loaded, backward=True)
    after = loaded.model.state_dict()
    assert bare.keys() == after.keys()
    assert all(torch.equal(bare[key], after[key]) for key in bare)
    assert all(p.grad is None for p in loaded.model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_contractions_survive_decomposition(file_of: Exporting, name: str) -> None:
    """run_decompositions rewrites the ops, not the products, nor the modules that they belong to.

    But for those under no_grad: of these PyTorch keeps only the module that the region was in.
    """
    kind, args, kwargs = CASES[name]
    model = kind().eval()
    loaded = attnprof.load_model(file_of(name, decomposed=True))
    counted, expected = contractions(attnprof.run(loaded)), contractions(attnprof.run(model, args, kwargs))
    if name == "odd":
        inner = expected["forward"].pop("inner")
        assert counted["forward"].pop("inner") == inner / 2  # of its two calls, one was under no_grad
        counted, expected = ({phase: {"": of.get("", 0)} for phase, of in all_.items()} for all_ in (counted, expected))
    assert counted == expected


def test_tied_weights_are_one_parameter(file_of: Exporting) -> None:
    model = Gpt()
    program = attnprof.load_model(file_of("gpt")).model
    assert program.lm_head.weight is program.wte.weight
    report = attnprof.run(program, CASES["gpt"][1])
    assert report.memory.parameter_bytes == 4 * sum(p.numel() for p in model.parameters())


def test_a_fake_run_counts_the_same(file_of: Exporting) -> None:
    for name in CASES:
        loaded = attnprof.load_model(file_of(name))
        real, fake = attnprof.run(loaded, backward=True), attnprof.run(loaded, backward=True, fake=True)
        assert per_module(real) == per_module(fake)


def test_checkpoints_run_the_segments_again(file_of: Exporting) -> None:
    """A checkpointed block repeats its own forward, but for the last product, which saves nothing that is needed."""
    loaded = attnprof.load_model(file_of("gpt"))
    plan = attnprof.Plan(checkpoint=True)
    program, model = (
        attnprof.run(loaded, backward=True, plan=plan),
        attnprof.run(Gpt(), CASES["gpt"][1], backward=True, plan=plan),
    )
    assert contractions(program) == contractions(model)
    assert contractions(program)["recompute"] != {}


def test_theory_is_compared_with_a_program(file_of: Exporting) -> None:
    loaded = attnprof.load_model(file_of("gpt"))
    found = {c.module: c.residual for c in attnprof.run(loaded, backward=True).comparisons}
    assert {name: found.get(name) for name in ("h.0.mlp.0", "h.1.attn.qkv", "lm_head")} == {
        "h.0.mlp.0": 0,
        "h.1.attn.qkv": 0,
        "lm_head": 0,
    }


@pytest.fixture(scope="module")
def open_sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"ids": {0: Dim("batch", min=2, max=64), 1: Dim("seq", min=2, max=128)}}
    return saved(
        tmp_path_factory.mktemp("open") / "model.pt2", Gpt(), (torch.arange(14).view(2, 7),), dynamic_shapes=sizes
    )


def test_sizes_that_are_open_can_be_set(open_sizes: Path) -> None:
    for given in ({"dims": {"batch": 4, "seq": 9}}, {"dims": {"ids.0": 4, "ids.1": 9}}, {"batch": 4, "seq": 9}):
        loaded = attnprof.load_model(open_sizes, **given)
        assert [tuple(x.shape) for x in loaded.args] == [(4, 9)]
        assert int(loaded.args[0].max()) < 32  # token ids of the examples, repeated
        expected = attnprof.run(Gpt(), (torch.zeros(4, 9, dtype=torch.long),), backward=True)
        assert per_module(attnprof.run(loaded, backward=True)) == per_module(expected)


def test_other_inputs_of_the_users_own(open_sizes: Path) -> None:
    loaded = attnprof.load_model(open_sizes)
    x = torch.zeros(3, 5, dtype=torch.long)
    by_position, by_name = attnprof.run(loaded, (x,)), attnprof.run(loaded, kwargs={"ids": x})
    assert per_module(by_position) == per_module(attnprof.run(Gpt(), (x,)))
    assert by_name.total == by_position.total


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"batch": 65}, ["batch=65", "from 2 to 64", "ids.0"]),
        ({"batch": 1}, ["batch=1", "from 2 to 64"]),
        ({"seq": 129}, ["seq=129", "to 128"]),
        ({"heads": 4}, ['no size "heads"', "ids.0", "ids.1"]),
        ({"ids.2": 4}, ['no size "ids.2"', "Did you mean"]),
    ],
)
def test_sizes_that_are_not_there_or_not_allowed(open_sizes: Path, dims: dict[str, int], words: list[str]) -> None:
    with pytest.raises(AttnprofError) as caught:
        attnprof.load_model(open_sizes, dims=dims)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_a_program_of_fixed_sizes_has_none_to_set(tmp_path: Path) -> None:
    file = saved(tmp_path / "model.pt2", nn.Linear(4, 2), (torch.zeros(3, 4),))
    with pytest.raises(AttnprofError, match="fixed sizes"):
        attnprof.load_model(file, dims={"batch": 4})


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((torch.zeros(2, 7),), {}, ["ids is float32[2,7]", "exported for int64"]),
        ((torch.zeros(1, 7, dtype=torch.long),), {}, ["ids.0 is 1", "from 2 to 64"]),
        ((torch.zeros(2, dtype=torch.long),), {}, ["ids is int64[2]"]),
        ((), {"mask": torch.zeros(1)}, ["the program takes ids", "mask"]),
    ],
)
def test_arguments_that_do_not_fit(
    open_sizes: Path, args: tuple[Any, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    program = attnprof.load_model(open_sizes).model
    with pytest.raises(AttnprofError) as caught:
        program(*args, **kwargs)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_program_keeps_its_mode(file_of: Exporting) -> None:
    program = attnprof.load_model(file_of("conv")).model
    for change in (program.eval, program.train):
        with pytest.raises(AttnprofError, match="mode it was exported in"):
            change()


def test_without_example_inputs_some_are_made(tmp_path: Path) -> None:
    program = torch.export.export(Gpt(), CASES["gpt"][1])
    program.example_inputs = None
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = attnprof.load_model(tmp_path / "model.pt2")
    assert [(x.shape, x.dtype) for x in loaded.args] == [((2, 7), torch.long)]
    report = attnprof.run(loaded)
    assert any("no example inputs" in note for note in report.trace.notes)
    assert per_module(report) == per_module(attnprof.run(Gpt(), CASES["gpt"][1]))


def test_buffers_written_at_the_end_are_said(file_of: Exporting) -> None:
    loaded = attnprof.load_model(file_of("odd", decomposed=True))
    assert any("writes 1 buffer back" in note for note in loaded.notes)
    report = attnprof.run(loaded)
    # count is read and written by its own addition, and then once more by the copy
    assert report.by_operator()["aten.copy_.default"].write_bytes == 4


class Rope(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            angles = torch.arange(x.shape[-1], dtype=x.dtype).cos()
        with torch.autocast("cpu", enabled=False):
            return x * angles


class Roped(nn.Module):
    """Regions without gradients that cover a whole module, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.rope, self.b = nn.Linear(4, 4), Rope(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.rope(self.a(x)))


def test_regions_stay_in_their_module(tmp_path: Path) -> None:
    x = torch.ones(2, 4)
    loaded = attnprof.load_model(saved(tmp_path / "model.pt2", Roped(), (x,)))
    counted, expected = attnprof.run(loaded, backward=True), attnprof.run(Roped(), (x,), backward=True)
    assert per_module(counted) == per_module(expected)
    calls = {record.fqn: record.call_count for record in counted.trace.modules}
    assert [calls[name] for name in ("a", "rope", "b")] == [1, 1, 1]


def test_gradients_that_a_program_computes_itself(tmp_path: Path) -> None:
    """A joint program has its backward in the graph: its ops are of its forward, and a note says so."""
    from torch.export.experimental import _export_forward_backward

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).sum()

    joint = _export_forward_backward(torch.export.export(WithLoss(), (torch.ones(2, 4),)))
    torch.export.save(joint, tmp_path / "joint.pt2")
    loaded = attnprof.load_model(tmp_path / "joint.pt2")
    report = attnprof.run(loaded)
    assert any("computes its own gradients" in note for note in report.trace.notes)
    # the product, and that of the weight's gradient; the input needs none
    assert report.total.matmul_flops == 2 * 2 * 4 * 3 + 2 * 4 * 2 * 3


def test_quantized_weights(tmp_path: Path) -> None:
    """int8 weights that the program dequantizes: its product is in float, its traffic has the int8 bytes."""

    class Int8(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(3, 4, dtype=torch.int8))
            self.register_buffer("scale", torch.full((3, 1), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)

    x = torch.ones(2, 4)
    loaded = attnprof.load_model(saved(tmp_path / "model.pt2", Int8(), (x,)))
    counted, expected = attnprof.run(loaded), attnprof.run(Int8(), (x,))
    assert per_module(counted) == per_module(expected)
    assert counted.total.matmul_flops == 2 * 2 * 4 * 3


def test_ops_of_quantized_programs(tmp_path: Path) -> None:
    """Ops that PyTorch registers only where it quantises are there when a program has them, and have a price."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch.ao.quantization.fx._decomposed")
    ops = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            q = ops.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
            return self.linear(ops.dequantize_per_tensor(q, 0.1, 0, -128, 127, torch.int8))

    loaded = attnprof.load_model(saved(tmp_path / "model.pt2", Quantized(), (torch.ones(2, 4),)))
    report = attnprof.run(loaded)
    assert report.unpriced == {}
    assert report.total.matmul_flops == 2 * 2 * 4 * 3
    # x / s + z, rounded, within the range: 5 each; (q - z) s: 2 each; the bias
    assert report.total.vector_flops == 5 * 2 * 4 + 2 * 2 * 4 + 2 * 3
    # float x and the int8 of it, read and written, twice; the product's operands and result
    product = 4 * (2 * 4 + 4 * 3 + 3 + 2 * 3)
    assert report.total.bytes == 2 * (4 + 1) * 2 * 4 + product


def test_ops_of_the_users_own(tmp_path: Path) -> None:
    with torch.library._scoped_library("attnprof_saved_tests", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("double", torch.empty_like, "Meta")

        class Own(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.ops.attnprof_saved_tests.double(x)

        loaded = attnprof.load_model(saved(tmp_path / "model.pt2", Own(), (torch.ones(3),)))
        assert torch.equal(loaded.model(*loaded.args), torch.full((3,), 2.0))
    with pytest.raises(AttnprofError, match=r"attnprof_saved_tests::double\.default is not registered"):
        attnprof.load_model(tmp_path / "model.pt2")


@pytest.mark.slow
def test_a_model_of_transformers(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, use_cache=False
    )
    model = LlamaForCausalLM(config).eval()
    kwargs = {"input_ids": torch.arange(14).view(2, 7)}
    loaded = attnprof.load_model(saved(tmp_path / "model.pt2", model, (), kwargs))
    counted, expected = attnprof.run(loaded, backward=True), attnprof.run(model, (), kwargs, backward=True)
    assert contractions(counted)["forward"] == contractions(expected)["forward"]
    assert contractions(counted)["backward"] == contractions(expected)["backward"]
    # all other ops are those of the program: transformers makes masks in it that the model itself does without
    bare = torch.export.load(tmp_path / "model.pt2").module(check_guards=False)
    assert counted.by_operator() == attnprof.run(bare, (), kwargs, backward=True).by_operator()


def test_a_file_that_was_loaded_says_what_it_takes(open_sizes: Path) -> None:
    program = attnprof.load_model(open_sizes).model
    assert list(inspect.signature(program.forward).parameters) == ["ids"]


def test_the_example_is_what_its_script_exports() -> None:
    examples = Path(__file__).parents[2] / "examples"
    model = runpy.run_path(str(examples / "exporting.py"))["Classifier"]().eval()
    loaded = attnprof.load_model(examples / "classifier.pt2", dims={"batch": 3, "seq": 5})
    expected = attnprof.run(model, (torch.zeros(3, 5, dtype=torch.long),), backward=True)
    assert per_module(attnprof.run(loaded, backward=True)) == per_module(expected)
    assert b"/exporting.py" not in (examples / "classifier.pt2").read_bytes()  # no paths of anybody's machine


class Open(nn.Module):
    """Whole numbers, other dtypes of arguments, results that are arguments, vmap, sizes as results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, times: int, rest: list[Tensor], flag: bool = True) -> tuple[Any, ...]:
        y = torch.vmap(self.linear)(x) * times
        return x, y + rest[0] if flag else y, rest, x.shape[0], None


def test_numbers_lists_and_results_of_all_kinds(tmp_path: Path) -> None:
    sizes = {"x": {0: Dim("batch", min=2, max=64)}, "times": Dim.DYNAMIC, "rest": [None]}
    args = (torch.ones(3, 4), 3, [torch.ones(4)])
    file = saved(tmp_path / "model.pt2", Open(), args, dynamic_shapes=sizes)
    for dims in ({}, {"times": 7, "x.0": 5}):
        loaded = attnprof.load_model(file, dims=dims)
        assert (loaded.args[0].shape[0], loaded.args[1]) == (dims.get("x.0", 3), dims.get("times", 3))
        expected = attnprof.run(Open(), loaded.args, backward=True)
        assert per_module(attnprof.run(loaded, backward=True)) == per_module(expected)
    x, y, rest, rows, nothing = loaded.model(*loaded.args)
    assert x is loaded.args[0]
    assert (y.shape, len(rest), rows, nothing) == ((5, 4), 1, 5, None)


def test_constants_that_were_decided_at_the_export(tmp_path: Path) -> None:
    program = attnprof.load_model(saved(tmp_path / "a.pt2", Open(), (torch.ones(3, 4), 3, [torch.ones(4)]))).model
    with pytest.raises(AttnprofError, match=r"times is 4, and the program was exported for 3"):
        program(torch.ones(3, 4), 4, [torch.ones(4)])


def test_conditions_keep_their_totals(tmp_path: Path) -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.a(self.b(x)), lambda x: self.b(x), (x,))

    for x, products in ((torch.ones(3, 4), 2), (-torch.ones(3, 4), 1)):
        loaded = attnprof.load_model(saved(tmp_path / "model.pt2", Either(), (x,)))
        assert attnprof.run(loaded).total.matmul_flops == products * 2 * 3 * 4 * 4


def test_a_program_can_be_copied(file_of: Exporting) -> None:
    loaded = attnprof.load_model(file_of("gpt"))
    copied = copy.deepcopy(loaded.model)
    assert torch.equal(copied(*loaded.args), loaded.model(*loaded.args))
    with torch.no_grad():
        copied.lm_head.weight.zero_()  # tied to the embedding in the copy too
    assert float(copied(*loaded.args).abs().sum()) == 0
    assert float(loaded.model(*loaded.args).abs().sum()) > 0


def test_a_program_is_left_as_it_was_by_an_error(file_of: Exporting) -> None:
    loaded = attnprof.load_model(file_of("gpt"))
    expected = loaded.model(*loaded.args)
    with pytest.raises(IndexError):
        attnprof.run(loaded, (torch.full((2, 7), 99),))  # beyond the vocabulary
    assert torch.equal(loaded.model(*loaded.args), expected)


class Derived(nn.Module):
    """Takes twice as many rows of y as of x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = self.linear(torch.cat([x, x])) + y
        return made


@pytest.mark.parametrize("dims", [{"batch": 6}, {"x.0": 6}, {"y.0": 12}])
def test_sizes_that_follow_from_another(tmp_path: Path, dims: dict[str, int]) -> None:
    batch = Dim("batch", min=2, max=64)
    arguments = (torch.zeros(3, 4), torch.zeros(6, 4))
    file = saved(tmp_path / "m.pt2", Derived(), arguments, dynamic_shapes={"x": {0: batch}, "y": {0: 2 * batch}})
    loaded = attnprof.load_model(file, dims=dims)
    assert [tuple(value.shape) for value in loaded.args] == [(6, 4), (12, 4)]
    assert attnprof.run(loaded).total.matmul_flops == 2 * 12 * 4 * 4


def test_a_size_that_no_axis_has_as_it_is(tmp_path: Path) -> None:
    """Rows that are a multiple of 4: the program's symbol is a quarter of them, from 2 to 64."""
    model = nn.Sequential(nn.Linear(8, 4), nn.Unflatten(0, (-1, 4)))
    file = saved(tmp_path / "m.pt2", model, (torch.zeros(16, 8),), dynamic_shapes=({0: 4 * Dim("b", min=2, max=64)},))
    for dims, rows in (({}, 16), ({"batch": 32}, 32), ({"input.0": 8}, 8)):
        assert attnprof.run(attnprof.load_model(file, dims=dims)).total.matmul_flops == 2 * rows * 8 * 4
    for rows, words in ((30, "is no 4*"), (260, "is outside of")):
        with pytest.raises(AttnprofError) as caught:
            attnprof.load_model(file, dims={"batch": rows})
        assert words in str(caught.value)
        assert "input.0 = 4*" in str(caught.value)


class Named(nn.Module):
    """Submodules of names that an implementation might want for itself."""

    NAMES = ("taking", "part", "cut", "places", "segment", "signature")

    def __init__(self) -> None:
        super().__init__()
        for name in self.NAMES:
            self.add_module(name, nn.Linear(4, 4))
            self.add_module(f"_{name}", nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.NAMES:
            x = self.get_submodule(f"_{name}")(self.get_submodule(name)(x))
        return x


def test_modules_may_have_any_name(tmp_path: Path) -> None:
    report = attnprof.run(attnprof.load_model(saved(tmp_path / "m.pt2", Named(), (torch.zeros(2, 4),))))
    found = {name: cost.matmul_flops for name, cost in report.by_module().items() if name and cost.matmul_flops}
    assert found == {f"{before}{name}": 2 * 2 * 4 * 4 for name in Named.NAMES for before in ("", "_")}


def test_a_decomposed_normalization_can_be_trained(tmp_path: Path) -> None:
    """Its running statistics are written back by copies, after what the backward has kept of them."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    x = torch.randn(2, 3, 8, 8)
    loaded = attnprof.load_model(saved(tmp_path / "m.pt2", model, (x,), decomposed=True))
    report, expected = attnprof.run(loaded, backward=True), attnprof.run(model, (x,), backward=True)
    assert contractions(report) == contractions(expected)
    # two statistics of 4 channels are read and written once more by copies, and the number of batches
    copied = 2 * 4 * 4 + 8
    assert report.total.read_bytes == expected.total.read_bytes + copied
    assert report.total.write_bytes == expected.total.write_bytes + copied
    program = attnprof.load_model(tmp_path / "m.pt2").model
    model(x).square().sum().backward()
    program(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        found = program.get_parameter(name).grad
        assert found is not None
        assert torch.equal(found, parameter.grad), name


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_weights_are_read_where_they_are_used(tmp_path: Path) -> None:
    """Weights of 64 MiB stay in the file when it is counted on fake tensors."""
    n = 4096
    file = saved(tmp_path / "m.pt2", nn.Linear(n, n, bias=False), (torch.zeros(1, n),))
    loaded = attnprof.load_model(file, fake=True)
    attnprof.run(loaded, fake=True)  # what PyTorch imports when it runs
    del loaded
    gc.collect()
    before = resident_bytes()
    loaded = attnprof.load_model(file, fake=True)
    report = attnprof.run(loaded, fake=True)
    assert report.total.matmul_flops == 2 * n * n
    # the graph and the report take a few megabytes; the weights would take four times this
    assert resident_bytes() - before < 4 * n * n // 4


def test_the_weights_are_those_of_the_file_and_the_file_stays(tmp_path: Path) -> None:
    model = nn.Linear(4, 4)
    file = saved(tmp_path / "m.pt2", model, (torch.zeros(2, 4),))
    content = file.read_bytes()
    loaded = attnprof.load_model(file).model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    with torch.no_grad():
        loaded.get_parameter("weight").fill_(7)
    assert file.read_bytes() == content
    assert torch.equal(attnprof.load_model(file).model.get_parameter("weight"), model.weight)
