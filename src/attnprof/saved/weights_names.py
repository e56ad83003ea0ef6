"""Names of weights in a file beside those of a model: what wrappers add, what is tied, what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.stored import StoredWeights

if TYPE_CHECKING:
    from torch import nn

#: What DistributedDataParallel and torch.compile put before the names of a model.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")
_SHOWN = 3


@dataclass(frozen=True)
class Names:
    """Name in the file -> name in the model, and what a reader has to know of it."""

    renamed: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, stored: StoredWeights) -> Names:
        """Raises :class:`AttnprofError` where a name or a shape is not the model's."""
        own = model.state_dict(keep_vars=True)
        wanted = {name for name in own if not name.endswith("_extra_state")}
        held = [tensor.name for tensor in stored.tensors if not tensor.name.endswith("_extra_state")]
        renamed, note = _fitting(held, wanted)
        present = {id(own[name]) for name in renamed.values() if name in wanted}
        missing = sorted(name for name in wanted - set(renamed.values()) if id(own[name]) not in present)
        unexpected = [name for name, new in renamed.items() if new not in wanted]
        if missing or unexpected:
            raise AttnprofError(_mismatch(model, stored, missing, unexpected, wanted))
        shapes = {tensor.name: tensor.shape for tensor in stored.tensors}
        wrong = [
            f"{new} is {list(own[new].shape)} in the model and {list(shapes[name])} in the file"
            for name, new in renamed.items()
            if tuple(own[new].shape) != shapes[name]
        ]
        if wrong:
            more = f", and {len(wrong) - _SHOWN} more differ" if len(wrong) > _SHOWN else ""
            raise AttnprofError(
                f"{stored.where} does not fit {type(model).__name__}: {'; '.join(wrong[:_SHOWN])}{more}."
            )
        return cls(renamed, (note,) if note else ())


def _fitting(held: list[str], wanted: set[str]) -> tuple[dict[str, str], str]:
    """The renaming under which most names are the model's, the plainest of equals, and what it does."""
    best: tuple[int, dict[str, str], str] | None = None
    for renamed, note in _renamings(held, wanted):
        fit = len(wanted & set(renamed.values()))
        if best is None or fit > best[0]:
            best = fit, renamed, note
    assert best is not None  # the names as they are come first
    return best[1], best[2]


def _renamings(held: list[str], wanted: set[str]) -> Iterator[tuple[dict[str, str], str]]:
    yield {name: name for name in held}, ""
    bare = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in held}
    yield bare, "The names are without what DistributedDataParallel or torch.compile put before them."
    prefix = _common(list(bare.values()))
    if prefix:
        short = {name: new.removeprefix(prefix) for name, new in bare.items()}
        yield short, f'The names are without the "{prefix}" that all of them begin with.'
    for first in sorted({name.partition(".")[0] for name in wanted}):
        longer = {name: f"{first}.{new}" for name, new in bare.items()}
        yield longer, f'The weights are those of the model\'s "{first}".'


def _common(names: list[str]) -> str:
    """``model.`` where every name begins with it."""
    firsts = {name.partition(".")[0] for name in names}
    return f"{firsts.pop()}." if len(firsts) == 1 and all("." in name for name in names) else ""


def _mismatch(
    model: nn.Module, stored: StoredWeights, missing: list[str], unexpected: list[str], wanted: set[str]
) -> str:
    parts = []
    if missing:
        parts.append(f"it has no {_some(missing)}")
    if unexpected:
        hint = closest(unexpected[0], wanted, 1) if not missing else ""
        parts.append(f"the model has no {_some(unexpected)}{hint.rstrip('?') + '?' if hint else ''}")
    end = "" if parts[-1].endswith("?") else "."
    return f"{stored.where} does not fit {type(model).__name__}: {', and '.join(parts)}{end}"


def _some(names: list[str]) -> str:
    more = f" (nor {len(names) - _SHOWN:,} more)" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
