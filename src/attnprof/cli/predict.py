"""``attnprof predict``: what theory says a mechanism costs, in symbols and in numbers, without torch."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprof.cli import on_devices, options, serving
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import one_of
from attnprof.core.units import Units

if TYPE_CHECKING:
    from attnprof.analytic.prediction import Prediction
    from attnprof.analytic.registry import Formula

_NARROWEST = 40
_FLAG = "true"
_WORDS = {"true": True, "false": False, "none": None}


def predict(
    asked: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [--SYMBOL VALUE]...",
            help="A mechanism, and values for its symbols: gqa --B 1 --T 4096 --d 4096 --H 32 --Hkv 8. "
            "Without values: the formulas. Without a name: the list. --e is the bytes per element, 4 unless given. "
            "With --config: a model_type, or nothing.",
            show_default=False,
        ),
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Backward, recomputation and what is saved for them, too.")
    ] = False,
    frozen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WEIGHT", help="A weight without gradient, such as q_proj; repeatable.", show_default=False
        ),
    ] = None,
    input_grad: Annotated[
        bool, typer.Option("--input-grad/--no-input-grad", help="Whether the inputs need a gradient.")
    ] = True,
    states: Annotated[
        str | None,
        typer.Option(
            metavar="uniform|amp", help="Parameters, gradients and Adam's state in bytes.", show_default=False
        ),
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX (needs amsmath).")] = False,
    units: options.UnitsText = "decimal",
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A decoder-only language model's config.json as Hugging Face has it: what serving it costs.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(metavar="prefill|decode", help="With --config: which kind of step.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="With --config: how many sequences; 1 unless given.")
    ] = None,
    kv: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --config: tokens of each sequence in its cache after the step, new ones included.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --config: new tokens of a prefill; all of --kv unless given.", show_default=False
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --config, or for flash-io: what a device makes of it, or several: 'a100-80gb-sxm,h100-sxm' "
            "(`attnprof devices` lists them).",
            show_default=False,
        ),
    ] = None,
    peak: options.Peaks = None,
    bandwidth: options.Bandwidth = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="bf16|fp16|fp32|fp8|...",
            help="With --config or --device: of weights, cache and arithmetic. Default: the config's, or bf16.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|markdown|csv|json", help="With --config or --device.", show_default=False
        ),
    ] = None,
) -> None:
    """Say what theory says a mechanism costs: named terms, totals and growth; or what serving a model does.

    Needs no torch.

    Example: attnprof predict gqa --B 1 --T 4096 --d 4096 --H 32 --Hkv 8

    Example: attnprof predict --config config.json --phase decode --batch 1,8,64 --kv 4096 --device h100-sxm

    Example: attnprof predict flash-io --T 8192 --dh 64 --device a100-sxm-80gb,h100-sxm
    """
    shown = Units.parse(units)
    name, symbols = _parsed(asked or [], config is None)
    of_serving = {"--phase": phase, "--batch": batch, "--kv": kv, "--prompt": prompt}
    of_devices = {"--device": device, "--peak": peak, "--bandwidth": bandwidth, "--dtype": dtype, "--format": form}
    of_theory = {"--backward": backward, "--frozen": frozen, "--states": states, "--latex": latex}
    of_theory["--no-input-grad"] = not input_grad
    if config is not None:
        _refuse(of_theory, "is for a mechanism, not for a model's --config")
        if symbols:
            raise AttnprofError(f"--config says all sizes: leave out --{next(iter(symbols))}.")
        specs = on_devices.devices(device, peak, bandwidth)
        print(serving.serve(name, config, phase, batch, kv, prompt, specs, dtype, form, shown), end="")
        return
    _refuse(of_serving, "goes with --config: which model is to be served?")
    if device and name in serving.TRAFFIC:
        _refuse(of_theory, "does not go with --device")
        specs = on_devices.devices(device, peak, bandwidth)
        print(serving.traffic(symbols, specs, dtype, form, shown), end="")
        return
    _refuse({"--device": device}, "is for a model's --config, or for flash-io")
    _refuse(of_devices, "goes with --config, or with flash-io and --device")

    from attnprof import analytic

    width = max(_NARROWEST, shutil.get_terminal_size((120, 24)).columns)
    if name is None:
        print(_list([analytic.find(known) for known in analytic.names()], width))
        return
    serving.refuse_models(name)
    for symbol, value in symbols.items():
        if value is True and symbol in (*analytic.find(name).sizes, *analytic.find(name).optional, "e"):
            raise AttnprofError(f"{symbol} has no value: --{symbol} 128.")
    if states is not None:
        one_of(analytic.PRECISIONS, **{"--states": states})
    found = analytic.predict(name, frozen=frozen or (), input_grad=input_grad, **symbols)
    part = _part(found, backward or bool(frozen) or not input_grad)
    if states is not None:
        part = part + analytic.adam_states(found, states)
    print(part.latex() if latex else "\n".join((part.text(width=width, units=shown), *_missing(found, name, width))))


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise for the first option that was given."""
    for option, value in options.items():
        if value is not None and value is not False and value != []:
            raise AttnprofError(f"{option} {why}{'' if why.endswith('?') else '.'}")


