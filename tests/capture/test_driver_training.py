"""A counted training step: a steady one, of the model the caller gave, which is afterwards what it was."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof import AttnprofError, Plan, api
from attnprof.capture.optimizers import steps_to_steady
from capture.nets import UNIT, Chain, linear, rows, units

WARMED = 8  # steps after which every optimizer of torch does what it goes on doing

NAMES = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adagrad:fused",
    "adam",
    "adam:foreach",
    "adamax",
    "adamw:foreach",
    "adamw:fused",
    "adamw:loop",
    "adamw,amsgrad=true",
    "asgd",
    "muon",
    "nadam",
    "radam",
    "radam:foreach",
    "rmsprop,momentum=0.9,centered=true",
    "rprop",
    "sgd",
    "sgd:fused,momentum=0.9",
    "sgd,momentum=0.9,nesterov=true",
)


class Noisy(nn.Module):
    """Two Linears with all that a step may disturb: a norm with running statistics, dropout, frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = linear(), nn.BatchNorm1d(7), linear()
        self.drop = nn.Dropout(0.5)
        self.second.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(self.norm(self.first(x))))


def own(name: str, model: nn.Module) -> list[torch.optim.Optimizer]:
    """What a user would write for a name."""
    from attnprof.capture.optimizers import made

    return made(name, model)[0]


Events = Counter[tuple[str, str, str, tuple[object, ...]]]


def events(trace: Any, start: int = 0, end: int | None = None) -> Events:
    """Ops with their phase, module and the shapes they were given; the marks torch puts around a step left out."""
    found = [(op, scope) for op, scope in list(trace.events())[start:end] if not op.op.startswith("profiler.")]
    return Counter(
        (op.op, scope.phase, trace.modules[scope.module].fqn, tuple(t.shape for t in op.inputs)) for op, scope in found
    )


def loop(name: str, count: int) -> Any:
    """The trace of a training loop."""
    model = Chain()
    optimizers = own(name, model)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(count):
            model(rows()).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
            with prof.unseen():
                for optimizer in optimizers:
                    optimizer.zero_grad(set_to_none=True)
            prof.step()
    return prof.trace


# What is counted


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("name", NAMES)
def test_the_step_counted_is_a_steady_one(name: str, fake: bool) -> None:
    """The optimizer's ops are those of a late step of a loop; none is of the step that creates the state."""
    trace = loop(name, WARMED)
    late = events(trace, trace.steps[-2])
    of_optimizer = Counter({event: n for event, n in late.items() if event[1] == "optimizer"})
    report = attnprof.run(Chain(), (rows(),), optimizer=name, fake=fake)
    found = events(report.trace)
    assert Counter({event: n for event, n in found.items() if event[1] == "optimizer"}) == of_optimizer
    assert of_optimizer.total() > 0
    assert {phase for _, phase, _, _ in found} == {"forward", "backward", "optimizer"}
    assert units(report)["first"] == {"forward": 1, "backward": 2}
    assert [record.call_count for record in report.trace.modules if record.fqn in ("", "first", "second")] == [1, 1, 1]
    assert report.unpriced == {}


def test_a_late_step_is_not_the_first() -> None:
    """What the test above relies on: the first step of AdamW makes its state, the first five of RAdam differ."""
    trace = loop("adamw", 2)
    first, second = events(trace, 0, trace.steps[0]), events(trace, trace.steps[0])
    assert {phase for _, phase, _, _ in first} >= {"optimizer_init"}
    assert first != second
    trace = loop("radam", WARMED)
    bounds = [0, *trace.steps]
    steps = [events(trace, start, end) for start, end in itertools.pairwise(bounds)]
    assert steps[4] != steps[5] == steps[-1]
    assert steps_to_steady(own("radam", Chain())[0]) == 5


def test_forward_and_backward_are_those_of_a_run_without_an_optimizer() -> None:
    model, x = Noisy(), rows()
    bare, stepped = (attnprof.run(model, (x,), backward=True, optimizer=o) for o in (None, "adamw"))
    of_optimizer = {event: n for event, n in events(stepped.trace).items() if event[1] == "optimizer"}
    assert events(stepped.trace) - Counter(of_optimizer) == events(bare.trace)


