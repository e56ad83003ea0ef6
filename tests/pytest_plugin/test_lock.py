"""The lock file: compared exactly, written on purpose, never damaged, and clear about what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnprof.core import lock
from pytest_plugin.project import again, net, run, up

pytest_plugins = ["pytester"]

CHECK = """
def test_net(attnprof):
    attnprof.check(attnprof.run(Net({}), (X,)), "net")
"""


def entries(pytester: pytest.Pytester, name: str = "attnprof.lock.toml") -> dict[str, lock.Entry]:
    return lock.read(pytester.path / name)


def text_of(pytester: pytest.Pytester) -> str:
    return (pytester.path / "attnprof.lock.toml").read_text()


def test_an_entry_that_is_not_there_fails_and_says_what_to_do(pytester: pytest.Pytester) -> None:
    text = run(pytester, CHECK.format(""), failed=1)
    assert 'attnprof.lock.toml has no entry "net"' in text
    assert "write it: pytest --attnprof-update" in text
    assert not (pytester.path / "attnprof.lock.toml").exists()


def test_written_then_held(pytester: pytest.Pytester) -> None:
    text = run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    assert "attnprof.lock.toml: wrote net." in text
    found = entries(pytester)["net"]
    assert found.test == "test_written_then_held.py::test_net"
    totals = found.snapshot.totals()
    assert totals["matmul_flops"] + totals["vector_flops"] == net()
    again(pytester, passed=1)
    before = text_of(pytester)
    assert "attnprof.lock.toml: 1 entry is up to date." in again(pytester, "--attnprof-update", passed=1)
    assert text_of(pytester) == before


def test_the_file_is_for_people(pytester: pytest.Pytester) -> None:
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    line = next(line for line in text_of(pytester).splitlines() if line.startswith("up = "))
    assert line == (
        f"up = {{ matmul_flops = {2 * 4 * 8 * 16:_}, vector_flops = {4 * 16}, "
        f"read_bytes = {4 * (8 * 16 + 16 + 4 * 8)}, write_bytes = {4 * 4 * 16}, "
        'ops = ["aten.addmm.default float32 [16] [4,8] [8,16]"] }'
    )


@pytest.mark.parametrize("width", [17, 15])
def test_any_difference_fails_more_and_less(pytester: pytest.Pytester, width: int) -> None:
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    text = run(pytester, CHECK.format(width), failed=1)
    sign = "+" if width > 16 else "-"
    assert f"::test_net - net: {net(width)} FLOP, locked {net()} FLOP ({sign}" in text
    assert f"up    forward  {up()} → {up(width)} FLOP ({sign}" in text
    assert f"aten.addmm.default float32 [{width}] [4,8] [8,{width}], was [16] [4,8] [8,16]" in text
    assert "update on purpose: pytest --attnprof-update" in text


def test_the_same_total_at_other_places_fails(pytester: pytest.Pytester) -> None:
    body = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, {}), nn.Linear(8, {})
    def forward(self, x): return self.a(x), self.b(x)

def test_two(attnprof): attnprof.check(attnprof.run(Two(), (X,)), "two")
"""
    run(pytester, body.format(16, 24), "--attnprof-update", passed=1)
    text = run(pytester, body.format(24, 16), failed=1)
    assert "two: the totals are as locked, 2 groups of modules are not" in text
    assert f"a  forward  {up(16)} → {up(24)} FLOP" in text


def test_verbose_has_every_number(pytester: pytest.Pytester) -> None:
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    text = run(pytester, CHECK.format(32), "-v", failed=1)
    assert (
        f"total           matmul                  {2 * 2 * 4 * 8 * 16:,} → {2 * 2 * 4 * 8 * 32:,} FLOP (+100%)" in text
    )


# Tolerance: command line over the call over the ini file


