"""Tensors that autograd keeps otherwise than on its own nodes, and calls that are not one forward, one backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attnprof
from memory.readings import Reading, read, read_call
from memory.reference import allocator

E, LONG = 4, 8
N, D = 5, 12
ROW = E * N * D


def rows(grad: bool = True) -> Tensor:
    return torch.randn(N, D, requires_grad=grad)


class Applied(nn.Module):
    """A module around one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


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


# Autocast


def test_autocast_keeps_copies_of_weights() -> None:
    """Half-precision copies of the weight matrices, 2 bytes per element: named apart, and not parameters."""
    net = nn.Sequential(nn.Linear(D, 20), nn.ReLU(), nn.Linear(20, 3))

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
        y.sum().backward()

    x = rows()
    reading = read(run, net)
    assert reading.saved.weight_copy_bytes == 2 * (D * 20 + 20 * 3)
    # Beside them the input in half precision, and the output of the ReLU.
    assert reading.saved.bytes == 2 * (D * 20 + 20 * 3) + 2 * N * D + 2 * N * 20
    assert reading.saved.input_bytes == 0


def test_autocast_copies_a_tied_weight_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    net, x = Tied(), rows()

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            net(x).sum().backward()

    assert read(run, net).saved.weight_copy_bytes == 2 * D * D


def test_copies_that_only_autocast_keeps_are_held() -> None:
    """Without a graph nothing is saved; the copies of weights and biases stay until autocast ends."""
    net, x = nn.Sequential(nn.Linear(D, 20), nn.Linear(20, 3)), rows(False)

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            net(x)

    reading = read(run, net)
    assert (reading.saved.bytes, reading.saved.weight_copy_bytes) == (0, 0)
    assert reading.held_by_name() == {"0": 2 * (D * 20 + 20), "1": 2 * (20 * 3 + 3)}
    assert reading.live[-1] == E * (D * 20 + 20 + 20 * 3 + 3) + ROW


def test_casts_by_hand_are_copies_of_weights_too() -> None:
    net = nn.Linear(D, D, bias=False)
    module = Applied(lambda x: F.linear(x.bfloat16(), net.weight.bfloat16()))
    module.layer = net
    reading = read_call(module, (rows(),))
    assert (reading.saved.bytes, reading.saved.weight_copy_bytes) == (2 * (N * D + D * D), 2 * D * D)


def test_what_is_computed_of_a_weight_is_no_copy_of_it() -> None:
    net = nn.Linear(D, D, bias=False)
    module = Applied(lambda x: F.linear(x, net.weight * 2))
    module.layer = net
    reading = read_call(module, (rows(),))
    assert (reading.saved.bytes, reading.saved.weight_copy_bytes) == (ROW + E * D * D, 0)


# Held


class Remembering(nn.Module):
    """Keeps what it computed last, and a copy as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)
        self.register_buffer("average", torch.zeros(D))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        self.last = y.detach() * 2
        self.average = y.detach().mean(0)
        return y


def test_what_a_module_remembers_is_held() -> None:
    """Not a buffer that was made anew."""
    net, x = Remembering(), rows()
    reading = read(lambda: net(x).sum().backward(), net)
    assert reading.saved_by_name() == {"layer": ROW}
    assert reading.held_by_name() == {"": ROW}
    assert reading.alive_at_the_end("buffer") == E * D


def test_a_cache_that_grows_is_held_by_each_call() -> None:
    """The call made the storage that outlives it, whichever tensors went into it."""

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key = nn.Linear(D, 3)
            self.keys: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            k = self.key(x)
            self.keys = k if self.keys is None else torch.cat([self.keys, k])
            return self.keys.sum(0)

    net = Cached()

    def run() -> None:
        with torch.no_grad():
            for _ in range(3):
                net(torch.zeros(2, D))

    reading = read(run, net)
    assert [call.bytes for call in reading.memory.saved] == [0, 0, 0]
    assert [reading.held_by_name(call) for call in range(3)] == [
        {"key": E * 2 * 3},
        {"": E * 4 * 3},
        {"": E * 6 * 3},
    ]


def test_a_remembered_output_is_the_callers() -> None:
    class Net(nn.Module):
        last: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.last = x * 2
            return self.last

    assert read(lambda: Net()(rows(False))).memory.saved == []


# Calls


def test_two_calls_before_one_backward() -> None:
    """Each call has what it saved itself; the second one's input is the first one's output."""
    net, x = nn.Sequential(nn.Tanh(), nn.Linear(D, D)), rows()

    def run() -> None:
        (net(x).sum() + net(x * 2).sum()).backward()

    reading = read(run, net)
    assert [reading.saved_by_name(call) for call in range(2)] == [{"0": ROW}] * 2
    first, second = reading.memory.saved
    assert first.at < second.at


def test_a_graph_that_grows_over_calls_is_counted_once_per_call() -> None:
    """A call whose graph reaches back into another one keeps that alive too: what is alive then is what counts."""
    net, x = nn.Tanh(), rows()

    def run() -> None:
        net(net(x)).sum().backward()

    reading = read(run, net)
    assert [call.bytes for call in reading.memory.saved] == [ROW, 2 * ROW]
    assert [call.input_bytes for call in reading.memory.saved] == [0, ROW]


def test_gradient_accumulation_saves_the_same_every_time() -> None:
    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))

    def run() -> None:
        for _ in range(3):
            net(rows()).sum().backward()

    reading = read(run, net)
    assert [reading.saved_by_name(call) for call in range(3)] == [{"0": ROW}] * 3
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)


def test_double_backward_saves_in_the_first_one() -> None:
    """The forward kept what a forward keeps; the graph of the gradient is made by no module call."""
    net, x = nn.Sequential(nn.Linear(D, D), nn.Tanh()), rows()

    def run() -> None:
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()

    reading = read(run, net)
    assert reading.saved_by_name() == {"0": ROW, "1": ROW}


def test_a_module_called_in_a_backward_is_part_of_it() -> None:
    """No outermost forward: what it leaves is a temporary of the backward."""
    inner = nn.Linear(D, D)

    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return inner(gradient)

    net, x = Applied(Backwards.apply), rows()
    reading = read(lambda: net(x).sum().backward(), net)
    assert reading.memory.saved == []


def test_a_backward_in_a_forward() -> None:
    """What it used is gone when the forward returns."""

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.layer(x).tanh().sum(), x)[0]

    net, x = Energy(), rows(False)
    assert read(lambda: net(x), net).memory.saved == []


def test_a_wrapper_is_not_a_second_call() -> None:
    class DistributedDataParallel(nn.Module):
        """Wraps a module under the name that torch's own uses."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any) -> Any:
            return self.module(*args)

    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))
    reading = read_call(DistributedDataParallel(net), (rows(),))
    assert reading.saved_by_name() == {"0": ROW}


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_an_exception_the_report_goes_up_to_there(where: str) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if where == "forward":
                raise MemoryError("there is none")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise MemoryError("there is none")

    net, x = nn.Sequential(nn.Linear(D, D), nn.Tanh(), Applied(Broken.apply)), rows()
    prof = attnprof.profile(net)
    with pytest.raises(MemoryError, match="there is none"), prof:
        net(x).sum().backward()
    reading = Reading(prof.trace)
    assert reading.memory.state_bytes["parameter"] == E * (D * D + D)
    if where == "backward":
        assert reading.saved_by_name() == {"0": ROW, "1": ROW}
    else:
        assert reading.memory.saved == []
    with prof:  # and on it goes
        nn.Tanh()(x).sum().backward()
    assert Reading(prof.trace).memory.saved[-1].bytes == ROW


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