class Chooses(nn.Module):
    """Which Linear runs depends on the weights, on its input and on a random number; it writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleList(linear() for _ in range(2))
        self.gate = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.cat([self.gate.detach(), x.detach().flatten(), torch.rand(3)]).clone())
        with torch.no_grad():
            x.add_(1)
        way = self.ways[int((self.gate != 0).item())]
        return way(x) * self.gate


def test_the_counted_step_begins_where_the_first_did() -> None:
    model = Chooses()
    x = rows(requires_grad=False)
    before = x.clone()
    report = attnprof.run(model, (x,), optimizer="sgd,lr=1.0")
    first, second = model.seen
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert units(report) == {"ways.0": {"forward": 1, "backward": 1}}


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_outputs_and_their_gradients_are_let_go(fake: bool) -> None:
    """As in ``loss_of(model(x)).backward()``: the wide output is gone when its backward begins, and the gradient
    it begins with is gone when the next does. So the worst is the wide Linear's backward, with both its gradients.
    """
    width, wide, bytes_each = 8, 512, 4
    model = nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, wide, bias=False))
    report = attnprof.run(model, (torch.ones(3, width),), backward=True, fake=fake)
    weights, hidden, output = (width * width, width * wide), 3 * width, 3 * wide
    assert report.memory is not None
    assert report.memory.peak.bytes == bytes_each * (sum(weights) + 2 * hidden + output + weights[1] + hidden)
    assert report.memory.at(len(report.trace)).bytes == bytes_each * (2 * sum(weights) + hidden)


def test_fake_and_real_steps_are_the_same() -> None:
    model = Noisy()
    real, fake = (attnprof.run(model, (rows(),), optimizer="adamw:foreach", fake=f) for f in (False, True))
    assert events(real.trace) == events(fake.trace)


def test_notes_say_what_was_left_out() -> None:
    assert any(
        "a whole step was run before" in note for note in attnprof.run(Chain(), (rows(),), optimizer="sgd").notes
    )
    assert not any("whole step" in note for note in attnprof.run(Chain(), (rows(),), backward=True).notes)


def test_several_optimizers() -> None:
    model = Chain()
    pair = [torch.optim.SGD(model.first.parameters()), torch.optim.AdamW(model.second.parameters())]
    both = attnprof.run(model, (rows(),), optimizer=pair)
    apart = [attnprof.run(model, (rows(),), optimizer=one) for one in pair]
    assert both.phases["optimizer"].flops == sum(report.phases["optimizer"].flops for report in apart)
    assert both.phases["optimizer"].flops > 0


def test_a_callable_gets_what_is_trainable() -> None:
    model, given = Noisy(), []

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        given.extend(parameters)
        return torch.optim.SGD(parameters)

    called = attnprof.run(model, (rows(),), optimizer=build)
    assert [id(p) for p in given] == [id(p) for p in model.parameters() if p.requires_grad]
    by_class = attnprof.run(model, (rows(),), optimizer=torch.optim.SGD)
    named = attnprof.run(model, (rows(),), optimizer="SGD")
    assert called.phases == by_class.phases == named.phases


# What is left


def everything(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer] = ()) -> dict[str, Any]:
    """All a step may change, copied."""
    found: dict[str, Any] = {
        "values": {
            name: (id(t), t.detach().clone(), t._version) for name, t in model.state_dict(keep_vars=True).items()
        },
        "gradients": {name: (id(p.grad), copy.deepcopy(p.grad)) for name, p in model.named_parameters()},
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "modules": {name: {key: id(value) for key, value in vars(m).items()} for name, m in model.named_modules()},
        "training": {name: m.training for name, m in model.named_modules()},
        "random": torch.get_rng_state(),
    }
    for number, optimizer in enumerate(optimizers):
        found[f"attributes {number}"] = {key: id(value) for key, value in vars(optimizer).items()}
        found[f"groups {number}"] = copy.deepcopy(list(optimizer.param_groups))
        found[f"identities {number}"] = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
        found[f"state {number}"] = {
            id(p): {key: (id(value), copy.deepcopy(value)) for key, value in state.items()}
            for p, state in optimizer.state.items()
        }
    return found


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two structures are not equal, tensors to the bit."""
    if isinstance(before, Tensor):
        alike = before.dtype == after.dtype and before.detach().numpy().tobytes() == after.detach().numpy().tobytes()
        return [] if alike else [where]
    if isinstance(before, list | tuple):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict):
        if before.keys() != after.keys():
            return [f"{where}: {before.keys() ^ after.keys()}"]
        return [found for key in before for found in differences(before[key], after[key], f"{where}/{key}")]
    return [] if before == after else [where]


