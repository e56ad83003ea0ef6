"""Several losses, several optimizers, parts of a graph that are cut off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

import attnprof
from training.counts import Counts, matmul, matmul_steps, phase_vector, phases, product, steps

ROWS, D, HIDDEN, OUT = 5, 3, 7, 2
BODY, HEAD = product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, OUT)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.a, self.b = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, OUT), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x).tanh()
        return self.a(x), self.b(x)


def data() -> Tensor:
    return torch.randn(ROWS, D)


def heads(body: int) -> Counts:
    """Both heads are differentiated once; the body, on data, ``body`` times."""
    head = phases(forward=HEAD, backward=2 * HEAD)
    return {"body": phases(forward=BODY, backward=body * BODY), "a": head, "b": head}


def test_a_sum_of_losses_goes_through_the_body_once() -> None:
    net = TwoHeads()
    with attnprof.profile(net) as prof:
        a, b = net(data())
        (a.sum() + b.sum()).backward()
    assert matmul(prof.report()) == heads(body=1)


def test_a_backward_per_loss_goes_through_it_twice() -> None:
    net = TwoHeads()
    with attnprof.profile(net) as prof:
        a, b = net(data())
        a.sum().backward(retain_graph=True)
        b.sum().backward()
    assert matmul(prof.report()) == heads(body=2)


def test_a_gradient_per_task() -> None:
    """Of the shared body alone, task by task; then the heads from the same graph: each one's dW and dX twice over."""
    net = TwoHeads()
    shared = list(net.body.parameters())
    with attnprof.profile(net) as prof:
        a, b = (y.sum() for y in net(data()))
        for loss in (a, b):
            torch.autograd.grad(loss, shared, retain_graph=True)
        (a + b).backward(inputs=[*net.a.parameters(), *net.b.parameters()])
    # For the body: the head's dX, the body's dW. For the heads: their dW.
    assert matmul(prof.report()) == heads(body=2)


@pytest.mark.parametrize("part", ["body", "a"])
def test_a_backward_for_some_parameters(part: str) -> None:
    """What is on no way to them is left out."""
    net = TwoHeads()
    with attnprof.profile(net) as prof:
        a, b = net(data())
        (a.sum() + b.sum()).backward(inputs=list(getattr(net, part).parameters()))
    to_body = part == "body"
    assert matmul(prof.report()) == {
        "body": phases(forward=BODY, backward=to_body * BODY),
        "a": phases(forward=HEAD, backward=HEAD),  # dX for the body's sake, or its own dW
        "b": phases(forward=HEAD, backward=to_body * HEAD),
    }


def test_a_head_without_a_loss() -> None:
    net = TwoHeads()
    with attnprof.profile(net) as prof:
        net(data())[0].sum().backward()
    assert matmul(prof.report()) == heads(body=1) | {"b": phases(forward=HEAD)}


