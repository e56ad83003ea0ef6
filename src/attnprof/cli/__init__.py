"""The command line. ``main`` is the console script ``attnprof``.

Exit codes: 0 done; 1 the model (or its file) raised, after its traceback and the table of what ran until
then; 2 something to correct, said in one sentence on stderr; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import attnprof
from attnprof.cli.devices import devices
from attnprof.cli.report import report
from attnprof.cli.run import run
from attnprof.core.errors import AttnprofError

app = typer.Typer(
    name="attnprof",
    help="Exact FLOPs and bytes of any PyTorch module, per op, per layer, per phase.",
    epilog="Exit codes: 0 done; 1 the model raised; 2 something to correct; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run)
app.command()(report)
app.command()(devices)


def _version(asked: bool) -> None:
    if asked:
        print(f"attnprof {attnprof.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without box characters gets a stand-in
    try:
        try:
            _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a failure can be said, and not when Python ends
    except OSError as error:
        if error.filename is not None:
            raise  # about a file, not about what was printed
        _discard_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        print(f"attnprof: cannot write the output: {error.strerror or error}.", file=sys.stderr)
        sys.exit(2)


def _run(arguments: list[str] | None) -> None:
    try:
        app(arguments, prog_name="attnprof")
    except AttnprofError as error:
        sys.stdout.flush()
        print(f"attnprof: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _discard_output() -> None:
    """What could not be written is still in stdout's buffer, and Python would try it again at its end."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file behind it
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
