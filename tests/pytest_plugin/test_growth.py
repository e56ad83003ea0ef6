"""What a test that costs too much has more of than when it last passed."""

from __future__ import annotations

import pytest

from pytest_plugin.project import again, run, up

pytest_plugins = ["pytester"]


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


def test_what_grew_is_what_the_limit_is_for(pytester: pytest.Pytester) -> None:
    """Each limit shows its own modules, phase and quantity: before → after of nothing else."""
    body = """
@pytest.mark.limit_flops({0}, module="up")
@pytest.mark.limit_flops({0}, phase="backward", module="down")
@pytest.mark.limit_bytes({0})
@pytest.mark.limit_memory_bytes({0}, kind="saved")
def test_net(): Net({1})(X).backward(X)
"""
    run(pytester, body.format(10**6, 16), passed=1)
    text = run(pytester, body.format(1, 32), failed=1)
    shown = _failure(text)
    flops_of_up = shown["FLOPs of up"]
    assert [line.split()[:2] for line in flops_of_up if "→" in line] == [
        ["(Net).up", "forward"],
        ["(Net).up", "backward"],
    ]
    assert f"forward   {up()} → {up(32)} FLOP (+100%)" in flops_of_up[0]
    # dX, dW and the sum over the rows for the bias
    before, after = (2 * (2 * 4 * width * 8) + (4 - 1) * 8 for width in (16, 32))
    (line,) = (line for line in shown["backward FLOPs of down"] if "→" in line)
    assert line.startswith(f"  (Net).down  backward  {before} → {after} FLOP (+")
    assert all(" B (" in line for line in shown["bytes"] if "→" in line)
    saved = [4 * (4 * 8) + 4 * (4 * width) for width in (16, 32)]
    more = f"(+{(saved[1] - saved[0]) / saved[0] * 100:.1f}%)"
    assert shown["saved memory"][0] == f"  saved for the backward {saved[0]} → {saved[1]} B {more}"


def _failure(text: str) -> dict[str, list[str]]:
    """The lines below each verdict of a failure, by what it is about."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.partition("= FAILURES =")[2].partition("\nat test_")[0].splitlines():
        if not line.startswith("  "):
            name = line.partition(": ")[0]
        else:
            found.setdefault(name, []).append(line)
    return found


def test_blocks_of_a_test(pytester: pytest.Pytester) -> None:
    """Each block with a budget, and each assertion, is compared with itself: of sixteen, as a loop may have many."""
    body = """
def test_two(attnprof):
    with attnprof.budget(flops=10**6): Net(8)(X)
    with attnprof.budget(flops={0}): Net({1})(X)

def test_assertion(): package.testing.assert_flops(Net({1}), {0}, (X,))

def test_many(attnprof):
    for n in range(20):
        with attnprof.budget(flops={0} if n == 19 else 10**6): Net({1})(X)
"""
    run(pytester, body.format(10**6, 16), passed=3)
    text = run(pytester, body.format(1, 32), failed=3)
    shown = text.partition("= FAILURES =")[2].partition("short test summary")[0]
    first, assertion, many = shown.split("\nat test_")[:3]
    assert f"  (Net).up    forward  {up()} → {up(32)} FLOP (+100%)" in first
    assert f"  up    forward  {up()} → {up(32)} FLOP (+100%)" in assertion
    assert "compared with when it last passed here (pytest's cache)" in first
    assert "→" not in many
    assert f"  (Net).up    {up(32)} FLOP" in many