PLANS = [Plan(), Plan(dtype="bf16"), Plan(autocast="bf16"), Plan(freeze="first")]


def trained(kind: Callable[..., torch.optim.Optimizer], model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that has stepped, and gradients that are there."""
    optimizer = kind(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(rows()).sum().backward()
        optimizer.step()
    return optimizer


def momentum(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, momentum=0.9, **options)


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad, momentum], ids=lambda k: k.__name__)
def test_model_and_optimizer_are_what_they_were(kind: Any, plan: Plan, fake: bool) -> None:
    model = Noisy()
    optimizer = trained(kind, model)
    x, before = rows(), everything(model, [optimizer])
    attnprof.run(model, (x,), optimizer=optimizer, plan=plan, fake=fake)
    assert differences(before, everything(model, [optimizer])) == []


def test_a_graph_from_before_can_still_go_back() -> None:
    """Weights that were stepped and put back are, to autograd, weights that nobody touched."""
    model = Chain()
    expected = torch.autograd.grad(model(x := rows()).sum(), x)
    pending = model(x).sum()
    attnprof.run(model, (rows(),), optimizer="sgd,lr=1.0")
    assert torch.equal(torch.autograd.grad(pending, x)[0], expected[0])


class Negates(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter.neg_()


def test_zeros_get_their_sign_back() -> None:
    """-0.0 and 0.0 compare equal; the bits must be those of before."""
    model, x = linear(bias=False), rows()
    with torch.no_grad():
        model.weight.fill_(0.0)
    seen = []
    attnprof.run(model, (x,), optimizer=Negates, loss=lambda y: seen.append(model.weight.clone()) or y.sum())
    assert [torch.signbit(weight).any().item() for weight in seen] == [False, False]
    assert not torch.signbit(model.weight).any()


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_a_step_goes_on_from_the_state_it_finds(fake: bool) -> None:
    """RAdam rectifies late steps alone: one that has come so far does, also where its count of steps is fake."""
    model, x = Chain(), rows()
    optimizer = torch.optim.RAdam(model.parameters(), lr=torch.tensor(0.1))
    for _ in range(WARMED):
        model(x).sum().backward()
        optimizer.step()
    before = everything(model, [optimizer])
    late = attnprof.run(model, (x,), optimizer=optimizer, fake=fake)
    assert differences(before, everything(model, [optimizer])) == []
    fresh = attnprof.run(model, (x,), optimizer=lambda p: torch.optim.RAdam(p, lr=torch.tensor(0.1)))
    assert events(late.trace) == events(fresh.trace)


def test_a_scheduled_optimizer() -> None:
    """A scheduler replaces ``step`` on the instance and counts its calls."""
    model = Chain()
    optimizer = trained(torch.optim.AdamW, model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5)
    x, before = rows(), everything(model, [optimizer])
    attnprof.run(model, (x,), optimizer=optimizer)
    assert differences(before, everything(model, [optimizer])) == []
    optimizer.step()
    scheduler.step()


class Wrapping(torch.optim.Optimizer):
    """An optimizer around another, as libraries write them, with a number of its own that steps change."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.steps = inner, [0]
        self.param_groups, self.state, self.defaults = inner.param_groups, inner.state, inner.defaults
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps[0] += 1
        self.inner.step()


def test_an_optimizer_around_another() -> None:
    model = Chain()
    inner = trained(torch.optim.AdamW, model)
    outer = Wrapping(inner)
    x, before = rows(), everything(model, [inner])
    report = attnprof.run(model, (x,), optimizer=outer)
    assert differences(before, everything(model, [inner])) == []
    assert outer.steps == [0]
    assert report.phases["optimizer"] == attnprof.run(model, (rows(),), optimizer="adamw").phases["optimizer"]


class DeliberateError(Exception):
    """Raised on purpose."""


class FailsAt(torch.optim.SGD):
    """Raises in the middle of a step."""

    def __init__(self, parameters: Any, step: int) -> None:
        super().__init__(parameters, lr=0.5, momentum=0.9)
        self.left = step

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.left -= 1
        super().step()
        if not self.left:
            raise DeliberateError


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("plan", [Plan(), Plan(dtype="bf16", checkpoint=True, freeze="0")], ids=["bare", "planned"])
@pytest.mark.parametrize("step", [1, 2])
def test_after_an_error_in_either_step(step: int, plan: Plan, fake: bool) -> None:
    model = nn.Sequential(Noisy(), Noisy())
    optimizer = FailsAt(model.parameters(), step)
    x, before = rows(), everything(model, [optimizer])
    counting = attnprof.profile(model)
    with pytest.raises(DeliberateError):
        api.drive(counting, model, (x,), optimizer=optimizer, plan=plan, fake=fake)
    assert differences(before, everything(model, [optimizer])) == []
    report = counting.report()
    assert report.by_module("forward")["1.first"].matmul_flops == UNIT
    phase = "optimizer_init" if step == 1 else "optimizer"  # the error came after all ops of the step
    assert phase in {scope.phase for _, scope in report.trace.events()}


@pytest.mark.parametrize("error", [DeliberateError, KeyboardInterrupt])
def test_after_an_error_in_the_loss(error: type[BaseException]) -> None:
    model = Noisy()

    def loss(output: Tensor) -> Tensor:
        output.square()
        raise error

    x, before = rows(), everything(model)
    with pytest.raises(error):
        attnprof.run(model, (x,), optimizer="adamw", loss=loss)
    assert differences(before, everything(model)) == []


def test_nothing_is_kept_alive() -> None:
    model = Noisy()
    gone = [weakref.ref(model.first), weakref.ref(model)]
    report = attnprof.run(model, (rows(),), optimizer="adamw", plan=Plan(dtype="bf16", checkpoint=False))
    del model
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert report.total.flops > 0


class Caches(nn.Module):
    """Makes a table at its first call and keeps it, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = linear(), None
        self.past: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(7, dtype=x.dtype).cos()  # type: ignore[assignment]
        return self.layer(x) * self.table


@pytest.mark.parametrize("options", [{"fake": True}, {"plan": Plan(dtype="bf16")}], ids=["fake", "bf16"])
def test_stand_ins_leave_no_caches_behind(options: dict[str, Any]) -> None:
    model = Caches()
    attnprof.run(model, (rows(),), **options)
    assert model.table is None
    recurrent = nn.LSTM(7, 7)
    weights = recurrent._flat_weights
    attnprof.run(recurrent, (rows(),), optimizer="adamw", **options)
    assert recurrent._flat_weights is weights
    assert [id(weight) for weight in weights] == [id(p) for p in recurrent.parameters()]


def test_an_lstm_is_stepped_fake_as_it_is_real() -> None:
    recurrent = nn.LSTM(7, 7)
    real, fake = (attnprof.run(recurrent, (rows(),), optimizer="adamw", fake=f) for f in (False, True))
    assert real.phases["optimizer"] == fake.phases["optimizer"]
    assert real.phases["optimizer"].flops > 0


class Shares(nn.Module):
    """A weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(bias=False), linear(bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("plan", [Plan(), Plan(dtype="bf16")], ids=["bare", "bf16"])
@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_a_tied_weight_is_stepped_once(fake: bool, plan: Plan) -> None:
    """SGD: a weight of 7 x 7 is scaled and subtracted, 2 FLOPs an element."""
    report = attnprof.run(Shares(), (rows(),), optimizer="sgd:loop", fake=fake, plan=plan)
    assert report.phases["optimizer"].flops == 2 * 7 * 7


# What cannot be


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 7, sparse=True), linear(bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.table(ids))


def test_sparse_gradients_have_their_own_optimizer() -> None:
    ids = torch.zeros(3, dtype=torch.int64)
    report = attnprof.run(Sparse(), (ids,), optimizer="sparseadam")
    said = "SparseAdam steps embeddings with sparse gradients (1 of 2 parameter tensors), AdamW the rest."
    assert said in report.notes
    with pytest.raises(AttnprofError, match="steps embeddings with sparse gradients, and Chain has no trainable ones"):
        attnprof.run(Chain(), (rows(),), optimizer="sparseadam")


def test_muon_steps_matrices_and_adamw_the_rest() -> None:
    """Chain has two matrices; AdamW's 2 x 7 biases cost what they cost alone."""
    model = Chain()
    report = attnprof.run(model, (rows(),), optimizer="muon")
    assert "Muon steps matrices that are no embeddings (2 of 4 parameter tensors), AdamW the rest." in report.notes
    iteration = 3 * 2 * 7**3  # X Xᵀ, its square, and the product with X, of a square matrix
    assert report.phases["optimizer"].matmul_flops == 2 * 5 * iteration
    vectors = nn.LayerNorm(7)
    with pytest.raises(AttnprofError, match="steps matrices that are no embeddings, and LayerNorm has no trainable"):
        attnprof.run(vectors, (rows(),), optimizer="muon")


def frozen() -> nn.Module:
    return Chain().requires_grad_(False)


def lazy() -> nn.Module:
    return nn.LazyLinear(3)


@pytest.mark.parametrize(
    ("model", "optimizer", "sentence"),
    [
        (Chain, "adamv", r'no optimizer "adamv". Did you mean'),
        (Chain, "lbfgs", "LBFGS calls the model itself"),
        (Chain, lambda p: torch.optim.LBFGS(p), "LBFGS calls the model itself"),
        (Chain, 3, "not a int"),
        (Chain, lambda p: None, "optimizer gave a NoneType; it must be a torch.optim.Optimizer"),
        (Chain, lambda p: [], "optimizer gave a list"),
        (Chain, lambda p: torch.optim.SGD(Chain().parameters()), "the optimizer steps no parameter of Chain"),
        (frozen, "adamw", "no parameter of Chain is trainable"),
        (lazy, "adamw", "weight is lazy and has no shape to step yet"),
    ],
)
def test_what_cannot_be_stepped(model: Any, optimizer: Any, sentence: str) -> None:
    built = model()
    with pytest.raises(AttnprofError, match=sentence) as raised:
        attnprof.run(built, (rows(),), optimizer=optimizer)
    assert "\n" not in str(raised.value)


class Locked(torch.optim.SGD):
    """Holds what no copy can be made of."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.generator: Iterator[int] = (n for n in range(3))


def test_a_state_that_cannot_be_copied_is_said() -> None:
    model = Chain()
    with pytest.raises(AttnprofError, match="the state of Locked cannot be copied"):
        attnprof.run(model, (rows(),), optimizer=Locked(model.parameters()))
    report = attnprof.run(model, (rows(),), optimizer=lambda p: torch.optim.SGD(p))
    assert report.phases["optimizer"].flops > 0


def test_restart_is_for_between_steps() -> None:
    model = Chain()
    prof = attnprof.profile(model)
    with prof:
        model(rows())
        with pytest.raises(AttnprofError, match="outside the context"):
            prof.restart(model)
    prof.restart(model)
    with prof:
        model.first(rows())
    assert units(prof.report()) == {"first": {"forward": 1}}
    assert defaultdict(int, {r.fqn: r.call_count for r in prof.trace.modules})["second"] == 0
