"""Tensors that autograd keeps otherwise than on nodes of its own, or under other layouts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from memory.nets import Applied
from memory.readings import Reading, read, read_call
from memory.reference import allocator

E, LONG = 4, 8
N, D = 5, 12
ROW = E * N * D


def rows(grad: bool = True) -> Tensor:
    return torch.randn(N, D, requires_grad=grad)


# Functions of the user's


class Saving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(x, y)
        return y + 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        _, y = ctx.saved_tensors
        return gradient * y


class SavingApart(torch.autograd.Function):
    """With its context set up beside the forward."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = x.exp()
        return y + 1, y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * ctx.saved_tensors[1]


class Attributes(torch.autograd.Function):
    """Kept past ``save_for_backward``: an attribute, a list, a dict in a tuple, and a closure."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.one = x.exp()
        ctx.some = [x.sin(), None, x.cos()]
        ctx.nested = ({"tan": x.tan()}, 3)
        tanh = x.tanh()
        ctx.run = lambda: tanh
        return x + 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * ctx.one * ctx.run()


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("function", "rows_kept"), [(Saving, 2), (SavingApart, 2), (Attributes, 5)], ids=lambda value: str(value)
)
def test_custom_function(function: type[torch.autograd.Function], rows_kept: int, fake: bool) -> None:
    def first(x: Tensor) -> Tensor:
        y = function.apply(x)
        return y[0] if isinstance(y, tuple) else y

    reading = read_call(nn.Sequential(nn.Tanh(), Applied(first)), (rows(),), fake=fake)
    expected = {"0": ROW, "1": rows_kept * ROW}
    if function is not Attributes:
        expected["1"] -= ROW  # the input, which tanh saved as its output
    assert reading.saved_by_name() == expected


def test_a_function_that_keeps_its_module_keeps_no_activation() -> None:
    """Parameters reached through a context are parameters."""
    layer = nn.Linear(D, D)

    class Keeping(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.weight, ctx.layer = layer.weight, layer
            return x + 1

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient @ ctx.weight

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return Keeping.apply(x)

    assert read_call(Net(), (rows(),)).memory.saved == []


# Hooks on saved tensors


def test_users_hooks_still_see_what_they_saw() -> None:
    """Each tensor is packed once, and none is unpacked for the profile."""
    log: list[str] = []

    def pack(t: Tensor) -> Tensor:
        log.append("pack")
        return t.clone()

    def unpack(t: Tensor) -> Tensor:
        log.append("unpack")
        return t

    def run() -> None:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = net(x)
        y.sum().backward()

    net, x = nn.Sequential(nn.Tanh(), nn.Sigmoid()), rows()
    run()
    bare = list(log)
    log.clear()
    reading = read(run, net)
    assert log == bare == ["pack"] * 2 + ["unpack"] * 2
    assert reading.saved_by_name() == {"0": ROW, "1": ROW}  # the copies, made where the hooks ran


def test_save_on_cpu_keeps_what_it_packed() -> None:
    """Device and tensor; on the CPU the tensor that was there, so the output of tanh counts once."""

    def run() -> None:
        with torch.autograd.graph.save_on_cpu():
            y = net(x)
        y.sum().backward()

    net, x = nn.Sequential(nn.Tanh(), nn.Linear(D, D, bias=False)), rows()
    assert read(run, net).saved_by_name() == {"0": ROW}


def test_what_hooks_write_to_disk_is_not_in_memory(tmp_path: Any) -> None:
    def pack(t: Tensor) -> str:
        name = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.pt")
        torch.save(t.detach(), name)
        return name

    def run() -> None:
        with torch.autograd.graph.saved_tensors_hooks(pack, torch.load):
            y = net(x)
        y.sum().backward()

    net, x = nn.Sequential(nn.Tanh(), nn.Sigmoid()), rows()
    assert read(run, net).memory.saved == []


def test_a_tensor_changed_in_place_is_still_an_error() -> None:
    def run() -> None:
        y = net(x)
        y.add_(1)
        y.sum().backward()

    net, x = nn.Sequential(nn.Tanh()), rows()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), attnprof.profile(net) as prof:
        run()
    assert Reading(prof.trace).saved_by_name() == {"0": ROW}


# torch.func


@pytest.mark.parametrize("vectorised", [False, True])
def test_functional_gradients_are_the_same_and_leave_what_torch_leaves(vectorised: bool) -> None:
    """The layer saves the rows, under whatever torch has wrapped them in; the graph goes with the transform.

    (Of that graph, torch keeps a few tensors for as long as the gradients live: its allocator says so.)
    """
    layer, x = nn.Linear(D, D), rows(False)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).tanh().sum()

    gradient = torch.func.grad(loss)
    if vectorised:
        gradient = torch.func.vmap(gradient, in_dims=(None, 0))
    bare = gradient(parameters, x)
    made = allocator(lambda: gradient(parameters, x))
    out: dict[str, Tensor] = {}
    reading = read(lambda: out.update(gradient(parameters, x)), layer)
    assert all(torch.equal(out[name], bare[name]) for name in bare)
    assert (reading.saved.bytes, reading.saved.input_bytes, reading.saved.held) == (ROW, ROW, {})
    before = E * (D * D + D) + ROW
    assert (reading.live[-1], reading.peak) == (before + made.live, before + made.peak)


def test_a_vectorised_forward_saves_what_the_batch_saves() -> None:
    layer, x = nn.Linear(D, D), rows()
    reading = read(lambda: torch.func.vmap(layer)(x), layer)
    assert (reading.saved.bytes, reading.saved.input_bytes, reading.saved.held) == (ROW, ROW, {})


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, for its decompositions
def test_the_zeros_of_forward_mode_hold_nothing() -> None:
    """An input without a tangent gets one that has a size and no bytes: the allocator knows nothing of it."""

    def run() -> None:
        x, y = torch.ones(N, D), torch.ones(N, D)
        torch.func.jvp(lambda a: (a * y).sin(), (x,), (x,))

    reading = read(run)
    assert "aten._efficientzerotensor.default" in {op.op for op in reading.trace.signatures}
    assert reading.peak == allocator(run).peak


def test_a_graph_inside_of_a_transform_is_read() -> None:
    """What tanh saves is wrapped by the transform; the storage is the same."""
    net, x = nn.Tanh(), rows(False)
    reading = read(lambda: torch.func.grad(lambda x: net(x).sum())(x), net)
    assert (reading.saved.bytes, reading.saved.input_bytes) == (ROW, 0)


# Layouts and lists


def test_sparse_gradients_are_gradients() -> None:
    """Indices and values of the rows that were looked up."""
    embed = nn.Embedding(7, D, sparse=True)
    ids = torch.tensor([1, 2, 1])
    reading = read(lambda: embed(ids).sum().backward(), embed)
    assert reading.memory.state_bytes["gradient"] == 3 * (LONG + E * D)
    assert reading.saved.bytes == LONG * 3


def test_what_an_unreadable_node_keeps_is_saved_by_whoever_made_it() -> None:
    """The nodes of foreach ops show nothing: what lives on, and is not in the output, they must have kept."""
    net = nn.Sequential(nn.Linear(D, D), Applied(lambda x: sum(torch._foreach_mul([x * 2, x * 3], [x * 4, x * 5]))))
    reading = read_call(net, (rows(),))
    assert reading.saved_by_name() == {"0": ROW, "1": 4 * ROW}
    assert reading.saved.held == {}


def test_an_op_in_place_on_a_view_hides_what_it_keeps() -> None:
    """Its node is wrapped in one that shows nothing. The mask is no input and no output, and lives on."""

    def half(x: Tensor) -> Tensor:
        y = x * 1
        y[:, :3].mul_(x[:, :3].detach().exp())
        return y

    assert read_call(Applied(half), (rows(),)).saved_by_name() == {"": E * N * 3}


def test_a_model_on_meta() -> None:
    """It is all there is: its tensors count though they hold nothing."""
    net = nn.Sequential(nn.Linear(D, 20), nn.Tanh(), nn.Linear(20, 3)).to("meta")
    reading = read_call(net, (torch.randn(N, D, device="meta", requires_grad=True),))
    assert reading.saved_by_name() == {"0": ROW, "1": E * N * 20}
    assert reading.memory.state_bytes["parameter"] == reading.memory.state_bytes["gradient"]
    assert reading.memory.state_bytes["parameter"] == E * (D * 20 + 20 + 20 * 3 + 3)


def test_meta_tensors_beside_a_real_model_are_questions_about_shapes() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            width = torch.empty(N, 1000, device="meta").transpose(0, 1).contiguous().shape[1]
            return x[:width].sin()

    reading = read_call(Net(), (rows(),))
    assert reading.saved.bytes == ROW
    assert reading.peak < E * N * 1000


def test_sparse_operands_are_saved_with_their_indices() -> None:
    """For the gradient of the dense one."""
    matrix = torch.eye(D).to_sparse()

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(matrix, x.t())

    assert read_call(Net(), (rows(),)).saved.bytes == D * (2 * LONG + E)


def test_ragged_rows_count_their_values() -> None:
    """A jagged tensor is the buffer of its values and the offsets of its rows; both are the layer's input."""
    layer = nn.Linear(D, D)

    def run() -> None:
        ragged = torch.nested.nested_tensor(
            [torch.randn(3, D), torch.randn(5, D)], layout=torch.jagged, requires_grad=True
        )
        layer(ragged).values().sum().backward()

    reading = read(run, layer)
    assert (reading.saved.bytes, reading.saved.input_bytes) == (E * 8 * D + LONG * 3, E * 8 * D + LONG * 3)


def test_nets_that_share_layers_book_to_the_first_saver() -> None:
    shared = nn.Linear(D, D)
    net = nn.Sequential(shared, nn.Tanh(), copy.deepcopy(shared), nn.Tanh(), shared)
    assert read_call(net, (rows(),)).saved_by_name() == {"0": ROW, "1": ROW, "3": ROW}
