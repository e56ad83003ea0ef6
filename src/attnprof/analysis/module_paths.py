"""The way from the model down to each module, as names for nested slices and stacks."""

from __future__ import annotations

from attnprof.core.trace import OPTIMIZER, OUTSIDE, ModuleRecord, Trace


def chains(trace: Trace) -> list[tuple[int, ...]]:
    """Of every module, by its index: the modules around it, from the outermost to itself.

    What no module ran and the optimizer are in no module. Sorted, chains are the tree depth first.
    """
    found: list[tuple[int, ...]] = []
    for index, record in enumerate(trace.modules):
        alone = record.parent is None or index in (OUTSIDE, OPTIMIZER)
        found.append((index,) if alone else (*found[record.parent or 0], index))
    return found


def labels(trace: Trace) -> list[str]:
    """A short name for every module, by its index: ``attn`` for ``h.0.attn``, but ``h.0`` for ``h.0``.

    A number alone says nothing, so it comes with the name before it, or with the class of the model.
    """
    model = trace.modules[0].class_name or "(model)"
    return [_label(record, model) for record in trace.modules]


def _label(record: ModuleRecord, model: str) -> str:
    if not record.fqn:
        return model
    parts = record.fqn.split(".")
    first = next((i for i in reversed(range(len(parts))) if not parts[i].isdecimal()), None)
    return ".".join([model, *parts] if first is None else parts[first:])
