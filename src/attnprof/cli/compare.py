"""``attnprof compare``: mechanisms of the zoo beside one another, at every length, measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from attnprof import api
from attnprof.analysis.study import Measures, Study, crossings
from attnprof.cli import options
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import one_of, positive
from attnprof.core.units import Units
from attnprof.reports.study import FORMATS

_DEFAULT = ["mha", "mha-sdpa", "gqa", "linear", "performer", "local-window", "longformer", "orthogonal"]
#: Short names for what people look for most.
_ALIASES = {
    "sdpa": "mha-sdpa",
    "window": "local-window",
    "synthesizer": "synthesizer-random",
    "conv": "depthwise-conv",
    "rnn": "diagonal-rnn",
}


#: Longer sequences have tensors of more elements than a 64-bit number counts.
_LONGEST = 10**8


@dataclass(frozen=True)
class Competitor:
    """A mechanism with the symbols it is built from; ``label`` is what the user called it."""

    label: str
    name: str
    symbols: Mapping[str, Any]


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Mechanisms of the zoo, each with symbols of its own if you like: 'performer:r=64'. The others are "
            "held against the first.",
            show_default=", ".join(_DEFAULT),
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
    competitors = parse_names(names or _DEFAULT, sizes, for_all)
    settings = {name: str(value) for name, value in {**sizes, **for_all}.items()}
    study = measured(competitors, lengths, settings, batch, backward, dtype)
    print(FORMATS[form](study, shown_in), end="")


def parse_lengths(text: str) -> list[int]:
    """``128,256,...,1024`` as 128, 256, 512, 1024: by the ratio of the two before where that ends there, else by
    their difference.
    """
    found: list[int] = []
    words = [word.strip() for word in text.split(",")]
    for at, word in enumerate(words):
        if word in ("...", "…"):
            last = words[at + 1] if at + 1 < len(words) else ""
            if len(found) < 2 or not last.isdecimal():
                raise AttnprofError(f"--seq '{text}': '...' stands between two numbers and a last: 128,256,...,8192.")
            found += _between(found[-2], found[-1], int(last), text)
        elif not word.isdecimal() or int(word) < 1:
            raise AttnprofError(f"--seq '{text}': a length must be a whole number above zero, not {word!r}.")
        else:
            found.append(int(word))
    if max(found) > _LONGEST:
        raise AttnprofError(f"--seq '{text}': a length can be at most {_LONGEST}, not {max(found)}.")
    return sorted(set(found))


def _between(first: int, second: int, last: int, text: str) -> list[int]:
    """What comes after ``second`` and before ``last``."""
    if first < second < last:
        if second % first == 0:
            found, ratio = [second], second // first
            while found[-1] < last:
                found.append(found[-1] * ratio)
            if found[-1] == last:
                return found[1:-1]
        if (last - second) % (second - first) == 0:
            return list(range(2 * second - first, last, second - first))
    raise AttnprofError(f"--seq '{text}': {first},{second},... does not come to {last}, by ratio or by difference.")


def symbols(where: str, texts: list[str]) -> dict[str, Any]:
    """``["w=256", "causal=true"]`` as a dict."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise AttnprofError(f"{where} '{text}': write NAME=VALUE, as in w=256.")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """A whole number, another number, true, false, none or a word."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_names(texts: list[str], sizes: Mapping[str, int], for_all: Mapping[str, Any]) -> list[Competitor]:
    """The mechanisms named, with the symbols that each has."""
    from attnprof import zoo

    known = {*zoo.names(), *_ALIASES}
    found: list[Competitor] = []
    used: set[str] = set()
    for text in texts:
        word, colon, rest = text.partition(":")
        if word not in known:
            raise AttnprofError(f"no mechanism {word!r}.{closest(word, known)} There are {', '.join(zoo.names())}.")
        name = _ALIASES.get(word, word)
        own = symbols(text, rest.split(",")) if colon else {}
        takes = _takes(name, own)
        given = {s: v for s, v in {**sizes, **for_all}.items() if s in takes}
        used |= given.keys()
        _check_kinds(name, {**given, **own})
        label = f"{name}:{rest}" if colon else name
        if any(label == other.label for other in found):
            raise AttnprofError(f"{label} is named twice.")
        found.append(Competitor(label, name, {**given, **own}))
    for unused in for_all.keys() - used:
        raise AttnprofError(f"--symbol {unused}: none of {', '.join(c.name for c in found)} has a symbol {unused!r}.")
    return found


def _check_kinds(name: str, given: Mapping[str, Any]) -> None:
    """Switches are on or off and small constants are numbers; the modules check their sizes and words themselves."""
    from attnprof import zoo

    defaults = zoo.find(name).symbols
    for symbol, value in given.items():
        default = defaults.get(symbol)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise AttnprofError(f"{symbol} of {name} is true or false, not {value!r}.")
        if isinstance(default, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise AttnprofError(f"{symbol} of {name} is a number, not {value!r}.")


def _takes(name: str, own: Mapping[str, Any]) -> set[str]:
    """The symbols that a mechanism is built from, and those of its parts where it passes them on."""
    from attnprof import zoo

    entry = zoo.find(name)
    found = set(entry.symbols)
    if entry.passes_on:
        defaults = {**zoo.find("transformer").symbols, **entry.symbols}
        found |= defaults.keys()
        for part in ("mixer", "ffn"):
            found |= zoo.find(str(own.get(part, defaults[part]))).symbols.keys()
    return found


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
