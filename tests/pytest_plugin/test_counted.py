"""What of a test counts for its limits, and what stays as it was without them."""

from __future__ import annotations

import pytest

from pytest_plugin.project import net, run

pytest_plugins = ["pytester"]


def test_the_set_up_of_fixtures_is_not_counted(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.fixture
def warm():
    net = Net()
    net(rows())
    yield net
    net(rows())

@pytest.mark.limit_flops({net()})
def test_net(warm): warm(rows())
"""
    run(pytester, body, passed=1)


def test_a_model_of_a_session_fixture(pytester: pytest.Pytester) -> None:
    """Built before, and run before: each test pays for what it runs itself."""
    body = f"""
@pytest.fixture(scope="session")
def model(): return Net()

@pytest.mark.limit_flops({net()})
@pytest.mark.parametrize("again", [0, 1])
def test_net(model, again): model(rows())

@pytest.mark.limit_flops({net() - 1})
def test_less(model): model(rows())
"""
    run(pytester, body, passed=2, failed=1)


def test_nested_budgets_and_profiles(pytester: pytest.Pytester) -> None:
    """Everyone counts everything inside: three calls in the test, two in the budget, one in the profile."""
    body = f"""
@pytest.mark.limit_flops({3 * net()})
def test_net(attnprof):
    model = Net()
    model(rows())
    with attnprof.budget(flops={2 * net()}) as outer:
        model(rows())
        with attnprof.budget(model, flops={net()}, module="*") as inner, package.profile(model) as prof:
            model(rows())
    assert outer.report.total.flops == {2 * net()}
    assert inner.report.total.flops == prof.report().total.flops == {net()}

@pytest.mark.limit_flops({3 * net() - 1})
def test_over():
    with package.budget(flops={3 * net()}):
        for _ in range(3): Net()(rows())
"""
    run(pytester, body, passed=1, failed=1)


def test_a_loop_is_counted_call_by_call(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.mark.limit_flops({5 * net()})
def test_at():
    with package.profile() as prof:
        for _ in range(5): Net()(rows()); prof.step()

@pytest.mark.limit_flops({5 * net() - 1})
def test_below():
    with package.profile() as prof:
        for _ in range(5): Net()(rows()); prof.step()
"""
    run(pytester, body, passed=1, failed=1)


def test_async_tests(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.fixture
def anyio_backend(): return "asyncio"

@pytest.mark.anyio
@pytest.mark.limit_flops({net()})
async def test_at(): Net()(rows())

@pytest.mark.anyio
@pytest.mark.limit_flops({net() - 1})
async def test_below(): Net()(rows())
"""
    run(pytester, body, passed=1, failed=1)


def test_unittest_cases(pytester: pytest.Pytester) -> None:
    """Their setUp is part of the call, as it is for pytest."""
    body = f"""
import unittest

class Case(unittest.TestCase):
    def setUp(self): Net()(rows())

    @pytest.mark.limit_flops({2 * net()})
    def test_at(self): Net()(rows())

    @pytest.mark.limit_flops({2 * net() - 1})
    def test_below(self): Net()(rows())
"""
    run(pytester, body, passed=1, failed=1)


def test_cuda(pytester: pytest.Pytester) -> None:
    """The same on a GPU, seen on fake tensors that are on one; a real GPU that is not there skips as ever."""
    body = f"""
def on_fake_gpu():
    with package.fake_tensors(), torch.no_grad():
        torch.empty(4, 8, device="cuda") @ torch.empty(8, 16, device="cuda")

@pytest.mark.limit_flops({2 * 4 * 8 * 16})
def test_at(): on_fake_gpu()

@pytest.mark.limit_flops({2 * 4 * 8 * 16 - 1})
def test_below(): on_fake_gpu()

@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.limit_flops({net()})
def test_real(): Net().cuda()(rows().cuda())
"""
    text = run(pytester, body)
    assert "::test_at" not in text.partition("short test summary")[2]
    assert "1 failed, 1 passed, 1 skipped" in text or "1 failed, 2 passed" in text


# What stays as it was


def test_a_failure_of_its_own_stays(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.limit_flops(1)
def test_raises():
    Net()(rows())
    raise ValueError("mine")

@pytest.mark.limit_flops(1)
def test_fails():
    assert Net()(rows()).shape == (1, 1)

@pytest.mark.limit_flops(1)
def test_set_up(nothing_like_it): pass
"""
    text = run(pytester, body, failed=2, errors=1)
    assert "ValueError: mine" in text
    assert "torch.Size([4, 8]) == (1, 1)" in text
    assert "limit 1" not in text


def test_skipped_and_expected_failures(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.mark.skip
@pytest.mark.limit_flops(1)
def test_skipped(): Net()(rows())

@pytest.mark.limit_flops(1)
def test_skips():
    Net()(rows())
    pytest.skip("later")

@pytest.mark.xfail
@pytest.mark.limit_flops(1)
def test_over(): Net()(rows())

@pytest.mark.xfail(strict=True)
@pytest.mark.limit_flops({net()})
def test_holds(): Net()(rows())

@pytest.mark.xfail(raises=ValueError)
@pytest.mark.limit_flops(1)
def test_other(): Net()(rows())
"""
    run(pytester, body, skipped=2, xfailed=1, failed=2)


def test_outputs_are_those_of_the_bare_run(pytester: pytest.Pytester) -> None:
    body = """
def value():
    torch.manual_seed(0)
    model = Net()
    return model(torch.randn(4, 8)).sum().item(), torch.rand(1).item()

bare = value()

@pytest.mark.limit_flops("1 GFLOP")
def test_net(): assert value() == bare
"""
    run(pytester, body, passed=1)
