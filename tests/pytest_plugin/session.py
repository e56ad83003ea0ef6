"""Console sessions in documents, run again: each command in one folder, in order, its output compared whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attnprof.cli import main

BLOCK = re.compile(r"(```console\n)(.*?)(```\n)", re.DOTALL)
COMMAND = re.compile(r"^\$ ([^\n]+)\n", re.MULTILINE)
WIDTH = "110"


def rerun(text: str, folder: Path, capsys: pytest.CaptureFixture[str], pytester: pytest.Pytester) -> str:
    """The document with the real output of every command in its console blocks."""

    def again(block: re.Match[str]) -> str:
        commands = COMMAND.findall(block[2])
        shown = "".join(f"$ {command}\n{output(command, folder, capsys, pytester)}" for command in commands)
        return block[1] + shown + block[3]

    return BLOCK.sub(again, text)


def output(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str], pytester: pytest.Pytester | None = None
) -> str:
    """What a command prints: on stdout, and after it on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", WIDTH)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        for name in [name for name, module in sys.modules.items() if _is_of(module, folder)]:
            patch.delitem(sys.modules, name)
        program, *arguments = shlex.split(command)
        silent = arguments[-2:] == [">", "/dev/null"]
        arguments = arguments[:-2] if silent else arguments
        if "|" in arguments:
            program = "bash"
        if program == "pytest" and pytester is not None:
            found = pytester.runpytest_inprocess(*arguments, "-p", "no:hypothesispytest", "-p", "no:cacheprovider")
            text = found.stdout.str() + found.stderr.str()
            capsys.readouterr()
        elif program == "attnprof":
            with pytest.raises(SystemExit):
                main(arguments)
            text = "".join(capsys.readouterr())
        else:
            patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True)
            text = done.stdout + done.stderr
    if silent:
        return ""
    text = re.sub(r" in \d+\.\d+s", "", text.lstrip("\n"))
    text = re.sub(r"torch [\d.]+\S*", lambda m: m[0].split("+")[0], text)
    return text if not text or text.endswith("\n") else f"{text}\n"


def _is_of(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)
