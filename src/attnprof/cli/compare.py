"""``attnprof compare``: mechanisms of the zoo beside one another, at every length, measured."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from attnprof.api.competitors import DEFAULT, parse_names, symbols
from attnprof.api.report import specs
from attnprof.cli import options
from attnprof.cli.lengths import parse_lengths
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import one_of, positive
from attnprof.core.units import Units
from attnprof.reports.study import FORMATS


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Mechanisms of the zoo, each with symbols of its own if you like: 'performer:r=64'. The others are "
            "held against the first.",
            show_default=", ".join(DEFAULT),
        ),
    ] = None,
    seq: Annotated[
        str,
        typer.Option(
            metavar="N,N,...",
            help="Lengths of the sequence, or of a decoding step's cache: '128,256,512', or "
            "'128,256,...,8192' to go on like that.",
        ),
    ] = "128,256,...,8192",
    d_model: Annotated[int, typer.Option("--d-model", "-d", help="Width d.")] = 768,
    heads: Annotated[int, typer.Option("--heads", "-H", help="Heads H.")] = 12,
    batch: Annotated[int, typer.Option("--batch", "-B", help="Batch size B.")] = 1,
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            "--symbol", "-s", metavar="NAME=VALUE", help="For every mechanism that has it: w=256. Repeatable."
        ),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward pass too.")] = False,
    dtype: options.Dtype = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help="The least time on a device, too (`attnprof devices` lists them): 'a100-80gb-sxm', or a file of "
            "yours. Several with commas between.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help="How to show it; latex needs booktabs.")
    ] = "table",
    units: options.UnitsText = "decimal",
) -> None:
    """Compare mechanisms at every length: FLOPs, bytes, saved memory, parameters, and where they cross.

    Example: attnprof compare mha sdpa performer:r=266 window:w=256 --d-model 768 --heads 12 --backward
    """
    positive(**{"--d-model": d_model, "--heads": heads, "--batch": batch})
    one_of(FORMATS, **{"--format": form})
    shown_in = Units.parse(units)
    lengths = parse_lengths(seq)
    sizes = {"d": d_model, "H": heads, "B": batch}
    for_all = symbols("--symbol", symbol or [])
    for size, option in (("d", "--d-model"), ("H", "--heads"), ("B", "--batch")):
        if size in for_all:
            raise AttnprofError(f"--symbol {size}={for_all[size]}: say {option} {for_all[size]}.")
    devices = specs(device)
    competitors = parse_names(names or DEFAULT, sizes, for_all, where="--symbol")
    settings = {name: str(value) for name, value in {**sizes, **for_all}.items()}

    from tqdm import tqdm

    from attnprof.api.measuring import measured

    # Shown on a terminal only.
    with tqdm(total=len(competitors) * len(lengths), file=sys.stderr, disable=None, leave=False) as bar:

        def told(label: str, length: int) -> None:
            bar.set_description(f"{label} N={length}")
            if bar.n == bar.total:  # lengths between those asked for, to find where lines cross
                bar.total = None
            bar.update()

        study = measured(
            competitors,
            lengths,
            settings,
            batch=batch,
            backward=backward,
            dtype=dtype,
            devices=devices,
            told=told,
        )
    print(FORMATS[form](study, shown_in), end="")
