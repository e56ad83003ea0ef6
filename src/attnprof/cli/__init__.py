"""The command line. ``main`` is the console script ``attnprof``.

Exit codes: 0 done; 1 the model (or its file) raised, after its traceback and the table of what ran until
then; 2 something to correct, said in one sentence on stderr; 130 interrupted; 141 the reader of the output left, as
shells say it of a program that SIGPIPE ended.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

import attnprof
from attnprof.cli.calibrate import calibrate
from attnprof.cli.check import check
from attnprof.cli.compare import compare
from attnprof.cli.devices import devices
from attnprof.cli.diff import diff
from attnprof.cli.predict import predict
from attnprof.cli.report import report
from attnprof.cli.run import run
from attnprof.cli.scale import scale
from attnprof.cli.stand_ins import use_stand_ins
from attnprof.core.errors import AttnprofError
from attnprof.reports.text import printable

app = typer.Typer(
    name="attnprof",
    help="Exact FLOPs and bytes of any PyTorch module, per op, per layer, per phase.",
    epilog="Exit codes: 0 done; 1 the model raised; 2 something to correct; 130 interrupted; 141 the reader of the "
    "output left.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run)
app.command()(compare)
app.command(context_settings={"ignore_unknown_options": True})(predict)  # symbols are options of its own
app.command()(scale)
app.command()(report)
app.command()(diff)
app.command()(check)
app.command()(devices)
app.command()(calibrate)

#: 128 and the number of SIGPIPE.
_READER_LEFT = 141
#: What is wrong with an option. typer has this class from click, or in its own copy of it, and exports those below it.
_UsageError: Any = typer.BadParameter.__mro__[1]


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
    use_stand_ins()
    try:
        try:
            sys.exit(_run((sys.argv[1:] if arguments is None else arguments) or ["--help"]))
        finally:
            sys.stdout.flush()  # here, where a failure can be said, and not when Python ends
    except OSError as error:
        if error.filename is not None:
            raise  # about a file, not about what was printed
        _discard_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(_READER_LEFT)
        print(f"attnprof: cannot write the output: {error.strerror or error}.", file=sys.stderr)
        sys.exit(2)


def _run(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    try:
        return app(arguments, prog_name="attnprof", standalone_mode=False) or 0
    except _UsageError as error:
        told = error.format_message()
        command = error.ctx.command_path if error.ctx else "attnprof"
        return _refuse(f"{told}{'' if told.endswith(('.', '?')) else '.'} See `{command} --help`.")
    except AttnprofError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as left:  # typer leaves with 1 where the reader has
        if isinstance(left.__context__, BrokenPipeError):
            return _READER_LEFT
        raise


def _refuse(sentence: str) -> int:
    sys.stdout.flush()
    print(f"attnprof: {printable(sentence)}", file=sys.stderr)
    return 2


def _discard_output() -> None:
    """What could not be written is still in stdout's buffer, and Python would try it again at its end."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file behind it
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
