"""What autograd keeps of other layers, by hand: convolutions, recurrences, dropout, losses, experts, shared weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memory.nets import attention_bytes
from memory.readings import read, read_call
from training.attention import Attention

E = 4  # bytes of a float32
LONG = 8  # and of an int64
N, D = 5, 12

both_kinds = pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])


def rows(*shape: int, grad: bool = True) -> Tensor:
    return torch.randn(*(shape or (N, D)), requires_grad=grad)


@both_kinds
@pytest.mark.parametrize("training", [True, False])
def test_convolution_batch_norm_relu(training: bool, fake: bool) -> None:
    """Each saves its input, but for the ReLU, which saves its output: three maps and the image.

    In training, batch norm keeps mean and inverse deviation of each channel; in evaluation, buffers do.
    """
    images, channels, side = 2, 6, 8
    net = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(6, 1, 1))
    net.train(training)
    reading = read_call(net, (rows(images, 3, side, side),), fake=fake)
    one = E * images * channels * side * side
    assert reading.saved_by_name() == {
        "0": E * images * 3 * side * side,
        "1": one + (2 * E * channels if training else 0),
        "2": one,  # which the last convolution saves too
    }


@both_kinds
def test_inplace_relu_saves_what_batch_norm_made(fake: bool) -> None:
    net = nn.Sequential(nn.Linear(D, D), nn.ReLU(inplace=True), nn.Linear(D, D))
    reading = read_call(net, (rows(),), fake=fake)
    assert reading.saved_by_name() == {"0": E * N * D, "1": E * N * D}


@both_kinds
def test_dropout_keeps_its_mask(fake: bool) -> None:
    """On a CPU dropout is a product with a mask of the input's own dtype; the next layer saves the product."""
    net = nn.Sequential(nn.Linear(D, D), nn.Dropout(0.5), nn.Linear(D, D))
    reading = read_call(net, (rows(),), fake=fake)
    assert reading.saved_by_name() == {"0": E * N * D, "1": E * N * D, "2": E * N * D}
    net.eval()
    assert read_call(net, (rows(),), fake=fake).saved_by_name() == {"0": E * N * D, "2": E * N * D}


def test_layer_norm_of_half_precision_keeps_its_statistics_in_it() -> None:
    reading = read_call(nn.LayerNorm(D).bfloat16(), (rows().detach().bfloat16().requires_grad_(),))
    assert reading.saved.bytes == 2 * (N * D + 2 * N)


@both_kinds
def test_cross_entropy_inside_the_model(fake: bool) -> None:
    """The head saves its input; log-softmax its output, N V; the loss the targets and the weight of all, one number."""
    vocabulary = 7

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(vocabulary, D), nn.Linear(D, vocabulary)

        def forward(self, ids: Tensor) -> Tensor:
            return F.cross_entropy(self.head(self.embed(ids)), ids)

    reading = read_call(Net(), (torch.randint(vocabulary, (N,)),), fake=fake)
    assert reading.saved_by_name() == {
        "embed": LONG * N,  # the ids, which are the targets as well
        "head": E * N * D,
        "": E * N * vocabulary + E,
    }
    assert reading.saved.input_bytes == LONG * N


@both_kinds
def test_tied_weights_are_parameters_under_both_names(fake: bool) -> None:
    vocabulary = 7
    embed, head = nn.Embedding(vocabulary, D), nn.Linear(D, vocabulary, bias=False)
    head.weight = embed.weight
    reading = read_call(nn.Sequential(embed, nn.Tanh(), head), (torch.randint(vocabulary, (N,)),), fake=fake)
    assert reading.saved_by_name() == {"0": LONG * N, "1": E * N * D}
    assert reading.memory.state_bytes["parameter"] == E * vocabulary * D


def test_lstm_cell() -> None:
    """Written out: the gates before and after their nonlinearity, and the states."""
    hidden = 3
    cell = nn.LSTMCell(D, hidden)
    x, h, c = rows(), rows(N, hidden), rows(N, hidden)
    reading = read_call(cell, (x, (h, c)))
    # input and hidden state for the weights; sigmoid and tanh outputs of 4 gates; c; tanh of the new c.
    # The kernel keeps the 4 gates in one storage, after their nonlinearity.
    assert reading.saved.bytes == E * N * (D + hidden + 4 * hidden + hidden + hidden)
    assert reading.saved.input_bytes == E * N * (D + 2 * hidden)


@both_kinds
def test_gru(fake: bool) -> None:
    """The input with time first, and per step 7 rows: the state before, the three gates in one storage where two

    get their sigmoid in place, a copy of the third before it is multiplied in place, the tanh, and a copy of the
    difference to the state, multiplied in place too.
    """
    batch, steps, hidden = 2, 4, 3
    reading = read_call(nn.GRU(D, hidden, batch_first=True), (rows(batch, steps, D),), fake=fake)
    assert reading.saved.bytes == E * batch * steps * (D + 7 * hidden)
    assert reading.saved.input_bytes == 0


@both_kinds
def test_lstm(fake: bool) -> None:
    """The input with time first, all outputs, two states before and after; and oneDNN's own workspace,

    of the size that it says. The fake kernel has none.
    """
    batch, steps, hidden = 2, 4, 3
    reading = read_call(nn.LSTM(D, hidden, batch_first=True), (rows(batch, steps, D),), fake=fake)
    (kernel,) = (op for op in reading.trace.signatures if op.op == "aten.mkldnn_rnn_layer.default")
    workspace = kernel.outs[3]
    assert (workspace.shape == (0,)) == fake
    assert reading.saved.bytes == E * batch * (steps * (D + hidden) + 4 * hidden) + workspace.shape[0]


