"""The pictures of terminals in the documents are what the commands beside them show."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from attnprof.cli import main
from reports.screenshots import svg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reports.md"
WIDTH = 100
#: ``![attnprof run model.py:build --backward](images/table.svg)``
PICTURES = re.findall(r"!\[(attnprof [^]]+)\]\((images/[\w-]+\.svg)\)", PAGE.read_text(encoding="utf-8"))


def test_the_page_has_pictures() -> None:
    assert len(PICTURES) == len({path for _, path in PICTURES}) >= 2


@pytest.mark.parametrize(("command", "path"), PICTURES, ids=[path for _, path in PICTURES])
def test_pictures_are_real(
    command: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole files, compared whole. ``UPDATE_DOCS=1 pytest tests/reports/test_screenshots.py`` makes them anew."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in (("COLUMNS", str(WIDTH)), ("FORCE_COLOR", "1"), ("NO_COLOR", "")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as left:
        main(shlex.split(command)[1:])
    shown = capsys.readouterr()
    assert (left.value.code or 0, shown.err) == (0, "")
    text = re.sub(r"(torch [\d.]+)\+\w+", r"\1", shown.out)
    made = svg(command, text, WIDTH, Path(path).stem)
    assert not re.search(r"url\([^#]|href|@import", made)  # nothing is loaded from anywhere
    target = PAGE.parent / path
    if os.environ.get("UPDATE_DOCS"):
        target.write_text(made, encoding="utf-8")
    assert made == target.read_text(encoding="utf-8")
