"""A report shown, and kept in the files that were asked for."""

from __future__ import annotations

import sys

from attnprof import api
from attnprof.cli.outputs import Outputs
from attnprof.core.device import DeviceSpec


def show(report: api.Report, outputs: Outputs) -> None:
    """Print what goes to stdout, then write the files.

    What is printed comes first: nothing that goes wrong with a file loses it. A reader that has seen enough
    (``| head``) loses no file.
    """
    try:
        outputs.show(report)
    except OSError:
        outputs.keep(report)
        raise
    outputs.keep(report)


def show_partial(
    counting: api.Profile, devices: tuple[DeviceSpec, ...], outputs: Outputs, *, fake: bool, ended: str
) -> None:
    """What was counted until the model ``ended`` ("raised", "was interrupted"), marked as such; no file is written.

    Where stdout is data the table goes to stderr: half of a run is no data.
    """
    _show_what_ran(counting, devices, outputs, fake, ended)
    for file in outputs.paths():
        print(f"attnprof: nothing was written to {file}: the run is not complete.", file=sys.stderr)


def _show_what_ran(
    counting: api.Profile, devices: tuple[DeviceSpec, ...], outputs: Outputs, fake: bool, ended: str
) -> None:
    hint = ""
    if fake and ended == "raised":
        hint = " Values are unknown under --fake; a model that looks at them may need a real run."
    trace = counting.trace if counting.has_begun else None
    if not trace:
        print(f"attnprof: the model {ended} before its first op.{hint}", file=sys.stderr)
        return
    calls = f"{len(trace):,} op {'call' if len(trace) == 1 else 'calls'}"
    if counting.is_counted:
        trace.notes.insert(0, f"No layer was timed: the model {ended} when it ran again for that. All is counted.")
        print(f"attnprof: the model {ended} while it was timed; the table shows what was counted.", file=sys.stderr)
    else:
        trace.notes.insert(0, f"Incomplete: the model {ended} after {calls}; this is what ran until then.")
        print(f"attnprof: the model {ended}; the table shows what ran until then.{hint}", file=sys.stderr)
    sys.stderr.flush()
    report = api.Report(trace)
    report.devices = devices
    if outputs.is_data:
        print(report.to_table(), file=sys.stderr)
    else:
        outputs.show(report)
