"""Limits as markers: on both sides of the limit and at it, on what they count and on what they leave alone."""

from __future__ import annotations

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, down, net, run, up

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("limit", "outcome"), [(net() + 1, "passed"), (net(), "passed"), (net() - 1, "failed"), (0, "failed")]
)
def test_flops(pytester: pytest.Pytester, limit: int, outcome: str) -> None:
    body = f"@pytest.mark.limit_flops('{limit} FLOP')\ndef test_net(): Net()(rows())"
    run(pytester, body, **{outcome: 1})


def test_multiply_adds(pytester: pytest.Pytester) -> None:
    half = net() // 2
    body = "@pytest.mark.limit_flops('{} MAC')\ndef test_net(): Net()(rows())"
    run(pytester, body.format(half), passed=1)
    text = run(pytester, body.format(half - 1), failed=1)
    assert f"{net()} FLOP, limit {half - 1} MAC ({net() - 2} FLOP): 2 FLOP over (+0.1%)" in text


def test_a_failure_is_short(pytester: pytest.Pytester) -> None:
    body = "@pytest.mark.limit_flops('2 kFLOP')\ndef test_net():\n    Net()(rows())"
    text = run(pytester, body, failed=1)
    over = net() - 2000
    verdict = f"{net()} FLOP, limit 2 kFLOP: {over} FLOP over (+{over / 20:.1f}%)"
    assert f"FAILED test_a_failure_is_short.py::test_net - {verdict}" in text
    shown = text.partition("= FAILURES =")[2].partition("= short test summary")[0].splitlines()[2:-1]
    assert shown == [
        verdict,
        f"  (Net).up    {up()} FLOP  aten.addmm.default float32 [16] [4,8] [8,16]",
        f"  (Net).down  {down()} FLOP  aten.addmm.default float32 [8] [4,16] [16,8]",
        "  not compared: it has not passed here yet",
        "at test_a_failure_is_short.py:19",
    ]


def test_a_failure_in_one_line(pytester: pytest.Pytester) -> None:
    body = "@pytest.mark.limit_flops('2 kFLOP')\ndef test_net():\n    Net()(rows())"
    text = run(pytester, body, "--tb=line", failed=1)
    shown = text.partition("= FAILURES =")[2].partition("= short test summary")[0].splitlines()[1:-1]
    file = pytester.path / "test_a_failure_in_one_line.py"
    assert shown == [f"{file}:19: {net()} FLOP, limit 2 kFLOP: {net() - 2000} FLOP over (+{(net() - 2000) / 20:.1f}%)"]


@pytest.mark.parametrize(
    ("marker", "measured"),
    [
        ("limit_bytes({})", UP_BYTES + DOWN_BYTES),
        ("limit_bytes({}, module='up')", UP_BYTES),
        ("limit_flops({}, module='up')", up()),
        ("limit_flops({}, module='*.up')", up()),
        ("limit_flops({}, module='Net')", net()),
        ("limit_flops({}, module='Net.*')", net()),
        ("limit_flops({}, phase='forward')", net()),
        ("limit_flops(limit={}, phase='forward')", net()),
        ("limit_memory_bytes({}, kind='saved')", 4 * (4 * 8) + 4 * (4 * 16)),  # the inputs of the two layers
        ("limit_memory_bytes({}, kind='saved', module='down')", 4 * (4 * 16)),
    ],
)
def test_of_a_forward(pytester: pytest.Pytester, marker: str, measured: int) -> None:
    _at_and_below(pytester, marker, measured, "MODEL(X)")


@pytest.mark.parametrize(
    ("marker", "measured"),
    [
        ("limit_flops({}, phase='forward')", net()),
        # dX, dW and the sum over the rows for the bias
        ("limit_flops({}, phase='backward', module='down')", 2 * (2 * 4 * 16 * 8) + (4 - 1) * 8),
        # the input needs no gradient: dW and the bias
        ("limit_flops({}, phase='backward', module='up')", 2 * 4 * 8 * 16 + (4 - 1) * 16),
        ("limit_flops({}, module='up')", up() + 2 * 4 * 8 * 16 + (4 - 1) * 16),
        ("limit_flops({}, phase='optimizer')", 0),
    ],
)
def test_of_a_backward(pytester: pytest.Pytester, marker: str, measured: int) -> None:
    _at_and_below(pytester, marker, measured, "Net()(X).backward(X)")


def _at_and_below(pytester: pytest.Pytester, marker: str, measured: int, does: str) -> None:
    body = f"@pytest.mark.{marker.format(measured)}\ndef test_at(): {does}\n"
    if measured:
        body += f"@pytest.mark.{marker.format(measured - 1)}\ndef test_below(): {does}\n"
    text = run(pytester, body, passed=1, failed=int(measured > 0))
    assert "::test_at" not in text


