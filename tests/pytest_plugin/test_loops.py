"""Loops that count each kind of step once and run the others bare: a budget around them counts every step."""

from __future__ import annotations

import pytest

from pytest_plugin.project import net, run

pytest_plugins = ["pytester"]

STEPS = 6

#: Steps of a user who profiles a loop; all but the first few run bare.
LOOP = f"""
def loop(model, call=None):
    with package.profile(model) as prof:
        for _ in range({STEPS}):
            (model if call is None else call)(X)
            prof.step()
    return prof.report()
"""


@pytest.mark.parametrize("mode", ["enable_grad", "no_grad", "inference_mode"])
def test_a_marker_around_a_loop(pytester: pytest.Pytester, mode: str) -> None:
    body = f"""
@pytest.mark.limit_flops({STEPS * net()})
def test_at():
    with torch.{mode}(): report = loop(Net())
    kind, = report.trace.timing.kinds
    assert (kind.counted, kind.reused) == (1, {STEPS - 1})  # the others were bare indeed
    assert report.total.flops == {STEPS * net()}

@pytest.mark.limit_flops({STEPS * net() - 1})
def test_below():
    with torch.{mode}(): loop(Net())
"""
    text = run(pytester, LOOP + body, passed=1, failed=1)
    assert f"::test_below - {STEPS * net():,} FLOP, limit {STEPS * net() - 1:,} FLOP: 1 FLOP over" in text


def test_a_budget_around_a_loop(pytester: pytest.Pytester) -> None:
    """Of this model or of none, by phase and by module, and where the budget is opened inside the loop."""
    body = f"""
@pytest.mark.parametrize("named", [True, False])
def test_around(attnprof, named):
    model = Net()
    with attnprof.budget(model if named else None, flops={STEPS * net()}, module="*", phase="forward") as budget:
        loop(model)
    assert budget.report.total.flops == {STEPS * net()}

@pytest.mark.parametrize("named", [True, False])
def test_over(attnprof, named):
    model = Net()
    with pytest.raises(package.BudgetError, match="1 FLOP over"):
        with attnprof.budget(model if named else None, flops={STEPS * net() - 1}):
            loop(model)

def test_inside(attnprof):
    model = Net()
    with attnprof.profile(model) as prof:
        for _ in range({STEPS}):
            with attnprof.budget(model, flops={net()}) as budget:
                model(X)
            assert budget.report.total.flops == {net()}
            prof.step()
        with attnprof.budget(flops={STEPS * net()}) as budget:
            for _ in range({STEPS}):
                model(X)
                prof.step()
    assert budget.report.total.flops == {STEPS * net()}
    assert prof.report().total.flops == {2 * STEPS * net()}
"""
    run(pytester, LOOP + body, passed=5)


def test_memory_of_bare_steps(pytester: pytest.Pytester) -> None:
    """A step that is bare for the user's profile allocates as any other: this one is the last and the largest."""
    body = f"""
@pytest.mark.limit_memory_bytes({2**21 + 4 * 4 * 8})
def test_at(): grows()

@pytest.mark.limit_memory_bytes({2**21 + 4 * 4 * 8 - 1})
def test_below(): grows()

class Grows(nn.Module):
    extra = 1

    def forward(self, x):
        return (torch.zeros(self.extra) + 1).shape  # two at once, beside x

def grows():
    model = Grows()
    with torch.no_grad(), package.profile(model) as prof:
        for step in range({STEPS}):
            if step == {STEPS - 1}: Grows.extra = 2**18
            model(X)
            prof.step()
    assert prof.report().memory.peak.bytes < 2**21  # which did not see it
    Grows.extra = 1
"""
    text = run(pytester, LOOP + body, passed=1, failed=1)
    assert "::test_below - peak memory: 2,097,280 B, limit 2,097,279 B" in text


def test_steps_of_training(pytester: pytest.Pytester) -> None:
    body = f"""
def step(model, optimizer):
    model(X).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

def test_loop(attnprof):
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)
    with attnprof.budget(flops="1 GFLOP") as one:
        step(model, optimizer)
    with attnprof.budget(flops={STEPS} * one.report.total.flops) as all_of_them, attnprof.profile(model) as prof:
        for _ in range({STEPS}):
            step(model, optimizer)
            prof.step()
    for phase, cost in one.report.phases.items():
        assert all_of_them.report.phases[phase].flops == {STEPS} * cost.flops
"""
    run(pytester, LOOP + body, passed=1)


def test_compiled_models(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.fixture
def compiled():
    torch._dynamo.reset()
    model = Net()
    yield model, torch.compile(model, backend="eager")
    torch._dynamo.reset()

@pytest.mark.limit_flops({2 * STEPS * net()})
def test_at(compiled):
    model, call = compiled
    loop(call)
    loop(model, call)

@pytest.mark.limit_flops({STEPS * net() - 1})
def test_below(compiled):
    with torch.no_grad(): loop(compiled[1])

def test_budget(compiled, attnprof):
    model, call = compiled
    call(X)  # compiled before anything counts
    with attnprof.budget(model, flops={STEPS * net()}) as budget: loop(model, call)
    assert budget.report.total.flops == {STEPS * net()}
"""
    run(pytester, LOOP + body, passed=2, failed=1)
