"""The end of a session: the dearest tests on the terminal, as JSON and as Markdown."""

from __future__ import annotations

import json

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, again, net, run

pytest_plugins = ["pytester"]

BODY = f"""
def test_small(): MODEL(X)

@pytest.mark.limit_flops({net(rows=40)})
def test_large(): MODEL(torch.ones(40, 8))

@pytest.mark.limit_flops({net() - 1}, module="*")
@pytest.mark.parametrize("name", ["a|b"])
def test_over(name): MODEL(X)

def test_nothing(): pass
"""


def test_the_report(pytester: pytest.Pytester) -> None:
    text = run(pytester, BODY, "--attnprof-report", passed=3, failed=1)
    lines = text.partition("- attnprof -")[2].splitlines()[2:7]
    assert [line.split()[0] for line in lines[:4]] == [
        "21.4",
        "2.14",
        "2.14",
        "0",
    ]  # of net(rows=40) and net() in kFLOP
    assert [line.rpartition("::")[2] for line in lines[:4]] == [
        "test_large",
        "test_small",
        "test_over[a|b]",
        "test_nothing",
    ]
    assert lines[4].startswith("4 tests counted, ")


def test_the_report_by_ini_and_none_without(pytester: pytest.Pytester) -> None:
    assert "tests counted" not in run(pytester, BODY, passed=3, failed=1)
    pytester.makeini("[pytest]\nattnprof_report = true\n")
    assert "4 tests counted" in run(pytester, BODY, passed=3, failed=1)


def test_json(pytester: pytest.Pytester) -> None:
    run(pytester, BODY, "--attnprof-json=out.json", passed=3, failed=1)
    data = json.loads((pytester.path / "out.json").read_text())
    tests = {found["test"].rpartition("::")[2]: found for found in data["tests"]}
    assert list(tests) == ["test_large", "test_nothing", "test_over[a|b]", "test_small"]  # whatever ran first
    small = tests["test_small"]
    assert (small["outcome"], small["total"]["flops"], small["limits"]) == ("passed", net(), [])
    assert small["total"]["bytes"] == small["phases"]["forward"]["bytes"] == UP_BYTES + DOWN_BYTES
    assert small["memory"]["saved_bytes"] == 4 * (4 * 8) + 4 * (4 * 16)
    assert tests["test_over[a|b]"]["outcome"] == "failed"
    assert tests["test_over[a|b]"]["limits"] == [
        {"quantity": "flops", "module": "*", "limit": net() - 1, "measured": net(), "holds": False}
    ]


def test_markdown(pytester: pytest.Pytester) -> None:
    run(pytester, BODY, "--attnprof-markdown=out.md", passed=3, failed=1)
    text = (pytester.path / "out.md").read_text()
    assert "1 of 2 limits exceeded." in text
    first = next(line for line in text.splitlines() if line.startswith("| **over**"))
    assert first == (
        f"| **over** | test\\_markdown.py::test\\_over\\[a\\|b\\] | FLOPs of \\* | {net()} FLOP | {net() - 1} FLOP |"
    )
    assert text.index("test\\_large") < text.rindex("test\\_small")


@pytest.mark.parametrize("option", ["json", "markdown"])
def test_files_of_others_are_left_alone(pytester: pytest.Pytester, option: str) -> None:
    """A report is replaced by the next; the tests themselves, or a page that somebody wrote, are not."""
    run(pytester, BODY, f"--attnprof-{option}=out", passed=3, failed=1)
    again(pytester, f"--attnprof-{option}=out", "-k", "small", passed=1, deselected=3)
    assert "large" not in (pytester.path / "out").read_text()
    (pytester.path / "out").write_text("mine\n")
    text = again(pytester, f"--attnprof-{option}=out")
    assert f"--attnprof-{option}: attnprof did not write {pytester.path / 'out'}: name another file." in text
    assert (pytester.path / "out").read_text() == "mine\n"


def test_what_is_not_as_locked(pytester: pytest.Pytester) -> None:
    body = """
def test_locked(attnprof): attnprof.check(attnprof.run(Net({}), (X,)), "net")
def test_new(attnprof): attnprof.check(attnprof.run(Net(), (X,)), "new")
"""
    run(pytester, body.format(16), "--attnprof-update", "-k", "not test_new", passed=1, deselected=1)
    run(pytester, body.format(32), "--attnprof-markdown=out.md", "--attnprof-json=out.json", failed=2)
    text = (pytester.path / "out.md").read_text()
    assert "2 runs are not as locked:" in text
    assert f"\n    net: {net(32)} FLOP, locked {net()} FLOP (+" in text
    assert '\n    attnprof.lock.toml has no entry "new"\n' in text
    data = json.loads((pytester.path / "out.json").read_text())
    names = {test.rpartition("::")[2]: list(found) for test, found in data["differs"].items()}
    assert names == {"test_locked": ["net"], "test_new": ["new"]}
    counted = {found["test"].rpartition("::")[2]: found for found in data["tests"]}
    assert counted["test_locked"]["outcome"] == "failed"
    assert counted["test_locked"]["total"]["matmul_flops"] == 2 * 2 * 4 * 8 * 32  # counted up to its check


def test_a_test_that_fails_by_itself_is_not_counted(pytester: pytest.Pytester) -> None:
    text = run(pytester, "def test_raises():\n    MODEL(X)\n    assert False", "--attnprof-report", failed=1)
    assert "no test was counted" in text


def test_nothing_to_count(pytester: pytest.Pytester) -> None:
    run(pytester, "", "--attnprof-markdown=out.md")
    assert "No test was counted." in (pytester.path / "out.md").read_text()