@pytest.mark.parametrize(
    ("ini", "call", "option", "outcome"),
    [
        ("", "", "", "failed"),
        ("100%", "", "", "passed"),  # from 16 to 32 is 100% more, at most
        ("99%", "", "", "failed"),
        ("", "100%", "", "passed"),
        ("100%", "0", "", "failed"),
        ("0", "100%", "", "passed"),
        ("", "0", "100%", "passed"),
        ("100%", "100%", "0", "failed"),
    ],
)
def test_tolerance(pytester: pytest.Pytester, ini: str, call: str, option: str, outcome: str) -> None:
    if ini:
        pytester.makeini(f"[pytest]\nattnprof_tolerance = {ini}\n")
    said = f", tolerance='{call}'" if call else ""
    body = 'def test_net(attnprof): attnprof.check(attnprof.run(Net({}), (X,)), "net"' + said + ")"
    run(pytester, body.format(16), "--attnprof-update", passed=1)
    run(pytester, body.format(32), *([f"--attnprof-tolerance={option}"] if option else []), **{outcome: 1})


def test_a_bad_tolerance_of_a_call(pytester: pytest.Pytester) -> None:
    body = "def test_net(attnprof): attnprof.check(attnprof.run(Net(), (X,)), 'net', tolerance=0.01)"
    assert "tolerance 0.01 is no percentage" in run(pytester, body, failed=1)


# Where the file is


def test_the_file_is_beside_the_tests(pytester: pytest.Pytester) -> None:
    pytester.mkdir("tests")
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    assert set(entries(pytester, "tests/attnprof.lock.toml")) == {"net"}


