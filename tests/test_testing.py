"""Assertions and budgets without pytest: unittest, scripts, notebooks."""

from __future__ import annotations

import threading
import unittest
from pathlib import Path

import pytest
import torch
from torch import nn

import attnprof
from attnprof.core import checkers
from attnprof.testing import assert_bytes, assert_flops, assert_memory_bytes, assert_priced

X = torch.ones(4, 8)
LINEAR = 2 * 4 * 8 * 16 + 4 * 16  # products and bias
LINEAR_BYTES = 4 * (8 * 16 + 16 + 4 * 8) + 4 * 4 * 16


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16))


@pytest.fixture(autouse=True)
def no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no test framework kept the lock file."""
    monkeypatch.setattr("attnprof.testing.checkers", [])


@pytest.mark.parametrize(
    ("assertion", "exact", "how"),
    [
        (assert_flops, LINEAR, {}),
        (assert_flops, LINEAR, {"module": "0"}),
        (assert_flops, LINEAR, {"phase": "forward", "backward": True}),
        (assert_bytes, LINEAR_BYTES, {}),
        (assert_memory_bytes, 4 * 4 * 8, {"kind": "saved"}),
    ],
)
def test_at_the_limit_and_below(assertion: object, exact: int, how: dict[str, object]) -> None:
    report = assertion(net(), exact, (X,), **how)  # type: ignore[operator]
    assert isinstance(report, attnprof.Report)
    with pytest.raises(AssertionError, match=r"1 (FLOP|B) over"):
        assertion(net(), exact - 1, (X,), **how)  # type: ignore[operator]


def test_of_a_report() -> None:
    report = attnprof.run(net(), (X,))
    assert assert_flops(report, "1.088 kFLOP") is report
    assert assert_priced(report) is report
    with pytest.raises(attnprof.AttnprofError, match="a report has been counted"):
        assert_flops(report, 1, backward=True)


def test_an_op_without_a_price() -> None:
    class Custom(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return twice(x)

    with pytest.raises(AssertionError, match="op calls without a formula: 1, limit 0: 1 over"):
        assert_priced(Custom(), (X,))


@torch.library.custom_op("testing::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x + x


def test_in_unittest() -> None:
    class Case(unittest.TestCase):
        def test_holds(self) -> None:
            assert_flops(net(), LINEAR, (X,))

        def test_over(self) -> None:
            assert_flops(net(), LINEAR - 1, (X,))

        def test_block(self) -> None:
            with attnprof.budget(flops=LINEAR - 1):
                net()(X)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    failed = sorted(case.id().rpartition(".")[2] for case, _ in result.failures)
    assert (result.testsRun, failed, result.errors) == (3, ["test_block", "test_over"], [])


# Budgets of a block


def test_a_block_within_its_budget_leaves_a_report() -> None:
    with attnprof.budget(flops=LINEAR, bytes="1 MB", memory_bytes="1 MB", unpriced=0) as spent:
        net()(X)
        assert spent.report.total.flops == LINEAR  # also before its end
    assert spent.report.total.flops == LINEAR


def test_blocks_in_a_block() -> None:
    model = net()
    with attnprof.budget(flops=3 * LINEAR) as outer, attnprof.profile(model) as prof:
        model(X)
        with attnprof.budget(model, flops=LINEAR, module="0") as inner:
            model(X)
        model(X)
    assert [found.report.total.flops for found in (outer, inner)] == [3 * LINEAR, LINEAR]
    assert prof.report().total.flops == 3 * LINEAR
    with pytest.raises(AssertionError, match=f"{2 * LINEAR} FLOP, limit"):
        twice_in_two_budgets(model)


def twice_in_two_budgets(model: nn.Module) -> None:
    """The inner budget is just kept, the outer one is not."""
    with attnprof.budget(flops=2 * LINEAR - 1), attnprof.budget(flops=2 * LINEAR):
        model(X)
        model(X)


def test_modules_that_run_in_threads_of_the_block_are_counted() -> None:
    model = net()
    with attnprof.budget(flops=3 * LINEAR) as spent:
        threads = [threading.Thread(target=model, args=(X,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        model(X)
    assert spent.report.total.flops == 3 * LINEAR


def test_what_raises_in_a_block_passes_through() -> None:
    def work() -> None:
        net()(X)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), attnprof.budget(flops=1):
        work()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, 'a budget needs a limit: one of flops, bytes, memory_bytes, unpriced, such as flops="4.2 GFLOP".'),
        ({"flops": "4.2"}, "'4.2' is no amount of flops"),
        ({"flops": 1, "kind": "peak"}, "kind (peak or saved) is for limits of memory only: give memory_bytes."),
        ({"flops": 1, "phase": "backwards"}, "phase 'backwards' is not one of forward, backward"),
        ({"memory_bytes": 1, "phase": "forward"}, "memory is a state of the whole run: leave out phase."),
        ({"unpriced": 1, "module": "h"}, "what has no price is counted in the whole run"),
        ({"flops": 1, "module": ""}, "module '' is no name of modules"),
        ({"flops": 1, "model": 3}, "profile() takes an nn.Module or nothing, not a int."),
    ],
)
def test_a_budget_that_means_nothing(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(attnprof.AttnprofError) as refused, attnprof.budget(**arguments):  # type: ignore[arg-type]
        pass
    assert sentence in str(refused.value)


def test_a_budget_is_for_one_block() -> None:
    spent = attnprof.budget(flops=1)
    with pytest.raises(attnprof.AttnprofError, match="the budget has no report yet"):
        _ = spent.report
    with spent:
        pass
    with pytest.raises(attnprof.AttnprofError, match="a budget is for one block"), spent:
        pass


# Lock files


def test_check_writes_and_compares(tmp_path: Path) -> None:
    lock = tmp_path / "net.toml"
    report = attnprof.run(net(), (X,))
    with pytest.raises(AssertionError, match='has no entry "net"'):
        attnprof.check(report, "net", lock=lock)
    attnprof.check(report, "net", lock=lock, update=True)
    attnprof.check(report, "net", lock=lock)
    wider = attnprof.run(nn.Sequential(nn.Linear(8, 17)), (X,))
    with pytest.raises(AssertionError, match=rf"net: {LINEAR // 16 * 17} FLOP, locked {LINEAR} FLOP \(\+6\.2%\)"):
        attnprof.check(wider, "net", lock=lock)
    attnprof.check(wider, "net", lock=lock, tolerance="6.25%")  # 1/16


@pytest.mark.parametrize(
    ("report", "name", "sentence"),
    [(None, "net", "check() takes a report"), ("r", None, "check() needs a name"), ("r", " ", "check() needs a name")],
)
def test_check_says_what_it_needs(report: object, name: str | None, sentence: str) -> None:
    given = attnprof.run(net(), (X,)) if report else report
    with pytest.raises(attnprof.AttnprofError) as refused:
        attnprof.check(given, name)  # type: ignore[arg-type]
    assert sentence in str(refused.value)


def test_pytest_keeps_the_lock_file_of_its_tests() -> None:
    assert checkers.checkers  # this session's
