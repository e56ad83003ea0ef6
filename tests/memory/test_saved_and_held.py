"""Copies of weights that autocast makes, and what outlives a call though autograd does not keep it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memory.nets import Applied
from memory.readings import read, read_call

E, LONG = 4, 8
N, D = 5, 12
ROW = E * N * D


def rows(grad: bool = True) -> Tensor:
    return torch.randn(N, D, requires_grad=grad)


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
