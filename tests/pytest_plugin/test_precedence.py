"""Limits of the command line, of markers and of the ini file: the first wins over the second, and so on."""

from __future__ import annotations

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, again, net, run, up

pytest_plugins = ["pytester"]


INI = "[pytest]\nattnprof_default_limit_flops = {} FLOP\n"
TWO = """
def test_bare(): Net()(rows())

@pytest.mark.limit_flops({})
def test_marked(): Net()(rows())
"""


def test_the_ini_file_limits_tests_without_a_marker(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format(net() - 1))
    text = run(pytester, TWO.format(net()), passed=1, failed=1)
    assert "::test_bare - " in text
    pytester.makeini(INI.format(net()))
    again(pytester, passed=2)


@pytest.mark.parametrize(
    ("quantity", "limit"), [("bytes", UP_BYTES + DOWN_BYTES), ("memory_bytes", 2**20), ("flops", net())]
)
def test_every_limit_of_the_ini_file_is_read(pytester: pytest.Pytester, quantity: str, limit: int) -> None:
    for value, outcome in ((limit, "passed"), (1, "failed")):
        unit = "FLOP" if quantity == "flops" else "B"
        pytester.makeini(f"[pytest]\nattnprof_default_limit_{quantity} = {value} {unit}\n")
        run(pytester, "def test_bare(): MODEL(X)", **{outcome: 1})


def test_the_limit_of_unpriced_ops_by_ini_and_command_line(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nattnprof_default_limit_unpriced = 0\n")
    body = """
@torch.library.custom_op("plugin_test::thrice", mutates_args=())
def thrice(x: torch.Tensor) -> torch.Tensor: return 3 * x

def test_one(): thrice(rows())
"""
    run(pytester, body, failed=1)
    again(pytester, "--attnprof-limit-unpriced=1", passed=1)


def test_the_command_line_overrides_markers_and_ini(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format(1))
    body = (
        TWO.format(1)
        + f"""
@pytest.mark.limit_flops({up() - 1}, module="up")
def test_of_a_module(): Net()(rows())
"""
    )
    text = run(pytester, body, f"--attnprof-limit-flops={net()} FLOP", passed=2, failed=1)
    assert "::test_of_a_module - " in text  # which limits something else
    again(pytester, f"--attnprof-limit-flops={net() - 1} FLOP", failed=3)
    again(pytester, "--attnprof-limit-flops=1 GFLOP", "--attnprof-limit-bytes=1 B", failed=3)
    again(pytester, "--attnprof-limit-flops=1 GFLOP", "--attnprof-limit-memory-bytes=1 B", failed=3)


@pytest.mark.parametrize(
    ("ini", "option", "sentence"),
    [
        ("", "--attnprof-limit-flops=1", "--attnprof-limit-flops: '1' is no amount of flops"),
        ("attnprof_default_limit_bytes = 1", "", "attnprof_default_limit_bytes: '1' is no amount of bytes"),
        ("", "--attnprof-limit-unpriced=none", "--attnprof-limit-unpriced: a count is a whole number"),
        ("attnprof_tolerance = 1", "", "attnprof_tolerance: tolerance '1' is no percentage"),
        ("", "--attnprof-tolerance=x", "--attnprof-tolerance: tolerance 'x' is no percentage"),
        ("", "--attnprof-json=no/such/file", "the folder"),
        ("", "--attnprof-prune", "--attnprof-prune deletes with --attnprof-update only"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(pytester: pytest.Pytester, ini: str, option: str, sentence: str) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess(*filter(None, [option]))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in result.stderr.str()
    assert "Traceback" not in result.stderr.str()
