"""``--html`` and ``to_html``: a file that is whole, from a run or from a saved one, and what is refused before it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

import attnprof
from attnprof.analysis.tree import ModuleNode
from attnprof.api import Report
from attnprof.cli import main
from attnprof.core.errors import AttnprofError
from attnprof.reports import files
from attnprof.reports.html import page
from html_report import pages

Command = Callable[..., tuple[int, str, str]]
SOURCE = """
import torch
def build(): return torch.nn.Linear(80, 160), (torch.ones(4, 80),)
def never(): raise RuntimeError("the run began")
"""


@pytest.fixture
def attnprof_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def data_of(path: Path) -> dict[str, object]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def test_a_run_and_the_saved_run_make_the_same_page(attnprof_command: Command, tmp_path: Path) -> None:
    code, out, err = attnprof_command("run", "net.py:build", "--backward", "-o", "run.json", "--html", "a.html")
    assert (code, err) == (0, "")
    assert "Linear" in out
    assert attnprof_command("report", "run.json", "--html", "b.HTML")[0] == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.HTML").read_bytes()
    attnprof.load(tmp_path / "run.json").to_html(tmp_path / "c.htm")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "c.htm").read_bytes()


def test_a_saved_run_needs_no_torch(tmp_path: Path) -> None:
    pages.report(pages.without_memory()).save(tmp_path / "run.json")
    code = (
        "import sys\nfrom attnprof.cli import main\n"
        "try: main(['report', 'run.json', '--device', 'h100-sxm', '--html', 'r.html'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "False")
    assert data_of(tmp_path / "r.html")["title"] == "Net"


def test_units_are_those_of_the_command(attnprof_command: Command, tmp_path: Path) -> None:
    pages.report(pages.without_memory()).save(tmp_path / "run.json")
    assert attnprof_command("report", "run.json", "--html", "r.html", "--units", "exact,macs")[0] == 0
    assert data_of(tmp_path / "r.html")["units"] == {"exact": True, "binary": False, "macs": True}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("r.txt", 'a page is an .html file, not ".txt".'),
        ("r", 'a page is an .html file, and "r" does not end so.'),
        ("no/r.html", "cannot write no/r.html: the folder no does not exist."),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(
    attnprof_command: Command, tmp_path: Path, name: str, told: str
) -> None:
    code, out, err = attnprof_command("run", "net.py:never", "--html", name)
    assert (code, out, err) == (2, "", f"attnprof: {told}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_without_the_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AttnprofError, match=rf"^pages need {package}: pip install 'attnprof\[html\]'\.$"):
        pages.report(pages.without_memory()).to_html(tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("before")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pages.report(pages.without_memory()).to_html(path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["r.html"]


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        pages.report(pages.hostile(), "h100-sxm").to_html(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_every_script_and_style_is_in_the_page() -> None:
    there = {one.name for one in resources.files("attnprof.reports.html").joinpath("static").iterdir()}
    assert there == {*page._SCRIPTS, *page._STYLES}


def test_every_number_of_the_tree_is_the_reports(gpt: Report, gpt_page: Path) -> None:
    """The data of the page, without a browser: all rows of the unfolded tree, all phases, both kinds, all devices."""
    data = data_of(gpt_page)
    layers: dict[str, dict[str, list[int]]] = data["layers"]  # type: ignore[assignment]
    every = layers["every"]
    nodes: dict[str, ModuleNode] = {node.fqn: node for node in gpt.root.walk()}
    rows = [row for row, own in enumerate(every["own"]) if not own]
    names = [every["name"][row] for row in rows]
    assert sorted(names) == sorted(fqn for fqn in nodes if fqn != "(outside)")
    for row, fqn in zip(rows, names, strict=True):
        for phase, cost in every["costs"].items():  # type: ignore[attr-defined]
            expected = gpt.by_module(phase)[fqn]
            assert [column[row] for column in cost] == [
                expected.matmul_flops,
                expected.vector_flops,
                expected.useful_matmul_flops,
                expected.read_bytes,
                expected.write_bytes,
            ]
        for device, roofline in zip(every["devices"], gpt.rooflines, strict=True):
            time = roofline.point(fqn).attainable
            assert [column[row] for column in device["all"]] == [time.compute_s, time.memory_s, time.launch_s]  # type: ignore[index]
