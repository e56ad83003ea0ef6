"""The lock file in sessions that do not go straight: retries, groups, interrupts, crashes, subtests, broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnprof.core import lock
from pytest_plugin.project import NET, again, net, run

pytest_plugins = ["pytester"]

RETRIES = """
import pytest
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    '''As plugins that retry do: an attempt that failed is told as "rerun", and is followed by another.'''
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            if report.failed and attempt < 2:
                report.outcome = "rerun"
                item.ihook.pytest_runtest_logreport(report=report)
                break
            item.ihook.pytest_runtest_logreport(report=report)
        else:
            break
    return True
"""


def entries(pytester: pytest.Pytester) -> dict[str, lock.Entry]:
    return lock.read(pytester.path / "attnprof.lock.toml")


def flops(entry: lock.Entry) -> int:
    totals = entry.snapshot.totals()
    return totals["matmul_flops"] + totals["vector_flops"]


def test_of_several_attempts_the_one_that_passed_is_written(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(RETRIES)
    body = """
WIDTHS = [8, 12, 16]

def test_flaky(attnprof):
    width = WIDTHS.pop(0)
    attnprof.check(attnprof.run(Net(width), (X,)), "net")
    assert width == 16
"""
    run(pytester, body, "--attnprof-update", passed=1)
    assert flops(entries(pytester)["net"]) == net(16)
    text = run(pytester, body, "--attnprof-json=out.json", passed=1)
    assert "any more" not in text
    assert '"differs": {}' in (pytester.path / "out.json").read_text()


def test_a_test_that_fails_at_its_end_writes_nothing(pytester: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def breaks():
    yield
    raise OSError("no room")

def test_net(breaks, attnprof): attnprof.check(attnprof.run(Net(), (X,)), "net")
"""
    run(pytester, body, "--attnprof-update", passed=1, errors=1)
    assert entries(pytester) == {}


def test_subtests(pytester: pytest.Pytester) -> None:
    """One that fails is a test that fails; two that cost not the same need two names."""
    body = """
def test_net(attnprof, subtests):
    for width in (8, 16):
        with subtests.test(width=width):
            attnprof.check(attnprof.run(Net(width), (X,)), {})
    with subtests.test("last"):
        assert {}
"""
    pytester.makepyfile(test_other="def test_nothing(): pass")
    run(pytester, body.format('f"net-{width}"', False), "--attnprof-update")
    assert entries(pytester) == {}
    run(pytester, body.format('f"net-{width}"', True), "--attnprof-update")
    assert {name: flops(entry) for name, entry in entries(pytester).items()} == {"net-8": net(8), "net-16": net(16)}
    text = run(pytester, body.format('"net"', True), "--attnprof-update")
    assert '"net" is the name of two runs that cost not the same, in test_subtests.py::test_net: name each.' in text
    text = run(pytester, body.format('f"net-{width + 1}"', True))
    assert text.count("has no entry") >= 2  # each subtest says its own


def test_one_name_for_the_same_cost_stays_with_its_test(pytester: pytest.Pytester) -> None:
    body = "def test_{}(attnprof): attnprof.check(attnprof.run(Net(), (X,)), 'net')\n"
    run(pytester, body.format("b") + body.format("c"), "--attnprof-update", passed=2)
    before = (pytester.path / "attnprof.lock.toml").read_text()
    run(pytester, body.format("a") + body.format("b") + body.format("c"), "--attnprof-update", passed=3)
    assert (pytester.path / "attnprof.lock.toml").read_text() == before


