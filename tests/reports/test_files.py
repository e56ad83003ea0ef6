"""A file is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnprof.core.errors import AttnprofError
from attnprof.reports.files import check_writable, write_text


def test_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    assert write_text(target, "é\n") == target
    assert target.read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path) == ["run.json"]


def test_permissions_are_those_of_a_plain_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    plain, target = tmp_path / "plain", tmp_path / "run.json"
    plain.write_text("")
    write_text(target, "one")
    assert target.stat().st_mode == plain.stat().st_mode
    target.chmod(0o640)
    write_text(target, "two")
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.read_text() == "two"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, failing, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AttnprofError, match=r"cannot write .*run.json: No space left on device"):
        write_text(tmp_path / "run.json", "new")
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_places_that_cannot_be_written_are_named_before(tmp_path: Path) -> None:
    with pytest.raises(AttnprofError, match=r"the folder .*nowhere does not exist"):
        check_writable(tmp_path / "nowhere" / "run.json")
    with pytest.raises(AttnprofError, match="is a folder; name a file in it"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(AttnprofError, match="is a file, not a folder"):
        check_writable(tmp_path / "file" / "run.json")
    assert check_writable(tmp_path / "run.json") == tmp_path / "run.json"


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "text")
        assert os.read(read, 100) == b"text"
        assert pipe.is_fifo()
    finally:
        os.close(read)


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(AttnprofError, match="cannot write"):
        write_text(tmp_path / name, "text")