def _parsed(tokens: list[str], needs_name: bool = True) -> tuple[str | None, dict[str, Any]]:
    """The name, and the values of ``--symbol value``, ``--symbol=value`` and ``--flag``."""
    name: str | None = None
    symbols: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("-"):
            if name is not None:
                raise AttnprofError(f"one mechanism at a time: {name!r}, and not {token!r} as well.")
            name = token
            continue
        symbol, equals, value = token.lstrip("-").partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else _FLAG
        if symbol in symbols:
            raise AttnprofError(f"--{symbol} is given twice.")
        if symbol in ("name", "frozen", "input_grad"):
            raise AttnprofError(f"there is no symbol {symbol!r}.")
        symbols[symbol] = _value(value)
    if symbols and name is None and needs_name:
        raise AttnprofError(f"--{next(iter(symbols))} of what? `attnprof predict` lists the mechanisms.")
    return name, symbols


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)  # refused as no whole number, as itself
    except ValueError:
        return text


def _part(prediction: Prediction, backward: bool) -> Prediction:
    """The forward, without what there is only because of a backward; or everything."""
    from dataclasses import replace

    terms = prediction.terms
    if not backward:
        terms = tuple(t for t in terms if t.phase == "forward" and t.quantity != "saved_bytes")
    trained = prediction.total("trainable_parameters") == prediction.total("parameters")
    if trained:  # says nothing more
        terms = tuple(t for t in terms if t.quantity != "trainable_parameters")
    return replace(prediction, terms=terms)


def _missing(prediction: Prediction, name: str, width: int) -> list[str]:
    """What else it can be asked with, when not every symbol has a value."""
    from attnprof import analytic

    symbols = {s.name for t in prediction.terms for s in t.expression.free_symbols}
    if symbols <= prediction.values.keys():
        return []
    entry = analytic.find(name)
    parts = [f"symbols: {', '.join(entry.sizes)}"]
    if entry.optional:
        parts.append(f"with a usual value: {', '.join(entry.optional)}")
    if entry.options:
        parts.append(f"options: {', '.join(f'{option}={value}' for option, value in entry.options.items())}")
    return ["", *textwrap.wrap("; ".join(parts), width)]


def _list(entries: list[Formula], width: int) -> str:
    longest = max(len(entry.name) for entry in entries)
    lines = []
    for entry in entries:
        start = f"{entry.name:<{longest}}  "
        lines += textwrap.wrap(
            entry.summary, width, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
        )
    return "\n".join(
        [*lines, "", *textwrap.wrap("`attnprof predict NAME` shows one; --help how to give values.", width)]
    )