@pytest.mark.parametrize("frozen", ["qk", "qkv", "all but o"])
@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "fused"])
def test_freezing_queries_and_keys_saves_no_activation_while_x_needs_a_gradient(fused: bool, frozen: str) -> None:
    """The gradient of x goes through the same products, and those need the same tensors.

    Only x itself is no longer needed, once no weight that is multiplied by it wants a gradient.
    """
    heads, width = 3, E
    net = Attention(D, heads, fused)
    for name in {"qk": "qk", "qkv": "qkv", "all but o": "qkv"}[frozen]:
        getattr(net, name).requires_grad_(False)
    reading = read_call(net, (rows(1, N, D),))
    without_x = 0 if frozen == "qk" else E * N * D
    assert reading.saved.bytes == attention_bytes(1, N, D, heads, width, fused) - without_x


def test_frozen_queries_and_keys_of_a_plain_input_leave_only_what_values_need() -> None:
    """x for W_V, the probabilities for the values, and the weighted sum for W_O: no q, k, v."""
    heads = 3
    net = Attention(D, heads, fused=False)
    net.q.requires_grad_(False)
    net.k.requires_grad_(False)
    reading = read_call(net, (rows(1, N, D, grad=False),))
    assert reading.saved.bytes == E * (2 * N * D + heads * N * N)


def test_everything_frozen_and_a_plain_input_saves_nothing() -> None:
    net = Attention(D, 3, fused=False).requires_grad_(False)
    x = rows(1, N, D, grad=False)
    assert read(lambda: net(x), net).memory.saved == []


def test_everything_frozen_still_saves_what_the_gradient_of_x_needs() -> None:
    """q, k, v and the probabilities: neither x nor the weighted sum, which only weights need."""
    heads = 3
    net = Attention(D, heads, fused=False).requires_grad_(False)
    assert read_call(net, (rows(1, N, D),)).saved.bytes == E * (3 * N * D + heads * N * N)


class TopExpert(nn.Module):
    """Every token goes to one of E experts, a gate weighs the result."""

    def __init__(self, experts: int, f: int) -> None:
        super().__init__()
        self.router = nn.Linear(D, experts, bias=False)
        self.up = nn.ModuleList(nn.Linear(D, f) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(f, D) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(-1)
        gate, choice = weights.max(-1)
        out = torch.zeros_like(x)
        for expert, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            (mine,) = torch.where(choice == expert)
            out = out.index_add(0, mine, gate[mine].unsqueeze(-1) * down(up(x[mine]).relu()))
        return out


def test_mixture_of_experts_saves_the_rows_that_were_routed() -> None:
    """x, the probabilities and the choice of each token once; and per routed row, whoever got it, its copy, its

    hidden row, its result, its gate, their product (index_add asks for its shape), and its index, saved by three.
    """
    experts, f = 3, 7
    net, x = TopExpert(experts, f), rows()
    reading = read_call(net, (x,))
    per_row = E * (D + f + D + 1 + D) + LONG
    assert reading.saved.bytes == E * N * (D + experts) + LONG * N + N * per_row


def test_a_view_keeps_all_of_its_storage_alive() -> None:
    """One row of a table of N: what autograd keeps from being freed is the table."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            table = x.exp()  # saves its output
            return table[0] * table[1]

    assert read_call(Net(), (rows(),)).saved.bytes == E * N * D


def test_copies_are_storages_of_their_own() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.t().contiguous().exp().t().contiguous().sin()

    # exp saves its output; the copy after it is what sin saves.
    assert read_call(Net(), (rows(),)).saved.bytes == 2 * E * N * D


def test_sliced_input_saves_the_whole_input() -> None:
    """The caller's storage is alive as a whole, however little of it is used."""
    x = rows()
    layer = nn.Linear(D, D)

    def run() -> None:
        layer(x[:2]).sum().backward()

    reading = read(run, layer)
    assert (reading.saved.bytes, reading.saved.input_bytes) == (E * N * D, E * N * D)


def test_an_expanded_tensor_counts_its_storage() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            wide = x.sum(-1, keepdim=True).expand(N, D)
            return wide * x

    assert read_call(Net(), (rows(),)).saved.bytes == E * (N + N * D)


def test_outputs_that_are_saved_count() -> None:
    """exp saves its output, which the caller holds as well."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin().exp()

    reading = read_call(Net(), (rows(),))
    assert reading.saved_by_name() == {"": 2 * E * N * D}  # x for sin
    assert reading.saved.input_bytes == E * N * D


def test_structured_outputs_are_followed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(D, D), nn.Linear(D, 3)

        def forward(self, x: Tensor) -> dict[str, object]:
            h = self.a(x).tanh()
            return {"first": [h], "second": (self.b(h).exp(), None)}

    reading = read_call(Net(), (rows(),))
    assert reading.saved_by_name() == {"a": E * N * D, "": E * N * D + E * N * 3}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_nothing_is_saved(mode: type) -> None:
    net = Attention(D, 3, fused=True)
    with mode():
        x = torch.randn(1, N, D)
        assert read(lambda: net(x), net).memory.saved == []


def test_part_of_a_forward_without_a_graph() -> None:
    """A frozen backbone under no_grad: the head's input is all that is kept."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(D, D), nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.backbone(x).relu()
            return self.head(h)

    assert read_call(Net(), (rows(),)).saved_by_name() == {"head": E * N * D}
