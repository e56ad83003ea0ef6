"""The fixture: all of the package, budgets of a block, and assertions that explain themselves."""

from __future__ import annotations

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, again, down, net, run, up

pytest_plugins = ["pytester"]

#: What the two layers keep for the backward: their inputs.
SAVED = 4 * (4 * 8) + 4 * (4 * 16)


def test_it_has_what_the_package_has(pytester: pytest.Pytester) -> None:
    body = f"""
def test_net(attnprof):
    report = attnprof.run(MODEL, (X,), backward=True)
    assert report.phases["forward"].flops == {net()}
    assert report.total.flops <= attnprof.flops("10 kFLOP")
    assert attnprof.bytes("1 KiB") == 1024
    assert attnprof.Cost is package.Cost
    with attnprof.profile(MODEL) as prof: MODEL(X)
    assert prof.report().total.flops == {net()}
    with pytest.raises(AttributeError, match="no_such_name"): attnprof.no_such_name
"""
    run(pytester, body, passed=1)


def test_a_comparison_explains_itself(pytester: pytest.Pytester) -> None:
    body = """
def test_net(attnprof):
    report = attnprof.run(MODEL, (X,))
    assert report.total.flops <= attnprof.flops("2 kFLOP")
"""
    text = run(pytester, body, failed=1)
    assert f"assert {net()} FLOP <= 2 kFLOP" in text
    assert "total, flops; the most expensive modules, each without those in it:" in text
    assert f"up    {up()} FLOP  aten.addmm.default float32 [16] [4,8] [8,16]" in text
    assert f"down  {down()} FLOP  aten.addmm.default float32 [8] [4,16] [16,8]" in text


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("report.by_module()['up'].flops", f"assert {up()} FLOP < 1000 FLOP"),
        ("report.by_module()['up'].bytes", f"assert {UP_BYTES} B < 1000 B"),
        ("report.phases['forward'].flops", f"assert {net()} FLOP < 1000 FLOP"),
        ("report.memory.saved_bytes", f"assert {SAVED} B < 100 B"),
        ("report.memory.peak.bytes", " B < 100 B"),
    ],
)
def test_other_numbers_explain_themselves_too(pytester: pytest.Pytester, left: str, told: str) -> None:
    limit = 100 if "memory" in left else 1000 if "bytes" not in left else UP_BYTES
    body = f"def test_net(attnprof):\n    report = attnprof.run(MODEL, (X,))\n    assert {left} < {limit}\n"
    text = run(pytester, body, failed=1)
    assert told.replace("< 1000 B", f"< {limit} B") in text


@pytest.mark.parametrize(("limit", "told"), [("1e3", "1000 FLOP"), ("999.5", "999.5"), ("float('-inf')", "-inf")])
def test_a_float_is_a_number_too(pytester: pytest.Pytester, limit: str, told: str) -> None:
    body = f"def test_net(attnprof): assert attnprof.run(MODEL, (X,)).total.flops <= {limit}"
    text = run(pytester, body, failed=1)
    assert f"assert {net()} FLOP <= {told}\n" in text
    assert f"up    {up()} FLOP" in text


def test_an_amount_has_its_unit_where_nobody_knows_the_report(pytester: pytest.Pytester) -> None:
    body = """
@pytest.fixture(scope="session")
def report(): return package.run(MODEL, (X,))

def test_flops(report): assert report.total.flops <= package.flops("2 kFLOP")

def test_bytes(report): assert package.bytes("1 kB") > report.total.bytes
"""
    text = run(pytester, body, failed=2)
    assert f"assert {net()} FLOP <= 2 kFLOP\n" in text
    assert f"assert 1 kB > {UP_BYTES + DOWN_BYTES} B\n" in text


def test_what_a_user_has_to_correct_has_no_traceback_of_ours(pytester: pytest.Pytester) -> None:
    body = """
def test_unit(attnprof): attnprof.budget(flops="1 GB")
def test_name(attnprof): attnprof.check(attnprof.run(MODEL, (X,)), " ")
def test_model(attnprof):
    with attnprof.budget("model", flops=1): pass
"""
    text = run(pytester, body, failed=3)
    assert text.count("AttnprofError: ") >= 3
    assert "B is a unit of bytes." in text
    assert "src/attnprof" not in text
    assert "src/attnprof" in again(pytester, "--full-trace", failed=3)


def test_other_comparisons_are_left_alone(pytester: pytest.Pytester) -> None:
    body = """
def test_numbers(attnprof):
    report = attnprof.run(MODEL, (X,))
    assert 12345 == 54321

def test_floats(attnprof):
    report = attnprof.run(MODEL, (X,))
    assert 0.5 == 1e300

def test_texts(attnprof):
    report = attnprof.run(MODEL, (X,))
    assert "a" == "b"

def test_without(): assert 2144 == 1
"""
    text = run(pytester, body, failed=4)
    assert "assert 0.5 == 1e+300" in text
    assert "assert 12345 == 54321" in text
    assert "assert 'a' == 'b'" in text
    assert "assert 2144 == 1" in text
    assert "modules" not in text


@pytest.mark.parametrize(("limit", "outcome"), [(up(), "passed"), (up() - 1, "failed")])
def test_a_budget_of_a_block(pytester: pytest.Pytester, limit: int, outcome: str) -> None:
    body = f"""
def test_net(attnprof):
    MODEL(X)
    with attnprof.budget(MODEL, flops="{limit} FLOP", module="up") as b:
        MODEL(X)
    assert b.report.total.flops == {net()}
"""
    text = run(pytester, body, **{outcome: 1})
    if outcome == "failed":
        assert f"FLOPs of up: {up()} FLOP, limit {limit} FLOP: 1 FLOP over (+0.1%)" in text
        assert "at test_a_budget_of_a_block.py:22" in text


def test_a_block_that_raises_has_its_own_failure(pytester: pytest.Pytester) -> None:
    body = """
def test_net(attnprof):
    with attnprof.budget(flops=1):
        MODEL(X)
        raise ValueError("mine")
"""
    text = run(pytester, body, failed=1)
    assert "ValueError: mine" in text
    assert "limit 1" not in text


def test_verbose_shows_the_full_table(pytester: pytest.Pytester) -> None:
    body = """
class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8 + i) for i in range(8))
    def forward(self, x):
        return [layer(x) for layer in self.layers]

@pytest.mark.limit_flops(1)
def test_many(): Many()(X)
"""
    short = run(pytester, body, failed=1)
    assert "and 3 more" in short
    assert "layers.0 " not in short
    full = run(pytester, body, "-v", failed=1)
    assert f"(Many).layers.0  {up(8)} FLOP" in full
