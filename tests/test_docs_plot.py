"""The pictures of the documents are what the commands beside them draw."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from attnprof.cli import main

ROOT = Path(__file__).parents[1]
DRAWN = re.compile(r"^attnprof (?P<command>run [^\n]*--plot (?P<path>\S+))$", re.MULTILINE)
PICTURES = [
    (match["path"], match["command"])
    for document in sorted((ROOT / "docs").glob("*.md"))
    for match in DRAWN.finditer(document.read_text(encoding="utf-8"))
]


def test_a_document_has_a_picture() -> None:
    assert "docs/roofline.svg" in dict(PICTURES)


@pytest.mark.parametrize(("path", "command"), PICTURES, ids=[path for path, _ in PICTURES])
def test_pictures_in_the_documents_are_real(
    path: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole files, compared whole. ``UPDATE_DOCS=1 pytest tests/test_docs_plot.py`` draws them anew."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    drawn = tmp_path / Path(path).name
    with pytest.raises(SystemExit) as left:
        main([str(drawn) if word == path else word for word in command.split()])
    assert (left.value.code or 0, capsys.readouterr().err) == (0, "")
    if os.environ.get("UPDATE_DOCS"):
        Path(path).write_bytes(drawn.read_bytes())
    assert drawn.read_bytes() == Path(path).read_bytes()
