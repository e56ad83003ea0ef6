"""The end of a session: the dearest tests on the terminal, as JSON and as Markdown."""

from __future__ import annotations

import json

import pytest

from pytest_plugin.project import DOWN_BYTES, UP_BYTES, net, run

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


def test_nothing_to_count(pytester: pytest.Pytester) -> None:
    run(pytester, "", "--attnprof-markdown=out.md")
    assert "No test was counted." in (pytester.path / "out.md").read_text()
