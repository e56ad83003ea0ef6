"""``attnprof run weights.safetensors``: what a file of weights holds, where no model is named that they go into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnprof.cli.saved import is_file
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units


def alone(text: str, model: str | None, *, trust_pickle: bool) -> Path | None:
    """The file that TARGET names, if it holds weights and there is no ``--model``; None for anything else.

    Raises :class:`AttnprofError` for a model that was pickled whole, and for what cannot be read.
    """
    if model is not None or trust_pickle or not is_file(text):
        return None
    from attnprof.saved.kinds import Kind, kind_of

    path = Path(text)
    kind = kind_of(path)
    if not kind.is_weights:
        return None
    if kind in (Kind.TORCH_SAVE, Kind.TORCH_SAVE_LEGACY):
        from attnprof.saved import pickles

        pickles.whole_model(path, trust_pickle=False)  # raises for one
    return path


def refuse(given: Mapping[str, object]) -> None:
    """Raise for the first option that asks for what only a run has."""
    for option, value in given.items():
        if value is not None and value is not False and value != [] and value != ():
            raise AttnprofError(f"{option} needs a run, and weights alone have none: name the model with --model.")


def show(path: Path, units: Units, form: str | None, *, depth: int | None, sort: str | None, top: int | None) -> None:
    """Print what the file holds."""
    from attnprof.reports import stored_weights
    from attnprof.saved import weights

    stored_weights.check(sort, top, depth)
    found = stored_weights.check_form(form or "table")
    print(stored_weights.show(weights.read(path), units, found, depth=depth, sort=sort, top=top), end="")
