"""The layers of the package, enforced: who may import whom, and what an import may pull in.

Data goes one way: capture -> costs -> analysis -> reports, wired by ``api`` and shown by the faces. Every
import statement of every file is held against the table below, those inside functions included.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import attnprof

PACKAGE = Path(attnprof.__file__).parent

#: part of the package -> (parts it may import, third-party packages it may import)
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "core": (set(), set()),
    "capture": ({"core"}, {"torch"}),
    "costs": ({"core"}, set()),
    "analytic": ({"core"}, {"sympy"}),
    "hardware": ({"core"}, set()),
    "recovery": ({"core", "analytic"}, {"sympy"}),
    "claims": ({"core"}, {"sympy"}),
    "analysis": ({"core", "costs", "analytic", "recovery", "claims", "hardware"}, {"numpy", "sympy"}),
    "reports": ({"core", "analysis"}, {"tabulate", "plotly", "jinja2", "markupsafe", "matplotlib"}),
    "zoo": ({"core"}, {"torch"}),
    "counters": ({"core"}, {"torch", "fvcore"}),
    "saved": ({"core"}, {"torch", "sympy", "safetensors", "transformers", "huggingface_hub"}),
}
BELOW_API = set(TABLE)
TABLE["api"] = (BELOW_API, {"torch"})
TABLE["testing"] = (BELOW_API | {"api"}, {"torch"})
FACES = {
    "cli": {"typer", "torch", "tqdm"},
    "pytest_plugin": {"pytest", "torch"},
    "integrations": {"fvcore", "torch", "transformers", "tqdm"},
}
for face, packages in FACES.items():
    TABLE[face] = (BELOW_API | {"api", "testing", "__init__"}, packages)
TABLE["__init__"] = (BELOW_API | {"api", "testing"}, set())
TABLE["__main__"] = ({"cli"}, set())

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """``core`` for ``core/units.py``, ``api`` for ``api.py``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; ``from attnprof import x`` imports ``attnprof.x``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            if module == "attnprof":
                for alias in node.names:
                    yield node.lineno, f"attnprof.{alias.name}"
            else:
                yield node.lineno, module


def violations(source: str, part: str, package: tuple[str, ...] = ("attnprof",)) -> list[str]:
    """What in a file of ``part`` the table forbids."""
    allowed, third_party = TABLE[part]
    found = []
    for line, name in imports(ast.parse(source), package):
        top, *rest = name.split(".")
        if top == "attnprof":
            other = rest[0] if rest else "__init__"
            if other != part and other not in allowed:
                found.append(f"line {line}: {part} may not import attnprof.{other}")
        elif top not in sys.stdlib_module_names and top not in third_party:
            found.append(f"line {line}: {part} may not import {top}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    part = part_of(path)
    assert part in TABLE, f"{part} has no row in the table of layers"
    package = ("attnprof", *path.relative_to(PACKAGE).parent.parts)
    assert violations(path.read_text(encoding="utf-8"), part, package) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("core", "import torch"),
        ("core", "from attnprof.costs import registry"),
        ("costs", "def f():\n    import numpy"),
        ("costs", "from attnprof.capture.signatures import Signatures"),
        ("capture", "from attnprof import costs"),
        ("analysis", "from attnprof.reports import table"),
        ("analysis", "from ..reports import table"),
        ("reports", "import torch.nn as nn"),
        ("zoo", "from attnprof.costs.registry import cost"),
        ("api", "from attnprof.cli import main"),
        ("cli", "from attnprof.pytest_plugin import x"),
    ],
)
def test_the_check_sees_a_breach(part: str, source: str) -> None:
    assert len(violations(source, part, ("attnprof", part))) == 1


def test_ranks_point_downwards() -> None:
    """No two parts may import each other, at any distance."""

    def reachable(part: str, seen: set[str]) -> set[str]:
        for other in TABLE[part][0] - seen:
            seen |= {other}
            reachable(other, seen)
        return seen

    assert [part for part in TABLE if part in reachable(part, set())] == []


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "sympy", "typer", "tabulate", "fvcore", "transformers", "plotly", "matplotlib", "pytest"}


def test_import_attnprof_is_light() -> None:
    assert modules_after("import attnprof") & HEAVY == set()


def test_pricing_never_needs_torch() -> None:
    statement = "import attnprof.costs.pricing"
    assert "torch" not in modules_after(statement)


def test_the_command_line_starts_without_torch() -> None:
    assert "torch" not in modules_after("import attnprof.cli")


def test_the_documented_table_is_this_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    table = page.partition("| folder | knows | may import |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    documented = {folders.strip("`/"): set(filter(None, allowed.split(", "))) for folders, _, allowed in rows[:-2]}
    assert documented == {part: parts | packages for part, (parts, packages) in TABLE.items() if part in BELOW_API}
    assert [row[0] for row in rows[-2:]] == ["`api/`, `testing`", "`cli/`, `pytest_plugin/`"]
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == {
        *(documented.keys()),
        *("api", "cli", "pytest_plugin"),
    }
