"""``attnprof run``: build the model a target names, count one call of it, show the table."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Annotated

import typer

from attnprof import api
from attnprof.cli import crosschecking, fitting, on_devices, options, saved, sized, sweep, target, weights
from attnprof.cli import inputs as input_specs
from attnprof.cli.outputs import Outputs
from attnprof.cli.request import Request
from attnprof.cli.showing import show, show_partial
from attnprof.cli.users_code import ExitedError, their_own
from attnprof.core.errors import AttnprofError
from attnprof.reports.view import View


def run(
    context: typer.Context,
    target_text: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="file.py:callable or package.module:callable. Called without arguments, it returns a module, "
            "(module, args) or (module, args, kwargs). Or a file of a model: a torch.export program, TorchScript, "
            "weights with --model, a Hugging Face folder or config.json.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="SPEC",
            help="An argument of the model: 'x=float32[2,128,768]', 'input_ids=int64[2,128]<50257' (random below "
            "50257), 'mask=int64[2,128]=1' (all ones), 'n=3', 'flag=true'; by name, by position ('0=float32[8]') "
            "or in order ('float32[8]'). Repeatable.",
            show_default=False,
        ),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward pass too.")] = False,
    optimizer: options.Optimizer = None,
    loss: options.LossText = None,
    dtype: options.Dtype = None,
    autocast: options.Autocast = None,
    checkpoint: options.Checkpoint = False,
    freeze: options.Freeze = None,
    device: options.Device = None,
    peak: options.Peaks = None,
    bandwidth: options.Bandwidth = None,
    plot: options.Plot = None,
    html: options.Html = None,
    trace: options.Trace = None,
    trace_time: options.TraceTime = None,
    flame: options.Flame = None,
    weight: options.Weight = None,
    generate: options.Generate = None,
    time: options.Time = False,
    time_steps: options.TimeSteps = None,
    crosscheck: crosschecking.Crosscheck = None,
    fake: Annotated[
        bool, typer.Option("--fake", help="Build and run on fake tensors: no memory, no arithmetic, any size.")
    ] = False,
    training: Annotated[
        bool | None,
        typer.Option(
            "--train/--eval", help="Put the model in this mode. Default: as the target left it.", show_default=False
        ),
    ] = None,
    dims: saved.Dim = None,
    model: saved.ModelText = None,
    trust_pickle: saved.TrustPickle = False,
    task: saved.Task = None,
    batch: sized.Batch = None,
    seq: sized.Seq = None,
    real: saved.Real = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any op has no formula.")] = False,
    strict_prediction: options.StrictPrediction = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the weights and of the --input values.")] = 0,
    form: options.Form = None,
    output: options.Output = None,
    force: options.Force = False,
    by: options.By = "module",
    depth: options.Depth = None,
    sort: options.Sort = None,
    top: options.Top = None,
    phase: options.Phase = None,
    units: options.UnitsText = "decimal",
) -> None:
    """Count the FLOPs and bytes of one call of a model.

    Example: attnprof run model.py:build --input 'x=float32[8,3,224,224]' --backward --optimizer adamw
    """
    view = View.of(by=by, depth=depth, sort=sort, top=top, phase=phase, units=units)
    if not 0 <= seed < 2**63:
        raise AttnprofError(f"seed {seed} is not a number from 0 to 2**63 - 1.")
    tools = crosschecking.tools_of(crosscheck, view)
    shapes = sized.shapes(batch, seq)
    fake = saved.is_fake(target_text, fake, real)
    specs = [[input_specs.parse(text) for text in sized.inputs_at(inputs or [], shape)] for shape in shapes]
    for_one_run: dict[str, object] = {"--plot": plot, "--html": html, "--trace": trace, "--flame": flame}
    for_one_run |= {"--phase": phase, "--time": time or time_steps is not None, "--crosscheck": tools}
    for_one_run["--trace-time"] = trace_time
    for_one_run["--by"] = None if by == "module" else by
    if (file := weights.alone(target_text, model, trust_pickle=trust_pickle)) is not None:
        given = {"--input": inputs, "--backward": backward, "--optimizer": optimizer, "--device": device}
        weights.refuse({**given, "--generate": generate, "--batch": batch, "--seq": seq, "--output": output})
        weights.refuse({**for_one_run, "--dim": dims, "--task": task, "--real": real})
        weights.show(file, view.units, form, depth=depth, sort=sort, top=top)
        return
    devices = on_devices.devices(device, peak, bandwidth, sort=sort, by=by, plot_path=plot)
    if several := len(shapes) > 1:
        sweep.refuse({**for_one_run, "--depth": depth, "--sort": sort, "--top": top})
        swept = sweep.outputs_of(form, output or (), force)
    outputs = Outputs.of(
        view,
        form=None if several else form,
        save=[] if several else output or (),
        plot=plot,
        html=html,
        trace=trace,
        trace_time=trace_time,
        flame=flame,
        weight=weight,
        devices=devices,
        force=force,
    )
    context.with_resource(outputs.kept_clean())

    import torch

    from attnprof.capture import generation, layer_times, optimizers
    from attnprof.capture import loss as losses
    from attnprof.capture.plans import Plan

    plan = Plan(dtype=dtype, autocast=autocast, checkpoint=checkpoint, freeze=freeze or ())
    stepped = ""
    if optimizer is not None:
        optimizers.parse(optimizer)
        optimizer, stepped = fitting.as_stepped(optimizer, devices, fake)
    if generate is not None:
        generation.check(generate, backward or checkpoint or loss is not None or optimizer is not None)
        if training:
            raise AttnprofError("generation runs in evaluation mode: leave out --train.")
    steps = layer_times.check(time if time_steps is None else time_steps, fake=fake, generate=generate is not None)
    if trace_time == "measured" and not steps:
        raise AttnprofError("--trace-time measured needs the time of the layers: add --time.")
    torch.manual_seed(seed)
    at = sized.Targets(
        target_text,
        inputs or (),
        partial(
            saved.of,
            target_text,
            dims=dims or [],
            model=model,
            trust_pickle=trust_pickle,
            task=task,
            fake=fake,
            real=real,
            seed=seed,
            generate=generate is not None,
        ),
    )
    loss_function = None
    if loss is not None:
        with their_own(f"importing {loss}"):
            loss_function = target.find_loss(loss)
        losses.check(loss_function)
    requests = [
        Request(
            target_text,
            at(shape),
            given_inputs,
            seed,
            fake,
            training,
            backward,
            loss_function,
            optimizer,
            plan,
            generate,
            steps or False,
        )
        for shape, given_inputs in zip(shapes, specs, strict=True)
    ]
    if several:
        swept.run(target_text, dict(zip(shapes, requests, strict=True)), devices, view.units, strict, strict_prediction)
        return
    request = requests[0]
    made = request.build()

    counting = api.profile(made.model, recount_every=1)
    try:
        with their_own("the model"):
            request.drive(counting, made)
    except (typer.Exit, KeyboardInterrupt, ExitedError) as error:
        ended = "was interrupted" if isinstance(error, KeyboardInterrupt) else "raised"
        show_partial(counting, devices, outputs, fake=fake, ended=ended)
        raise
    report = counting.report()
    report.devices = devices
    with crosschecking.crosschecked(report, tools, request, made):
        show(report, outputs)
    if not outputs.is_data:
        fitting.show(chain([stepped] if stepped else [], fitting.verdicts(report, devices, view, request, made)))
    if strict:
        report.require_priced()
    if strict_prediction:
        report.theory.require_exact()