class Stopped(nn.Module):
    """The second half sees the first's output as data; the first has a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.local, self.second = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, OUT), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x).tanh()
        return self.local(x), self.second(x.detach())


def test_halves_with_a_loss_each() -> None:
    """Nothing flows from the second half into the first."""
    report = attnprof.run(Stopped(), (data(),), backward=True)
    assert matmul(report) == {
        "first": phases(forward=BODY, backward=BODY),
        "local": phases(forward=HEAD, backward=2 * HEAD),
        "second": phases(forward=HEAD, backward=HEAD),
    }


# Two optimizers


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(OUT, D)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).tanh()


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Game(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = Generator(), Critic()


MAKE, SEE, JUDGE = product(ROWS, OUT, D), product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, 1)
IN_GENERATOR = OUT * D + D
IN_CRITIC = D * HIDDEN + HIDDEN + HIDDEN + 1


def play(game: Game, frozen_critic: bool) -> attnprof.Report:
    """One step of the critic, one of the generator."""
    to_critic = torch.optim.SGD(game.critic.parameters(), lr=0.1)
    to_generator = torch.optim.SGD(game.generator.parameters(), lr=0.1)
    with attnprof.profile(game, recount_every=1) as prof:
        fake = game.generator(torch.randn(ROWS, OUT))
        (game.critic(fake.detach()).mean() - game.critic(data()).mean()).backward()
        to_critic.step()
        game.zero_grad()
        prof.step()

        game.critic.requires_grad_(not frozen_critic)
        (-game.critic(game.generator(torch.randn(ROWS, OUT))).mean()).backward()
        to_generator.step()
        game.critic.requires_grad_(True)
        game.zero_grad()
        prof.step()
    return prof.report()


@pytest.mark.parametrize("frozen_critic", [True, False])
def test_a_generator_and_its_critic(frozen_critic: bool) -> None:
    report = play(Game(), frozen_critic)
    critic, generator = matmul_steps(report)
    # Two batches, real and fake, both data to the critic: dW of both Linears and dX of the second.
    assert critic == {
        "generator.linear": phases(forward=MAKE),
        "critic.first": phases(forward=2 * SEE, backward=2 * SEE),
        "critic.second": phases(forward=2 * JUDGE, backward=2 * 2 * JUDGE),
    }
    # The gradient passes the critic to the generator, whose input is noise; the critic's own is wasted unless frozen.
    own = 0 if frozen_critic else 1
    assert generator == {
        "generator.linear": phases(forward=MAKE, backward=MAKE),
        "critic.first": phases(forward=SEE, backward=(1 + own) * SEE),
        "critic.second": phases(forward=JUDGE, backward=(1 + own) * JUDGE),
    }
    assert [phase_vector(step, "optimizer") for step in steps(report)] == [2 * IN_CRITIC, 2 * IN_GENERATOR]


def test_two_optimizers_on_one_backward() -> None:
    """One with momentum, one without; the momentum of a first step is the gradient itself."""
    net = TwoHeads()
    body = torch.optim.SGD(net.body.parameters(), lr=0.1, momentum=0.9)
    rest = torch.optim.SGD([*net.a.parameters(), *net.b.parameters()], lr=0.1)
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(2):
            a, b = net(data())
            (a.sum() + b.sum()).backward()
            body.step()
            rest.step()
            net.zero_grad()
            prof.step()
    in_body, in_heads = D * HIDDEN + HIDDEN, 2 * (HIDDEN * OUT + OUT)
    first, second = steps(prof.report())
    assert phase_vector(first, "optimizer_init") == 2 * in_body
    assert phase_vector(first, "optimizer") == 2 * in_heads
    assert phase_vector(second, "optimizer") == 4 * in_body + 2 * in_heads


# Teachers


class Taught(nn.Module):
    """A student and a teacher of the same shape."""

    def __init__(self, guard: type[AbstractContextManager[None]]) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(D, HIDDEN), nn.Linear(D, HIDDEN)
        self.guard = guard

    def forward(self, x: Tensor) -> Tensor:
        with self.guard():
            target = self.teacher(x)
        return (self.student(x) - target.detach()).square().mean()


@pytest.mark.parametrize("guard", [torch.no_grad, nullcontext])
def test_a_teacher_is_forward_only(guard: type[AbstractContextManager[None]]) -> None:
    """Under no_grad, or only detached: no gradient reaches it either way."""
    report = attnprof.run(Taught(guard), (data(),), backward=True)
    assert matmul(report) == {
        "student": phases(forward=BODY, backward=BODY),
        "teacher": phases(forward=BODY),
    }


def test_a_teacher_that_follows_its_student() -> None:
    """The step is the optimizer's, the average of the weights nobody's: t + w (s - t), 3 per element."""
    net = Taught(torch.no_grad)
    optimizer = torch.optim.SGD(net.student.parameters(), lr=0.1)
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(2):
            net(data()).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for slow, fast in zip(net.teacher.parameters(), net.student.parameters(), strict=True):
                    slow.lerp_(fast, 0.1)
            prof.step()
    parameters = D * HIDDEN + HIDDEN
    for step in steps(prof.report()):
        assert phase_vector(step, "optimizer") == 2 * parameters
        assert phase_vector(step, "other") == 3 * parameters


class Siamese(nn.Module):
    """Two views of the data; each prediction is compared with the other view, which is held fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.predictor = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = self.encoder(x), self.encoder(y)
        left = (self.predictor(a) * b.detach()).sum()
        return left + (self.predictor(b) * a.detach()).sum()


def test_a_shared_encoder_with_stopped_gradients() -> None:
    """Each view is encoded and predicted once, forward and back; the held-fixed sides cost nothing."""
    report = attnprof.run(Siamese(), (data(), data()), backward=True)
    predict = product(ROWS, HIDDEN, HIDDEN)
    assert matmul(report) == {
        "encoder": phases(forward=2 * BODY, backward=2 * BODY),
        "predictor": phases(forward=2 * predict, backward=2 * 2 * predict),
    }


class Preferred(nn.Module):
    """A policy against a frozen reference, on a chosen and a rejected batch."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.reference = nn.Linear(D, HIDDEN), nn.Linear(D, HIDDEN).requires_grad_(False)

    def forward(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        margin = (self.policy(chosen) - self.policy(rejected)).sum()
        with torch.no_grad():
            base = (self.reference(chosen) - self.reference(rejected)).sum()
        return nn.functional.softplus(base - margin)


def test_a_frozen_reference() -> None:
    report = attnprof.run(Preferred(), (data(), data()), backward=True)
    assert matmul(report) == {
        "policy": phases(forward=2 * BODY, backward=2 * BODY),
        "reference": phases(forward=2 * BODY),
    }