def test_peak_memory(pytester: pytest.Pytester) -> None:
    """A tensor of 1 MiB and one made of it are both alive at the peak."""
    body = """
@pytest.mark.limit_memory_bytes("{} B")
def test_peak(): torch.zeros(2**18) + 1
"""
    run(pytester, body.format(2**21), passed=1)
    text = run(pytester, body.format(2**21 - 1), failed=1)
    assert "peak memory: 2,097,152 B, limit 2097151 B: 1 B over (+<0.1%)" in text


def test_unpriced(pytester: pytest.Pytester) -> None:
    body = """
@torch.library.custom_op("plugin_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor: return x + x

@pytest.mark.limit_unpriced(0)
def test_none(): twice(rows())

@pytest.mark.limit_unpriced(1)
def test_one(): twice(rows())

@pytest.mark.limit_flops(0)
def test_lower_bound(): Net()(twice(rows()))
"""
    text = run(pytester, body, passed=1, failed=2)
    assert "op calls without a formula: 1, limit 0: 1 over" in text
    assert "plugin_test.twice.default" in text
    assert "at least " in text


def test_limits_stack(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.mark.limit_flops({net()})
@pytest.mark.limit_flops({up() - 1}, module="up")
@pytest.mark.limit_bytes(1)
def test_net(): MODEL(rows())  # which writes its rows, too
"""
    text = run(pytester, body, failed=1)
    assert f"::test_net - bytes: {UP_BYTES + DOWN_BYTES + 4 * 8 * 4} B, limit 1 B" in text  # the whole comes first
    assert f"FLOPs of up: {up()} FLOP, limit" in text
    assert "bytes: " in text
    assert f"limit {net()}" not in text  # that one holds


def test_the_closest_marker_counts(pytester: pytest.Pytester) -> None:
    body = f"""
@pytest.mark.limit_flops({net() - 1})
class TestNet:
    def test_inherits(self): Net()(rows())

    @pytest.mark.limit_flops({net()})
    def test_own(self): Net()(rows())

    @pytest.mark.limit_flops({net()}, module="up")
    def test_both(self): Net()(rows())

low = pytest.mark.limit_flops({net(rows=5) - 1})
enough = pytest.mark.limit_flops({net(rows=5)})

@pytest.mark.parametrize("n", [pytest.param(5, marks=low), pytest.param(5, marks=enough), 6])
def test_rows(n): Net()(rows(n))
"""
    text = run(pytester, body, passed=3, failed=3)
    for name in ("TestNet::test_inherits", "TestNet::test_both", "test_rows[5_0]"):
        assert f"::{name} - " in text


def test_a_module_that_nobody_has(pytester: pytest.Pytester) -> None:
    body = "@pytest.mark.limit_flops('1 GFLOP', module='upp')\ndef test_net(): Net()(rows())"
    text = run(pytester, body, failed=1)
    assert 'no module matches "upp", so its budget would limit nothing. Did you mean up' in text


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("limit_flops('4.2 GFLOPS')", "'4.2 GFLOPS' is no amount of flops: NUMBER UNIT, the unit FLOP or MAC"),
        ("limit_bytes('1 GFLOP')", "'1 GFLOP' is no amount of bytes: NUMBER UNIT, the unit B"),
        ("limit_flops()", "it takes one limit, and phase and module by name."),
        ("limit_flops(1, limit=2)", "it takes one limit, and phase and module by name."),
        ("limit_flops(1, 2)", "it takes one limit, and phase and module by name."),
        ("limit_flops(1, layer='up')", "it takes one limit, and phase and module by name."),
        ("limit_unpriced(0, module='up')", "it takes one limit."),
        ("limit_unpriced('0')", "a count is a whole number, 0 or more, not '0'."),
        ("limit_flops(1, phase='forwards')", "phase 'forwards' is not one of forward, backward"),
        ("limit_memory_bytes(1, kind='most')", "kind 'most' is not one of peak, saved."),
        ("limit_memory_bytes(1, module='up')", "the peak is of the whole run"),
    ],
)
def test_a_limit_that_cannot_be_read_is_a_collection_error(
    pytester: pytest.Pytester, marker: str, sentence: str
) -> None:
    text = run(pytester, f"@pytest.mark.{marker}\ndef test_net(): raise SystemExit", errors=1)
    assert "ERROR collecting" in text
    assert f"::test_net: @pytest.mark.{marker}: {sentence}" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("class Case(unittest.TestCase):\n    @bad\n    def test_case(self): pass", "Case::test_case"),
        ("@bad\nclass TestCase:\n    def test_case(self): pass", "TestCase::test_case"),
        ("pytestmark = bad\nclass TestCase:\n    def test_case(self): pass", "TestCase::test_case"),
        ("@pytest.mark.parametrize('n', [1, pytest.param(2, marks=bad)])\ndef test_rows(n): pass", "test_rows[2]"),
    ],
)
def test_a_bad_limit_of_a_unittest_or_of_one_parameter(pytester: pytest.Pytester, body: str, name: str) -> None:
    text = run(pytester, f"import unittest\nbad = pytest.mark.limit_flops('1')\n{body}", errors=1)
    assert f"::{name}: @pytest.mark.limit_flops('1'): '1' is no amount of flops" in text
