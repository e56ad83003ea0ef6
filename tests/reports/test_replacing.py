"""An existing file is replaced where it is one of ours, or with ``force``: told by its content."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attnprof import api
from attnprof.core.errors import AttnprofError
from attnprof.hardware.catalog import device
from attnprof.reports.files import check_replaceable
from attnprof.reports.ours import is_ours
from reports.held import Held
from reports.traces import stack

REFUSED = r"exists, and attnprof did not write it: name another file, or replace it with --force\."


def report() -> api.Report:
    found = api.Report(stack().trace)
    found.devices = (device("h100-sxm"),)
    return found


WRITERS: dict[str, Callable[[Path], object]] = {
    "run.json": lambda path: report().save(path),
    "trace.json": lambda path: report().to_trace(path),
    "trace.json.gz": lambda path: report().to_trace(path),
    "flops.txt": lambda path: report().to_flame(path),
    "bytes.folded": lambda path: report().to_flame(path, "bytes"),
    "speedscope.json": lambda path: report().to_flame(path, "time"),
    "roof.png": lambda path: report().plot(path),
    "roof.svg": lambda path: report().plot(path),
    "roof.pdf": lambda path: report().plot(path),
    "page.html": lambda path: report().to_html(path),
    "table.txt": lambda path: path.write_text(report().to_table()),
    "narrow.txt": lambda path: path.write_text(report().to_table(width=40)),
    "report.json": lambda path: path.write_text(report().to_json()),
    "layers.csv": lambda path: path.write_text(report().to_csv()),
    "layers.md": lambda path: path.write_text(report().to_markdown()),
    "layers.tex": lambda path: path.write_text(report().to_latex()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_here_is_replaced_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert is_ours(path)
    check_replaceable(path)
    other = path.rename(tmp_path / "notes")
    check_replaceable(other)


THEIRS: dict[str, bytes] = {
    "json": b'{"format": "something", "schema": 1}',
    "json with our word": json.dumps({"name": "attnprof", "format": "attn", "x": "attnprof trace"}).encode(),
    "a list": b"[]",
    "speedscope": b'{"$schema": "https://www.speedscope.app/file-format-schema.json", "exporter": "py-spy"}',
    "chrome": b'{"displayTimeUnit": "ns", "traceEvents": [], "otherData": {"made by": "torch"}}',
    "packed": gzip.compress(b'{"traceEvents": []}'),
    "damaged gzip": b"\x1f\x8b\x08\x00nothing",
    "csv": b"module,class,flops\n,Net,3\n",
    "markdown": b"# Notes\n\nattnprof is a profiler.\n",
    "a page with our table": f"# Results\n\n```text\n{api.Report(stack().trace).to_table()}\n```\n".encode(),
    "a session with our table": f"$ attnprof run\n{api.Report(stack().trace).to_table()}\n".encode(),
    "page about us": b"<!doctype html><title>attnprof</title><meta name=generator content='hugo'>",
    "latex": b"% attnprof is used below\n\\documentclass{article}\n",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDRtEXtSoftware\0Matplotlib",
    "svg": b'<?xml version="1.0"?><svg><metadata><dc:title>figure</dc:title></metadata></svg>',
    "pdf": b"%PDF-1.4\n/Creator (LaTeX)\n",
    "stacks of others": b"main;forward;mm 12\nmain 3\n",
    "stacks of both": b"forward;Net;aten.mm.default 12\nmain;run 3\n",
    "source": b"def build():\n    return Net()\n",
    "binary": bytes(range(256)),
    "one blank": b"\n",
}


@pytest.mark.parametrize("name", THEIRS)
def test_what_somebody_else_wrote_is_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(THEIRS[name])
    with pytest.raises(AttnprofError, match=REFUSED):
        check_replaceable(path)
    check_replaceable(path, force=True)
    assert path.read_bytes() == THEIRS[name]


def test_what_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path in (tmp_path / "new", tmp_path / "empty", tmp_path / "pipe", Path("/dev/null")):
        check_replaceable(path)


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n")
    (tmp_path / "link.md").symlink_to("notes.md")
    with pytest.raises(AttnprofError, match=REFUSED):
        check_replaceable(tmp_path / "link.md")


def test_a_file_of_more_than_is_looked_at(tmp_path: Path) -> None:
    line = b"forward;Net;aten.mm.default 12\n"
    path = tmp_path / "stacks.txt"
    path.write_bytes(line * 10_000)  # the part that is looked at ends within a line
    check_replaceable(path)
    held = api.Report(stack(40).trace)
    held.trace.memory = Held().memory
    held.plot(tmp_path / "large.pdf", device="h100-sxm")
    check_replaceable(tmp_path / "large.pdf")


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("attnprof.reports.files.is_ours", refuse)
    (tmp_path / "secret").write_text("x")
    with pytest.raises(AttnprofError, match=r"secret exists and cannot be read \(Permission denied\)"):
        check_replaceable(tmp_path / "secret")
