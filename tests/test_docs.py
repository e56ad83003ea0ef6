"""What the documents show is what happens: their code runs, their tables are the program's output."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from attnprof.cli import main
from attnprof.costs import registry

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(```text\n\$ attnprof (?P<command>[^\n]+)\n)(?P<output>.*?)(```\n)", re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if blocks(d, "python")], ids=lambda p: p.name)
def test_python_in_the_documents_runs(path: Path) -> None:
    code = "\n".join(blocks(path, "python"))
    user = set(registry._user)
    try:
        exec(compile(code, str(path), "exec"), {"__name__": "documentation"})
    finally:
        for name in set(registry._user) - user:
            registry.forget(name)


def outputs(path: Path) -> list[tuple[str, str]]:
    return [(m["command"], m["output"]) for m in TABLE.finditer(path.read_text(encoding="utf-8"))]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(shlex.split(command))
    out, err = capsys.readouterr()
    assert (left.value.code or 0, err) == (0, "")
    return re.sub(r"torch [\d.]+\S*", lambda m: m[0].split("+")[0], out)  # 2.13.0+cpu is 2.13.0


@pytest.mark.parametrize("path", [d for d in DOCUMENTS if outputs(d)], ids=lambda p: p.name)
def test_tables_in_the_documents_are_real(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole outputs, compared whole. ``UPDATE_DOCS=1 pytest tests/test_docs.py`` writes them anew."""
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = path.read_text(encoding="utf-8")
    real = TABLE.sub(lambda m: m[1] + run(m["command"], capsys) + m[4], text)
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(real, encoding="utf-8")
        text = real
    assert text == real


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_sets_up_with_two_commands() -> None:
    commands = blocks(ROOT / "README.md", "bash")[:2]
    assert "attnprof run examples/tiny_gpt.py:build --backward" in commands[0]
    assert "pytest" in commands[1]
    for command in commands:
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && ")
        assert "pip install -q -c constraints.txt" in command
