"""``attnprof report``: the table of a saved run, without the model and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnprof.cli import crosschecking, fitting, on_devices, options
from attnprof.cli.outputs import Outputs
from attnprof.cli.showing import show
from attnprof.reports.view import View

_STDIN = Path("-")


def report(
    path: Annotated[
        Path, typer.Argument(metavar="RUN.JSON", help="A run saved with -o; '-' is stdin.", show_default=False)
    ],
    device: options.DeviceOfSaved = None,
    peak: options.Peaks = None,
    bandwidth: options.Bandwidth = None,
    plot: options.Plot = None,
    html: options.Html = None,
    trace: options.Trace = None,
    trace_time: options.TraceTime = None,
    flame: options.Flame = None,
    weight: options.Weight = None,
    crosscheck: crosschecking.CrosscheckOfSaved = None,
    form: options.Form = None,
    output: options.Output = None,
    force: options.Force = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any op has no formula.")] = False,
    strict_prediction: options.StrictPrediction = False,
    by: options.By = "module",
    depth: options.Depth = None,
    sort: options.Sort = None,
    top: options.Top = None,
    phase: options.Phase = None,
    units: options.UnitsText = "decimal",
) -> None:
    """Show a saved run again, without its model and without torch.

    Example: attnprof report run.json --device a100-80gb-sxm,h100-sxm --plot roofline.png
    """
    view = View.of(by=by, depth=depth, sort=sort, top=top, phase=phase, units=units)
    crosschecking.refuse_for_saved(crosscheck)
    devices = on_devices.devices(device, peak, bandwidth, sort=sort, by=by, plot_path=plot)
    outputs = Outputs.of(
        view,
        form=form,
        save=output or (),
        plot=plot,
        html=html,
        trace=trace,
        trace_time=trace_time,
        flame=flame,
        weight=weight,
        devices=devices,
        force=force,
        read={} if path == _STDIN else {"RUN.JSON": path},
    )

    from attnprof import api

    loaded = api.load("/dev/stdin" if path == _STDIN else path)
    loaded.devices = devices
    show(loaded, outputs)
    if not outputs.is_data:
        fitting.show(fitting.verdicts(loaded, devices, view))
    if strict:
        loaded.require_priced()
    if strict_prediction:
        loaded.theory.require_exact()
