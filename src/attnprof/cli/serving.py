"""The parts of ``attnprof predict`` that need a model's config or a device, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import one_of
from attnprof.core.units import Units

#: The formulas whose traffic is held against a device.
TRAFFIC = ("flash-io", "attention-io", "flash")
Shown = TypeVar("Shown", bound=Callable[..., str])
_SYMBOLS = ("T", "dh", "B", "H", "M")


def serve(
    name: str | None,
    config: Path,
    phase: str | None,
    batch: str | None,
    kv: int | None,
    prompt: int | None,
    devices: Sequence[DeviceSpec],
    dtype: str | None,
    form: str | None,
    units: Units,
) -> str:
    """What serving the model of a config costs."""
    from attnprof.api.serving import serving
    from attnprof.reports.predicted_serving import FORMATS

    show = _form(FORMATS, form)
    if phase is None:
        raise AttnprofError("--config needs a phase: --phase prefill or --phase decode.")
    one_of(("prefill", "decode"), **{"--phase": phase})
    if kv is None and (phase == "decode" or prompt is None):
        raise AttnprofError(f"a {phase} step depends on how many tokens are in the cache: --kv 4096.")
    if phase == "decode" and prompt is not None:
        raise AttnprofError("a decode step has one new token: --prompt is for --phase prefill.")
    served = serving(
        config,
        phase=phase,
        batch=_numbers("--batch", "1" if batch is None else batch),
        kv=kv,
        prompt=prompt,
        dtype=dtype,
        device=devices,
        model_type=name,
    )
    return show(served, units)


def refuse_models(name: str) -> None:
    """Raise for a model's type where a mechanism was asked for: no formula has its sizes."""
    from attnprof.analysis.decoder_families import FAMILIES

    if name in FAMILIES:
        raise AttnprofError(f"{name} is a model: say its sizes by --config config.json, and --phase prefill or decode.")


def traffic(
    symbols: Mapping[str, Any], devices: Sequence[DeviceSpec], dtype: str | None, form: str | None, units: Units
) -> str:
    """What attention moves on devices, tile by tile and with its scores written out."""
    from attnprof.api.serving import attention_io
    from attnprof.reports.attention_io import FORMATS

    show = _form(FORMATS, form)
    for symbol in symbols:
        if symbol not in _SYMBOLS:
            known = ", ".join(_SYMBOLS)
            raise AttnprofError(
                f"traffic on a device has no symbol {symbol!r}; it has {known}.{closest(symbol, _SYMBOLS)}"
            )
    for symbol in ("T", "dh"):
        if symbols.get(symbol, True) is True:
            raise AttnprofError(
                f"traffic on a device depends on {symbol}: --{symbol} {128 if symbol == 'dh' else 8192}."
            )
    others = {symbol: value for symbol, value in symbols.items() if symbol != "T"}
    lengths = _numbers("--T", str(symbols["T"]))
    found = [
        attention_io(T=length, device=spec, dtype=dtype or "bfloat16", **others)
        for spec in devices
        for length in lengths
    ]
    return show(found, units)


def _form(known: Mapping[str, Shown], form: str | None) -> Shown:
    """What makes a text of it."""
    one_of(known, **{"--format": form or "table"})
    return known[form or "table"]


def _numbers(option: str, text: str) -> list[int]:
    """``1,8,64``."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if any(number < 1 for number in found):
        raise AttnprofError(f"{option} is whole numbers above zero with commas between, such as 1,8,64, not {text!r}.")
    return found
