"""How the counts of any module grow with its sizes: :func:`scaling` recovers the exact formula from runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attnprof.api.counted_points import Build, CountedPoints
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import one_of
from attnprof.recovery.domain import Domain, domain
from attnprof.recovery.outcome import Outcome, Point, Sizes
from attnprof.recovery.recover import Recovery
from attnprof.recovery.scaling import OF_NO_PHASE, PHASES, QUANTITIES, Phase, Quantity, Scaling

__all__ = ["Scaling", "scaling"]


def scaling(
    build: Build | str,
    sizes: Mapping[str, Iterable[int]],
    *,
    of: Quantity = "matmul",
    phase: Phase = "forward",
    modules: bool = True,
    fixed: Mapping[str, Any] | None = None,
    told: Callable[[Sizes, int], None] | None = None,
) -> Scaling:
    """Recover the exact formula of what a module costs, as a function of its sizes, from runs at chosen sizes.

    ``build`` is called with a size of each symbol and with ``fixed``, by name, and returns a module, (module, args)
    or (module, args, kwargs); or it is a name of the zoo, with ``build`` and ``inputs`` of :mod:`attnprof.zoo`.
    ``sizes`` says what varies: of a ``range`` any size is counted that helps, of a list only those in it.

    ``of``: ``flops``, ``matmul``, ``vector`` (FLOPs), ``bytes`` (traffic), ``saved`` (kept for the backward), ``peak``
    (most bytes live at once). ``phase``: ``forward``, ``backward``, ``recompute`` or ``all``, which runs a backward too.
    ``modules`` asks for a formula of each module besides. ``told`` is called before each run with its sizes and how many
    runs there were.

    Raises :class:`AttnprofError` for a symbol ``build`` does not take, for one size alone, and for sizes at which the
    model fails, with its error.
    """
    one_of(QUANTITIES, of=of)
    one_of(PHASES, phase=phase)
    domains = {name: domain(name, given) for name, given in sizes.items()}
    if not domains:
        raise AttnprofError('scaling() needs something that varies, as in {"T": [128, 256, 512]}.')
    fixed = dict(fixed or {})
    name = build if isinstance(build, str) else getattr(build, "__name__", type(build).__name__)
    made = _of_zoo(build) if isinstance(build, str) else build
    _check(made, name, domains, fixed)

    engines: dict[tuple[bool, bool], CountedPoints] = {}
    recoveries: dict[tuple[bool, bool], Recovery] = {}

    def again(of: Quantity, phase: Phase) -> Scaling:
        one_of(QUANTITIES, of=of)
        one_of(PHASES, phase=phase)
        if of in OF_NO_PHASE:
            phase = "all"
        kind = (of == "peak" or (phase != "forward" and of != "saved"), of in OF_NO_PHASE)
        if kind not in engines:
            engines[kind] = CountedPoints(made, fixed, *kind, told=told or (lambda sizes, runs: None))
            recoveries[kind] = Recovery(engines[kind], list(domains.values()))
        points, recovery = engines[kind], recoveries[kind]
        whole = recovery.outcome((of, phase, ""))
        parts: dict[str, Outcome] = {}
        if modules:
            paths = [p for q, f, p in next(iter(points.known.values())) if (q, f) == (of, phase) and p]
            parts = {path: recovery.outcome((of, phase, path)) for path in paths}
        table = tuple(Point(dict(at), counts[of, phase, ""]) for at, counts in points.known.items())
        return Scaling(domains, fixed, of, phase, whole, parts, table, points.runs, (), name, again)

    return again(of, phase)


def _of_zoo(name: str) -> Build:
    from attnprof import zoo

    entry = zoo.find(name)

    def build(**symbols: Any) -> Any:
        own = {s: v for s, v in symbols.items() if s in entry.symbols or (entry.passes_on and s not in entry.shape)}
        return zoo.build(name, **own), zoo.inputs(name, **symbols)

    return build


def _check(build: Build, name: str, domains: Mapping[str, Domain], fixed: Mapping[str, Any]) -> None:
    """Raise unless ``build`` takes what it will be given, and needs nothing else."""
    both = domains.keys() & fixed.keys()
    if both:
        raise AttnprofError(f"{min(both)} is fixed and varies: give it once.")
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for given in (*domains, *fixed):
            if given not in takes:
                known = f"it takes {', '.join(takes)}" if takes else "it takes no arguments"
                raise AttnprofError(f"{name} takes no argument {given!r}; {known}.{closest(given, takes)}")
    needed = [p.name for p in parameters if p.default is p.empty and p.name in takes]
    missing = [p for p in needed if p not in domains and p not in fixed]
    if missing:
        raise AttnprofError(f"{name} needs {', '.join(missing)}: vary it, or fix it.")
