"""Mechanisms of the zoo beside one another: :func:`compare`, and the forms that people read a study in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attnprof.analysis.study import Study as _Study
from attnprof.api.report import Devices, specs
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import positive
from attnprof.core.units import Units

#: What the length of a sequence is called: its own, that of a decoding step's cache, both.
_LENGTHS = ("T", "S", "N")


class Study(_Study):
    """Several mechanisms at several lengths. ``print(study)`` shows the table.

    ``units`` of the forms below are words as on the command line: ``"exact"``, ``"binary"``, ``"macs"``.
    """

    def to_table(self, *, units: str = "decimal", width: int | None = None) -> str:
        """A block for each quantity, lengths across, in at most ``width`` columns (default: the terminal's)."""
        from attnprof.reports.study import to_text

        return to_text(self, Units.parse(units), width)

    def to_markdown(self, *, units: str = "decimal") -> str:
        """A Markdown table for each quantity."""
        from attnprof.reports.study import to_markdown

        return to_markdown(self, Units.parse(units))

    def to_latex(self, *, units: str = "decimal") -> str:
        """One ``tabular`` with rules of the package booktabs."""
        from attnprof.reports.study import to_latex

        return to_latex(self, Units.parse(units))

    def to_csv(self) -> str:
        """One line for each mechanism and length; plain integers."""
        from attnprof.reports.study import to_csv

        return to_csv(self)

    def to_json(self) -> str:
        """Everything as JSON; plain integers."""
        from attnprof.reports.study import to_json

        return to_json(self)

    def __str__(self) -> str:
        return self.to_table()


def compare(
    names: Iterable[str],
    lengths: Mapping[str, Iterable[int]],
    *,
    backward: bool = False,
    dtype: str | None = None,
    device: Devices = None,
    **symbols: Any,
) -> Study:
    """Count mechanisms of the zoo at every length: ``compare(["mha", "gqa"], {"T": [128, 256]}, d=768, H=12)``.

    ``names`` are names of the zoo, each with symbols of its own if you like (``"performer:r=64"``); the others are
    held against the first. ``lengths`` has one symbol: ``"T"``, the length of the sequence, or that of a decoding
    step's cache. ``symbols`` are for every mechanism that has them; d is 768, H is 12 and B is 1 unless given. With
    ``device`` there is the attainable time, too. Long sequences cost nothing: tensors are fake where a mechanism needs
    no values.

    Raises :class:`AttnprofError` for a name, symbol, size, dtype or device that does not exist or does not fit.
    """
    from attnprof.api.competitors import parse_names
    from attnprof.api.measuring import measured

    if isinstance(names, str):
        raise AttnprofError(f"compare() takes a list of names, as [{names!r}], not {names!r}.")
    names = list(names) if isinstance(names, Iterable) else [names]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise AttnprofError(f'compare() takes a list of names, as ["mha", "gqa"], and {wrong[0]!r} is no name.')
    if not names:
        raise AttnprofError("compare() needs a mechanism to compare: names is empty.")
    sizes = {"d": 768, "H": 12, "B": 1, **{s: v for s, v in symbols.items() if s in ("d", "H", "B")}}
    positive(**sizes)
    for_all = {s: v for s, v in symbols.items() if s not in sizes}
    settings = {name: str(value) for name, value in {**sizes, **for_all}.items()}
    return measured(
        parse_names(names, sizes, for_all),
        _lengths(lengths),
        settings,
        batch=sizes["B"],
        backward=backward,
        dtype=dtype,
        devices=specs(device),
    )


def _lengths(given: Mapping[str, Iterable[int]]) -> list[int]:
    """The lengths, each once, in order."""
    from attnprof.api.measuring import LONGEST

    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in _LENGTHS:
        raise AttnprofError(f'compare() varies the length, as in {{"T": [128, 256, 512]}}, not {given!r}.')
    ((symbol, values),) = given.items()
    found = [values] if isinstance(values, int) else list(values)
    if not found:
        raise AttnprofError(f"compare() needs a length: {symbol} has none.")
    for length in found:
        positive(**{symbol: length})
        if length > LONGEST:
            raise AttnprofError(f"{symbol} can be at most {LONGEST}, not {length}.")
    return sorted(set(found))
