"""``attnprof compare``: mechanisms of the zoo beside one another, at every length, measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from attnprof import api
from attnprof.analysis.study import Measures, Study, crossings
from attnprof.cli import options
from attnprof.cli.competitors import DEFAULT, Competitor, parse_lengths, parse_names, symbols
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
    competitors = parse_names(names or DEFAULT, sizes, for_all)
    settings = {name: str(value) for name, value in {**sizes, **for_all}.items()}
    study = measured(competitors, lengths, settings, batch, backward, dtype)
    print(FORMATS[form](study, shown_in), end="")


def measured(
    competitors: list[Competitor],
    lengths: list[int],
    settings: Mapping[str, str],
    batch: int,
    backward: bool,
    dtype: str | None,
) -> Study:
    """Every mechanism at every length, and where they cross."""
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    from attnprof.capture.plans import Plan

    plan = Plan(dtype=dtype)
    by_label = {c.label: c for c in competitors}
    known: dict[tuple[str, int], Measures] = {}
    real: set[str] = set()

    for competitor in competitors:  # first: what cannot be built is said before anything is counted
        with api.fake_tensors():
            _build(competitor, lengths[0], batch)
    # Shown on a terminal only.
    with tqdm(total=len(competitors) * len(lengths), file=sys.stderr, disable=None, leave=False) as bar:

        def measure(label: str, length: int) -> Measures:
            if (label, length) not in known:
                bar.set_description(f"{label} N={length}")
                known[label, length] = _measure(by_label[label], length, batch, backward, plan, real)
                bar.update()
            return known[label, length]

        for label in by_label:
            for length in lengths:
                measure(label, length)
        bar.total = None
        found = tuple(crossings(measure, list(by_label), lengths))
    phases = "forward + backward" if backward else "forward"
    settings = {**settings, "dtype": dtype or "fp32", "phases": phases, "torch": torch.__version__}
    notes = [f"{name} ran on real tensors: it has to look at values." for name in sorted(real)]
    return Study(settings, tuple(by_label), tuple(lengths), known, found, tuple(notes))


def _build(competitor: Competitor, length: int, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """The module and its arguments, which need a gradient where they can."""
    import torch

    from attnprof import zoo

    entry = zoo.find(competitor.name)
    given = dict(competitor.symbols)
    if "N" in entry.symbols:  # a longest length: as long as it has to be
        given.setdefault("N", length)
    module = zoo.build(competitor.name, **given)
    along = {"S": length} if entry.shape.get("T") == 1 else {s: length for s in ("T", "S") if s in entry.shape}
    args = zoo.inputs(competitor.name, **{**given, "B": batch, **along})
    with_gradient: Callable[[Any], Any] = torch.Tensor.requires_grad_
    return module, torch.utils._pytree.tree_map_only(_is_floating, with_gradient, args)


def _is_floating(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _measure(competitor: Competitor, length: int, batch: int, backward: bool, plan: Any, real: set[str]) -> Measures:
    """On fake tensors, or on real ones where the module looks at values; ``real`` notes which did."""
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    if competitor.label not in real:
        with api.fake_tensors():
            module, args = _build(competitor, length, batch)
        try:
            report = api.run(module, args, backward=backward, plan=plan, fake=True, strict=True)
        except (DataDependentOutputException, DynamicOutputShapeException):
            real.add(competitor.label)
    if competitor.label in real:
        torch.manual_seed(0)
        module, args = _build(competitor, length, batch)
        report = api.run(module, args, backward=backward, plan=plan, strict=True)
    assert report.memory is not None  # tracked unless asked not to
    return Measures(
        forward=report.phases["forward"].matmul_flops,
        backward=report.phases["backward"].matmul_flops,
        recompute=report.phases["recompute"].matmul_flops,
        vector=report.phases["forward"].vector_flops,
        bytes=report.total.bytes,
        saved=report.memory.saved_bytes,
        parameters=sum(p.numel() for p in module.parameters()),
    )
