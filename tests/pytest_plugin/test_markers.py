"""Limits as markers: on both sides of the limit and at it, on what they count and on what they leave alone."""

from __future__ import annotations

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, again, down, net, run, up

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


def test_since_it_last_passed(pytester: pytest.Pytester) -> None:
    """Before → after, when the test passed here before; none with ``-p no:cacheprovider``."""
    body = "@pytest.mark.limit_flops('3 kFLOP')\ndef test_net(): Net({})(rows())"
    run(pytester, body.format(""), passed=1)
    text = run(pytester, body.format(32), failed=1)
    assert f"(Net).up    forward  {up()} → {up(32)} FLOP (+100%)" in text
    assert "aten.addmm.default float32 [32] [4,8] [8,32], was [16] [4,8] [8,16]" in text
    assert "  compared with when it last passed here (pytest's cache)\n" in text
    text = again(pytester, "-p", "no:cacheprovider", failed=1)
    assert f"(Net).up    {up(32)} FLOP  aten.addmm.default" in text
    assert "→" not in text
    assert "  not compared: pytest has no cache here\n" in text
    text = run(pytester, body.format("").replace("3 kFLOP", "2 kFLOP"), failed=1)
    assert "last passed here (pytest's cache): it costs the same, and the limit is new or lower\n" in text


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


# What is counted


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


# Command line over marker over ini


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