def test_many_names_are_not_all_said(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("n", range(30))
def test_net(attnprof, n): attnprof.check(REPORT, f"net-{n:02}")

REPORT = package.run(MODEL, (X,))
"""
    text = run(pytester, body, "--attnprof-update", passed=30)
    assert "wrote net-00, net-01, net-02, net-03, net-04, net-05, net-06, net-07, net-08, net-09 and 20 more." in text


def test_an_interrupt_keeps_what_was_done(pytester: pytest.Pytester) -> None:
    body = """
def test_done(attnprof): attnprof.check(attnprof.run(Net({0}), (X,)), "done")
def test_interrupted(attnprof):
    attnprof.check(attnprof.run(Net({0}), (X,)), "interrupted")
    if {0} != 8: raise KeyboardInterrupt
def test_never(attnprof): attnprof.check(attnprof.run(Net({0}), (X,)), "never")
"""
    run(pytester, body.format(8), "--attnprof-update", passed=3)
    pytester.makepyfile(NET + body.format(16))
    options = ("--attnprof-update", "--attnprof-prune", "-p", "no:hypothesispytest")
    stopped = pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert stopped.ret == pytest.ExitCode.INTERRUPTED
    assert {name: flops(entry) for name, entry in entries(pytester).items()} == {
        "done": net(16),
        "interrupted": net(8),
        "never": net(8),
    }
    assert [path.name for path in pytester.path.iterdir() if path.name.endswith(".part")] == []


def test_what_could_not_be_collected_is_not_stale(pytester: pytest.Pytester) -> None:
    body = """
def test_one(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "one")

class TestNet:
    {}
    def test_two(self, attnprof): attnprof.check(attnprof.run(Net(), (X,)), "two")
"""
    run(pytester, body.format(""), "--attnprof-update", passed=2)
    options = ("--attnprof-update", "--attnprof-prune")
    bad = body.format("@pytest.mark.limit_flops('1')")
    assert "any more" not in run(pytester, bad, errors=1)
    run(pytester, bad, *options, errors=1)
    run(pytester, bad, *options, "--continue-on-collection-errors", passed=1, errors=1)
    assert set(entries(pytester)) == {"one", "two"}


def test_what_a_plugin_left_out_is_not_stale(pytester: pytest.Pytester) -> None:
    body = """
def test_one(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "one")
def test_two(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "two")
"""
    run(pytester, body, "--attnprof-update", passed=2)
    pytester.makeconftest("""
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items): del items[1:]
""")
    again(pytester, "--attnprof-update", "--attnprof-prune", passed=1)
    assert set(entries(pytester)) == {"one", "two"}


@pytest.mark.slow
def test_groups_of_xdist_are_no_part_of_names(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.xdist_group("gpu")
@pytest.mark.limit_flops(10**6)
def test_net(attnprof): attnprof.check(attnprof.run(Net(), (X,)))

@pytest.mark.xdist_group("gpu")
def test_left(attnprof): {}
"""
    locked = 'attnprof.check(attnprof.run(Net(), (X,)), "left")'
    run(pytester, body.format(locked), "-n2", "--dist=loadgroup", "--attnprof-update", passed=2)
    name = "test_groups_of_xdist_are_no_part_of_names.py::test_net"
    assert {name: entry.test for name, entry in entries(pytester).items()} == {
        name: name,
        "left": name.replace("test_net", "test_left"),
    }
    again(pytester, passed=2)
    text = run(pytester, body.format("pass"), "-n2", "--dist=loadgroup", passed=2)
    assert "no test checks left any more." in text


@pytest.mark.slow
def test_a_worker_that_crashes(pytester: pytest.Pytester) -> None:
    """What others did is written, and what the crash left undone is neither lost nor stale."""
    body = """
@pytest.mark.parametrize("n", range(6))
def test_net(attnprof, n):
    if n == 3 and {0}:
        import os; os._exit(1)
    attnprof.check(attnprof.run(Net({1} + n), (X,)), f"net-{{n}}")
"""
    run(pytester, body.format(0, 8), "-n2", "--attnprof-update", passed=6)
    text = run(pytester, body.format(1, 16), "-n2", "--attnprof-update", "--attnprof-prune", passed=5, failed=1)
    assert "crashed while running" in text
    assert {name: flops(entry) for name, entry in entries(pytester).items()} == {
        f"net-{n}": net((8 if n == 3 else 16) + n) for n in range(6)
    }


@pytest.mark.parametrize("change", [lambda text: f"\ufeff{text}", lambda text: text.replace("\n", "\r\n")])
def test_files_of_other_editors(pytester: pytest.Pytester, change: object) -> None:
    """With a byte order mark, or with carriage returns."""
    body = "def test_net(attnprof): attnprof.check(attnprof.run(Net({}), (X,)), 'net')"
    run(pytester, body.format(16), "--attnprof-update", passed=1)
    path = pytester.path / "attnprof.lock.toml"
    assert callable(change)
    path.write_bytes(change(path.read_text(encoding="utf-8")).encode())
    again(pytester, passed=1)
    run(pytester, body.format(8), "--attnprof-update", passed=1)
    assert flops(entries(pytester)["net"]) == net(8)


def test_an_entry_that_is_there_twice(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        "def test_net(attnprof): attnprof.check(attnprof.run(MODEL, (X,)), 'net')",
        "--attnprof-update",
        passed=1,
    )
    path = pytester.path / "attnprof.lock.toml"
    text = path.read_text()
    start = text.index("[run.net]")
    path.write_text(text + "\n" + text[start:])
    first = text.count("\n", 0, start) + 1
    second = text.count("\n") + 2
    twice = path.read_text()
    for option in ("--attnprof-update", "--attnprof-report"):
        told = again(pytester, option, failed=1)
        assert f"attnprof.lock.toml has [run.net] in lines {first} and {second}: keep either, then update it." in told
        assert path.read_text() == twice


def test_a_link_to_the_file_stays_a_link(pytester: pytest.Pytester, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.toml"
    (pytester.path / "attnprof.lock.toml").symlink_to(real)
    body = "def test_net(attnprof): attnprof.check(attnprof.run(Net({}), (X,)), 'net')"
    for width in (8, 16):
        run(pytester, body.format(width), "--attnprof-update", passed=1)
        assert (pytester.path / "attnprof.lock.toml").is_symlink()
        assert flops(lock.read(real)["net"]) == net(width)
