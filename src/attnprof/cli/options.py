"""Options of the command line: those every command with a table shares, and those of how a run trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

By = Annotated[
    str,
    typer.Option(
        metavar="module|op|step|memory|time",
        help="Rows are modules, as a tree, ops, or steps; or show what the run held in memory, and where its peak is; "
        "or the measured time alone.",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(metavar="N", help="Levels of modules below the model. Default: as many as fit about one screen."),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Largest first by flops, matmul, vector, bytes, read, written, params, saved, calls, or time (on the "
        "first --device; --by time: as measured).",
    ),
]
Top = Annotated[
    int | None, typer.Option(metavar="N", help="Only the N largest of each level (or N ops), the rest as one line.")
]
Phase = Annotated[
    str | None, typer.Option(metavar="PHASE", help="Only forward, backward, recompute, optimizer or other.")
]
UnitsText = Annotated[
    str,
    typer.Option(
        "--units",
        metavar="WORDS",
        help="decimal (kB, MB), binary (KiB, MiB), exact (every digit), macs (multiply-adds); commas between.",
    ),
]
DeviceOfSaved = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="What the run takes at best on a device, what bounds each layer there, and whether it fits: 'h100-sxm', "
        "or a file of yours; `attnprof devices` lists them. Several are compared: 'a100-80gb-sxm,h100-sxm,mi300x'.",
        show_default=False,
    ),
]
Peaks = Annotated[
    list[str] | None,
    typer.Option(
        "--peak",
        metavar="DTYPE=RATE",
        help="A dense peak of the device in place of the listed one: 'bf16=800e12', 'vector:fp32=60TFLOP/s'. "
        "Repeatable.",
        show_default=False,
    ),
]
Bandwidth = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="A bandwidth of the device in place of the listed one: '4e12', '4TB/s'.",
        show_default=False,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the roofline of each --device with the layers below it, as .png, .svg or .pdf (needs matplotlib).",
        show_default=False,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the report as one .html page that opens in a browser, offline: layers, charts, rooflines, memory, "
        "theory (needs plotly and jinja2).",
        show_default=False,
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write a Chrome trace (.json or .json.gz) for ui.perfetto.dev: op calls and modules on a timeline, live "
        "memory and FLOP/s as counters.",
        show_default=False,
    ),
]
TraceTime = Annotated[
    str | None,
    typer.Option(
        "--trace-time",
        metavar="attainable|measured",
        help="The time of the --trace: the least of each op on the first --device, or as --time measured the layers. "
        "Default: measured where there is one, else attainable, without a --device order alone.",
        show_default=False,
    ),
]
Flame = Annotated[
    Path | None,
    typer.Option(
        "--flame",
        metavar="FILE",
        help="Write stacks of phase, modules and op for flame graphs: collapsed (.txt, .folded, .collapsed), or for "
        "speedscope (.json).",
        show_default=False,
    ),
]
Weight = Annotated[
    str | None,
    typer.Option(
        "--weight",
        metavar="flops|bytes|saved|time",
        help="What the --flame weighs: FLOPs (the default), traffic, memory saved for the backward, or the least time "
        "on the first --device.",
        show_default=False,
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="table|tree|markdown|latex|csv|json|run",
        help="What stdout shows: the table (the default), the modules as print(model) has them, with numbers, a table "
        "for a document (latex needs booktabs), every module as CSV, everything as JSON, or the run itself, as -o "
        "saves it.",
        show_default=False,
    ),
]
Output = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Save the run, for `attnprof report`, or what the suffix says: .md, .tex, .csv, .txt or .html. '-' is "
        "stdout, and nothing else goes there then. Repeatable.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files also where attnprof did not write them.")]
StrictPrediction = Annotated[
    bool,
    typer.Option("--strict-prediction", help="Fail when theory does not account for every contraction, exactly."),
]

Generate = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Generate N tokens after the prompt, greedily, without gradients and in evaluation mode: a prefill, then "
        "N - 1 decode steps of one token, each a row of its own.",
        show_default=False,
    ),
]

Time = Annotated[
    bool,
    typer.Option(
        "--time",
        help="Measure how long each layer takes: once it is counted, the step runs again, bare, and then under torch's "
        "profiler. With --device, the share of the roofline that each layer reaches.",
    ),
]
TimeSteps = Annotated[
    int | None,
    typer.Option(
        "--time-steps",
        metavar="N",
        help="Time N steps, bare and profiled (default 5; implies --time).",
        show_default=False,
    ),
]

# How a run trains

Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        help="Step an optimizer of torch.optim too (implies --backward): 'adamw', 'adamw:fused', 'adamw:foreach', "
        "'adamw:loop', 'sgd,momentum=0.9'. A steady step is counted: a whole step, which creates the optimizer's "
        "state, runs before it and is left out.",
        show_default=False,
    ),
]
LossText = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="SPEC",
        help="file.py:callable or package.module:callable. Called with the model's output, it returns the scalar "
        "tensor that the backward starts from (implies --backward). Default: the output's .loss, else the sum of "
        "its floating tensors that need a gradient.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="bf16|fp16|fp32|fp64", help="Convert the model and its floating inputs before.", show_default=False
    ),
]
Autocast = Annotated[
    str | None,
    typer.Option(metavar="bf16|fp16", help="Run forward and loss under autocast.", show_default=False),
]
Checkpoint = Annotated[
    bool,
    typer.Option(
        "--checkpoint",
        help="Activation checkpointing of the repeated layers: only their inputs are kept, and each layer runs again "
        "in the backward.",
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Freeze the parameters, or the modules, with such names: 'wte', 'h.*.attn.*'; '!PATTERN' takes some out "
        "again. Repeatable, in order.",
        show_default=False,
    ),
]
Device = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="What the run takes at best on a device, what bounds each layer there, and whether it fits: 'h100-sxm', "
        "or a file of yours; `attnprof devices` lists them. Several are compared: 'a100-80gb-sxm,h100-sxm,mi300x'. "
        "With --fake and --backward, also whether it would fit in bf16 and with --checkpoint.",
        show_default=False,
    ),
]