def test_the_ini_file_and_the_command_line_name_another(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nattnprof_lock = costs/net.toml\n")
    pytester.mkdir("costs")
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    assert set(entries(pytester, "costs/net.toml")) == {"net"}
    again(pytester, "--attnprof-update", "--attnprof-lock=other.toml", passed=1)
    assert set(entries(pytester, "other.toml")) == {"net"}


def test_a_folder_that_is_not_there_is_said(pytester: pytest.Pytester) -> None:
    body = CHECK.format("")
    result_text = run(pytester, body, "--attnprof-update", "--attnprof-lock=no/such.toml", passed=1)
    assert "does not exist. Nothing was written." in result_text


# Who writes which entry


def test_only_what_ran_and_passed_is_written(pytester: pytest.Pytester) -> None:
    body = """
def test_one(attnprof): attnprof.check(attnprof.run(Net({0}), (X,)), "one")
def test_two(attnprof): attnprof.check(attnprof.run(Net({0}), (X,)), "two")
def test_fails(attnprof):
    attnprof.check(attnprof.run(Net({0}), (X,)), "fails")
    assert {0} == 16
def test_skips(attnprof):
    attnprof.check(attnprof.run(Net({0}), (X,)), "skips")
    if {0} != 16: pytest.skip()
"""
    run(pytester, body.format(16), "--attnprof-update", passed=4)
    before = entries(pytester)
    run(pytester, body.format(32), "--attnprof-update", "-k", "not two", passed=1, failed=1, skipped=1, deselected=1)
    after = entries(pytester)
    assert {name for name in before if before[name] != after[name]} == {"one"}
    assert set(after) == set(before)


def test_checks_of_fixtures_are_written_if_the_test_passes(pytester: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def around(attnprof):
    attnprof.check(attnprof.run(Net(8), (X,)), "before" + attnprof.suffix)
    yield
    attnprof.check(attnprof.run(Net(16), (X,)), "after" + attnprof.suffix)

@pytest.fixture
def good(attnprof): attnprof.suffix = ""

@pytest.fixture
def bad(attnprof): attnprof.suffix = "-bad"

def test_good(good, around): pass
def test_bad(bad, around): assert False
"""
    run(pytester, body, "--attnprof-update", passed=1, failed=1)
    assert set(entries(pytester)) == {"before", "after"}


def test_names_of_parametrised_tests_classes_and_runs_without_a_name(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("width", [8, 16])
def test_rows(attnprof, width): attnprof.check(attnprof.run(Net(width), (X,)))

class TestNet:
    def test_named(self, attnprof): package.check(attnprof.run(Net(), (X,)), "a name, with ünïcode \\" and \\x1b")
"""
    text = run(pytester, body, "--attnprof-update", passed=3)
    assert "\x1b[" not in text.partition("wrote ")[2].partition("\n")[0]
    file = "test_names_of_parametrised_tests_classes_and_runs_without_a_name.py"
    assert set(entries(pytester)) == {
        f"{file}::test_rows[8]",
        f"{file}::test_rows[16]",
        'a name, with ünïcode " and \x1b',
    }
    again(pytester, passed=3)


def test_async_tests(pytester: pytest.Pytester) -> None:
    body = """
@pytest.fixture
def anyio_backend(): return "asyncio"

@pytest.mark.anyio
async def test_net(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "net")
"""
    run(pytester, body, "--attnprof-update", passed=1)
    again(pytester, "-p", "no:cacheprovider", passed=1)


def test_one_name_for_two_costs(pytester: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("width", [8, 16])
def test_rows(attnprof, width): attnprof.check(attnprof.run(Net(width), (X,)), "rows")
"""
    pytester.makepyfile(conftest="")
    text = run(pytester, body, "--attnprof-update", passed=2)
    assert '"rows" is the name of two runs that cost not the same, in ' in text
    assert "rows" not in entries(pytester)
    body = "def test_twice(attnprof):\n    for w in (8, 16): attnprof.check(attnprof.run(Net(w), (X,)), 'twice')"
    assert 'two runs of this test are called "twice" and cost not the same' in run(
        pytester, body, "--attnprof-update", failed=1
    )


def test_check_outside_a_test(pytester: pytest.Pytester) -> None:
    text = run(pytester, "package.check(package.run(MODEL, (X,)), 'net')\ndef test_nothing(): pass", errors=1)
    assert "check() belongs inside a test: no test is running." in text


@pytest.mark.slow
def test_xdist_loses_and_doubles_nothing(pytester: pytest.Pytester) -> None:
    """Sixteen tests on two workers, and an entry of a test that is gone: one file, each entry once."""
    body = """
@pytest.mark.parametrize("width", range({0}, {0} + 16))
def test_rows(attnprof, width): attnprof.check(attnprof.run(Net(width), (X,)), f"rows-{{width}}")

@pytest.mark.limit_flops(1)
def test_over(): MODEL(X)
"""
    run(pytester, body.format(1), "-n2", "--attnprof-update", passed=16, failed=1)
    assert set(entries(pytester)) == {f"rows-{width}" for width in range(1, 17)}
    assert text_of(pytester).count("[run.rows-3]") == 1
    text = run(pytester, body.format(3), "-n2", "--attnprof-report", passed=14, failed=3)
    assert f"::test_over - {net()} FLOP, limit 1 FLOP" in text
    assert "no test checks rows-1, rows-2 any more." in text
    assert "17 tests counted" in text  # on two workers, each once
    again(pytester, "-n2", "--attnprof-update", "--attnprof-prune", passed=16, failed=1)
    assert set(entries(pytester)) == {f"rows-{width}" for width in range(3, 19)}


# Stale entries


def test_stale_entries_are_listed_and_deleted_on_demand(pytester: pytest.Pytester) -> None:
    body = """
def test_kept(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "kept")
def test_renamed(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "old")
def test_gone(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "gone")
"""
    run(pytester, body, "--attnprof-update", passed=3)
    body = """
def test_kept(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "kept")
def test_renamed(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "new")
"""
    stale = "attnprof.lock.toml: no test checks gone, old any more. Delete: pytest --attnprof-update --attnprof-prune"
    text = run(pytester, body, "--attnprof-update", passed=2)
    assert stale in text
    assert set(entries(pytester)) == {"kept", "old", "new", "gone"}
    again(pytester, "--attnprof-update", "--attnprof-prune", passed=2)
    assert set(entries(pytester)) == {"kept", "new"}


def test_what_was_not_selected_is_not_stale(pytester: pytest.Pytester) -> None:
    body = """
def test_one(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "one")
def test_two(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "two")
"""
    run(pytester, body, "--attnprof-update", passed=2)
    assert "any more" not in again(pytester, "-k", "one", passed=1, deselected=1)
    run(pytester, body.replace('"one")', '"one"); assert 0'), failed=1, passed=1)
    assert "any more" not in again(pytester, "--lf", failed=1)  # which does not even collect the others
    run(pytester, body, passed=2)
    assert "any more" not in again(pytester, "test_what_was_not_selected_is_not_stale.py::test_one", passed=1)
    pytester.makepyfile(test_other="def test_other(): pass")
    assert "any more" not in again(pytester, "test_other.py", passed=1)
    (pytester.path / "test_what_was_not_selected_is_not_stale.py").unlink()
    assert "no test checks one, two any more" in again(pytester, "test_other.py", passed=1)


# The environment


def test_another_environment_is_an_explanation_and_no_difference(pytester: pytest.Pytester) -> None:
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    path = pytester.path / "attnprof.lock.toml"
    version = entries(pytester)["net"].snapshot.environment["torch"]
    path.write_text(path.read_text().replace(f'torch = "{version}"', 'torch = "1.0.0"'))
    assert "1.0.0" not in again(pytester, passed=1)
    text = run(pytester, CHECK.format(32), failed=1)
    assert f"locked elsewhere, which may be why: torch was 1.0.0 and is {version}" in text


def test_attention_kernel_and_grad_mode_are_part_of_it(pytester: pytest.Pytester) -> None:
    body = """
from torch.nn.attention import SDPBackend, sdpa_kernel

class Attention(nn.Module):
    def forward(self, x): return nn.functional.scaled_dot_product_attention(x, x, x)

def test_attention(attnprof):
    with sdpa_kernel(SDPBackend.{}), torch.set_grad_enabled({}):
        attnprof.check(attnprof.run(Attention(), (torch.ones(1, 2, 4, 8),)), "attention")
"""
    run(pytester, body.format("FLASH_ATTENTION", True), "--attnprof-update", passed=1)
    text = run(pytester, body.format("MATH", False), failed=1)
    assert "attention was scaled_dot_product_flash_attention_for_cpu and is no fused kernel" in text
    assert "grad was True and is False" in text


# Files that are damaged


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda t: t[: len(t) // 2], "is not TOML"),
        (lambda t: "{}", "is not TOML"),
        (lambda t: "", 'is no lock file: it states no "version = 1"'),
        (lambda t: t.replace("version = 1", "version = 2"), "has version 2, of a newer attnprof"),
        (lambda t: f"<<<<<<< HEAD\n{t}=======\n>>>>>>> branch\n", "has a merge conflict in line 1 (<<<<<<<)"),
        (lambda t: t.replace("matmul_flops = 1_024", "matmul_flops = 1_023", 1), "the sum of its lines"),
        (lambda t: t.replace("matmul_flops = 1_024", "matmul_flops = -1", 1), "-1 is negative"),
        (lambda t: t.replace("matmul_flops = 1_024", "flops = 1_024", 1), "a line has no 'flops'"),
        (lambda t: t.replace("\nup = ", "\n'[1-0]' = ", 1), "runs backwards"),
        (lambda t: t.replace("environment = ", "environs = ", 1), "it has no 'environs'"),
        (lambda t: t.replace("total = ", "# total = ", 1), "'total' is missing"),
    ],
)
@pytest.mark.parametrize("option", ["--attnprof-update", "--attnprof-report"])
def test_a_file_that_cannot_be_read_is_said_and_left_alone(
    pytester: pytest.Pytester, damage: object, sentence: str, option: str
) -> None:
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    path = pytester.path / "attnprof.lock.toml"
    damaged = damage(path.read_text())  # type: ignore[operator]
    path.write_text(damaged)
    text = again(pytester, option, failed=1)
    assert sentence in text
    assert "Traceback" not in text
    assert path.read_text() == damaged


def test_writing_is_one_step(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be put in place, the old one is whole and nothing lies beside it."""
    run(pytester, CHECK.format(""), "--attnprof-update", passed=1)
    before = text_of(pytester)
    files = set(os.listdir(pytester.path))

    def fails(*paths: str | Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    text = run(pytester, CHECK.format(32), "--attnprof-update", passed=1)
    assert "No space left on device. Nothing was written." in text
    assert text_of(pytester) == before
    assert {f for f in os.listdir(pytester.path) if not f.startswith(("__", ".pytest"))} <= files
