"""States of many parts, told apart by samples: what is seen at once, what late, and that lateness is said."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import Callable, Hashable

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.capture.sampling import FEW, STRIDE, WHOLE_LOOKS, Sampled

#: Parts of the states below.
MANY = 100
#: A step so short that a whole look is too dear, and one that is long enough.
SHORT, LONG = 1_000_000, 1_000_000_000
#: Looks until every sample had its turn, in whatever place of a program.
ALL_TURNS = 2 * STRIDE


class Switches(Sampled[list[bool]]):
    def __init__(self) -> None:
        super().__init__({}, self.told)
        self.late = self.whole_looks = 0

    def told(self) -> None:
        self.late += 1

    def whole(self, subject: list[bool]) -> tuple[Hashable, int]:
        self.whole_looks += 1
        return tuple(subject), len(subject)

    def sample(self, subject: list[bool], which: int) -> Hashable:
        return tuple(subject[which::STRIDE])


def settled(parts: int = MANY) -> tuple[Switches, list[bool]]:
    """One that was looked at as often as it takes to trust samples."""
    state, switches = Switches(), [False] * parts
    for _ in range(WHOLE_LOOKS):
        assert state.number(switches, SHORT) == 0
    assert state.whole_looks == WHOLE_LOOKS
    return state, switches


def test_a_steady_state_is_looked_at_by_samples() -> None:
    state, switches = settled()
    assert [state.number(switches, SHORT) for _ in range(200)] == [0] * 200
    assert (state.whole_looks, state.late) == (WHOLE_LOOKS, 0)


@pytest.mark.parametrize("parts", [range(MANY), range(37, 37 + STRIDE)], ids=["all", "as many as a sample is apart"])
@pytest.mark.parametrize("looks", range(1, 2 * STRIDE, 5))
def test_what_shows_in_every_sample_is_seen_at_once(parts: range, looks: int) -> None:
    """Also when it is switched back; and it is never late."""
    state, switches = settled()
    for on in (True, False, True, True, False):
        for part in parts:
            switches[part] = on
        assert [state.number(switches, SHORT) for _ in range(looks)] == [int(on)] * looks
    assert state.late == 0


@pytest.mark.parametrize("part", [0, 15, 16, 58, MANY - 1])
@pytest.mark.parametrize("before", range(0, 2 * STRIDE, 7))
def test_one_part_is_seen_when_its_turn_comes_and_the_rest_at_once(part: int, before: int) -> None:
    state, switches = settled()
    for _ in range(before):
        state.number(switches, SHORT)
    switches[part] = True
    seen = [state.number(switches, SHORT) for _ in range(ALL_TURNS)]
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert state.late == 1
    generator, truth = random.Random(part), {(False,) * MANY: 0, tuple(switches): 1}
    for _ in range(100):  # every look is a whole one now
        one = generator.randrange(MANY)
        switches[one] = not switches[one]
        number = truth.setdefault(tuple(switches), len(truth))
        assert state.number(switches, SHORT) == number
    assert state.late == 1


@pytest.mark.parametrize("every", [2, 3, 5, 8, 12, 16, 31, 32])
def test_every_sample_has_its_turn_in_each_place_of_a_cycle(every: int) -> None:
    """A program with so many calls a step switches a part for one of them."""
    state, switches = settled()
    numbers = []
    for look in range(every * 160):
        switches[5] = look % every == 0
        numbers.append(state.number(switches, SHORT))
    assert 1 in numbers
    assert state.late == 1


def test_states_that_samples_do_not_tell_apart_are_known_from_the_first_looks() -> None:
    state, switches = Switches(), [False] * MANY
    for look in range(200):
        switches[7] = look % 9 == 8
        assert state.number(switches, SHORT) == int(switches[7])
    assert (state.whole_looks, state.late) == (200, 0)


def test_states_that_they_tell_apart_are() -> None:
    state, switches = Switches(), [False] * MANY
    for look in range(200):
        switches[:] = [look % 4 == 3] * MANY
        assert state.number(switches, SHORT) == int(switches[0])
    assert (state.whole_looks, state.late) == (WHOLE_LOOKS, 0)


@pytest.mark.parametrize(("parts", "step_ns"), [(MANY, LONG), (MANY, 0), (FEW - 1, SHORT)], ids=["long", "?", "few"])
def test_whole_looks_where_they_are_cheap_or_the_time_is_not_known(parts: int, step_ns: int) -> None:
    state, switches = settled(parts)
    for look in range(100):
        switches[look % parts] = look % 3 == 0
        before = state.whole_looks
        state.number(switches, step_ns)
        assert state.whole_looks == before + 1
    assert state.late == 0


def test_a_new_beginning_is_looked_at_as_a_whole() -> None:
    state, switches = settled()
    state.begin_anew()
    for look in range(WHOLE_LOOKS):
        switches[look] = True
        assert state.number(switches, SHORT) == look + 1
    assert state.late == 0


# In a training loop

LAYERS = 30


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


#: Rows of the input; what the gradient of one weight costs.
ROWS = 3
OF_A_WEIGHT = 2 * ROWS * 4 * 4


Change = Callable[[nn.Module], object]


def trained(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, before: dict[int, Change], pause: float = 0.0
) -> attnprof.Report:
    """Before some steps, something is done to the model."""
    with attnprof.profile(model) as prof:
        for step in range(steps):
            before.get(step, lambda _: None)(model)
            model(torch.ones(ROWS, 4, requires_grad=True)).sum().backward()
            optimizer.step()
            model.zero_grad()
            time.sleep(pause)
            prof.step()
    return prof.report()


def deep(steps: int, before: dict[int, Change], pause: float = 0.0) -> attnprof.Report:
    model = Deep()
    return trained(model, torch.optim.SGD(model.parameters()), steps, before, pause)


def frozen(layers: slice) -> Change:
    return lambda model: [layer.requires_grad_(False) for layer in model.layers[layers]]  # type: ignore[union-attr,index]


def without_freezing(steps: int) -> int:
    """The FLOPs of training: forward, the gradient of each input and of each weight."""
    return steps * LAYERS * 3 * OF_A_WEIGHT


def said_late(report: attnprof.Report) -> bool:
    return any("may have been seen some steps late" in note for note in report.notes)


def test_a_frozen_half_is_seen_at_once() -> None:
    report = deep(100, {60: frozen(slice(0, 20))})
    assert report.total.matmul_flops == without_freezing(100) - 40 * 20 * OF_A_WEIGHT
    assert report.notes == []
    assert report.pace is not None
    assert report.pace.counted <= 4


def test_one_frozen_layer_may_be_seen_late_and_that_is_said() -> None:
    report = deep(150, {70: frozen(slice(11, 12))})
    late, rest = divmod(report.total.matmul_flops - (without_freezing(150) - 80 * OF_A_WEIGHT), OF_A_WEIGHT)
    assert rest == 0
    assert 0 <= late < ALL_TURNS
    assert said_late(report)


class Periodic(nn.Module):
    """Layers that are each as many modules as a sample is apart, one of which has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(4, 4), *(nn.Identity() for _ in range(STRIDE - 2))) for _ in range(LAYERS))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Few(nn.Module):
    """Many weights in few modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.ones(4, 4) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = x @ weight
        return x


@pytest.mark.parametrize("kind", [Periodic, Few])
@pytest.mark.parametrize("groups", [1, LAYERS], ids=["one group", "a group for each layer"])
def test_a_frozen_model_is_seen_at_once(kind: type[nn.Module], groups: int) -> None:
    """All but the first layer, whatever modules the samples are of."""
    model = kind()
    weights = list(model.parameters())
    each = len(weights) // groups
    optimizer = torch.optim.SGD([{"params": weights[at : at + each]} for at in range(0, len(weights), each)])
    frozen_weights = weights[len(weights) // LAYERS :]
    report = trained(model, optimizer, 70, {50: lambda _: [weight.requires_grad_(False) for weight in frozen_weights]})
    assert report.total.matmul_flops == without_freezing(70) - 20 * (LAYERS - 1) * OF_A_WEIGHT
    assert report.notes == []


def test_in_the_first_steps_it_is_seen_at_once() -> None:
    report = deep(60, {20: frozen(slice(11, 12))})
    assert report.total.matmul_flops == without_freezing(60) - 40 * OF_A_WEIGHT
    assert report.notes == []


@pytest.mark.slow
def test_in_long_steps_it_is_seen_at_once() -> None:
    """A whole look, of about a hundred microseconds, is little beside a step of 50 ms."""
    report = deep(90, {70: frozen(slice(11, 12))}, pause=0.05)
    assert report.total.matmul_flops == without_freezing(90) - 20 * OF_A_WEIGHT
    assert report.notes == []


def test_a_replaced_layer_is_looked_at_from_then_on() -> None:
    """One of the same kind and size changes nothing; that it is frozen later is seen, in a few steps."""

    def replaced(model: nn.Module) -> None:
        model.layers[11] = nn.Linear(4, 4)  # type: ignore[index,operator]

    report = deep(200, {60: replaced, 120: frozen(slice(11, 12))})
    late, rest = divmod(report.total.matmul_flops - (without_freezing(200) - 80 * OF_A_WEIGHT), OF_A_WEIGHT)
    assert rest == 0
    assert 0 <= late < ALL_TURNS
    assert said_late(report)


def test_gradients_of_a_few_weights_that_accumulate() -> None:
    """A frozen model with a head: which weights hold a gradient differs in the two halves of a step, in one layer."""
    model = Deep()
    model.requires_grad_(False)
    model.layers[-1].requires_grad_(True)
    optimizer = torch.optim.SGD(model.layers[-1].parameters())

    def counted(recount_every: int | None) -> attnprof.Report:
        with attnprof.profile(model, recount_every=recount_every) as prof:
            for step in range(160):
                model(torch.ones(ROWS, 4)).sum().backward()
                if step % 2:
                    optimizer.step()
                    optimizer.zero_grad()
                prof.step()
        return prof.report()

    once, every = counted(None), counted(1)
    assert once.by_operator() == every.by_operator()
    assert once.notes == []
    assert once.pace is not None
    assert once.pace.reused > 150


def test_nothing_keeps_a_model_of_samples_alive() -> None:
    """Nor a layer that is replaced, once the profile is closed."""
    model = Deep()
    prof = attnprof.profile(model)

    with prof, torch.no_grad():
        for _ in range(2 * WHOLE_LOOKS):
            model(torch.ones(ROWS, 4))
            prof.step()
    first = weakref.ref(model.layers[0])
    model.layers[0] = nn.Linear(4, 4)
    gc.collect()
    assert first() is None
    gone = [weakref.ref(model), *map(weakref.ref, model.modules()), *map(weakref.ref, model.parameters())]
    del model
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
