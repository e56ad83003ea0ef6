"""How the counts of any module grow with its sizes: :func:`scaling` recovers the exact formula from runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnprof.api.counted_points import Build, CountedPoints, Key, paths
from attnprof.api.scaling_forms import Scaling
from attnprof.api.zoo_builds import of_zoo
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import one_of
from attnprof.recovery.domain import Domain, domain
from attnprof.recovery.maximum import maximum
from attnprof.recovery.outcome import Formula, Outcome, Point, Sizes
from attnprof.recovery.recover import Recovery
from attnprof.recovery.scaling import OF_NO_PHASE, PHASES, QUANTITIES, Phase, Quantity

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
    (most bytes live at once). ``phase``: ``forward``, ``backward``, ``recompute`` or ``all``; all but the first run a
    backward. ``modules`` asks for a formula of each module besides. ``told`` is called before each run with its sizes
    and how many runs there were.

    Raises :class:`AttnprofError` for a symbol ``build`` does not take, for one size alone, and for sizes at which the
    model fails, with its error.
    """
    one_of(QUANTITIES, of=of)
    one_of(PHASES, phase=phase)
    if not isinstance(sizes, Mapping) or not sizes:
        raise AttnprofError(f'scaling() needs what varies, as in {{"T": [128, 256, 512]}}, not {sizes!r}.')
    model = _model(build, {name: domain(name, given) for name, given in sizes.items()}, dict(fixed or {}), told)
    return model.scaling(of, phase, modules)


@dataclass
class _Model:
    """A model at sizes: its counts, of which a formula of each quantity can be recovered."""

    name: str
    build: Build
    domains: Mapping[str, Domain]
    fixed: Mapping[str, Any]
    told: Callable[[Sizes, int], None]

    def __post_init__(self) -> None:
        self._kinds: dict[tuple[bool, bool], tuple[CountedPoints, Recovery]] = {}

    def scaling(self, of: Quantity, phase: Phase, modules: bool = True) -> Scaling:
        """One quantity in one phase."""
        one_of(QUANTITIES, of=of)
        one_of(PHASES, phase=phase)
        if of in OF_NO_PHASE:
            phase = "all"
        points, recovery = self._of_kind(of == "peak" or (phase != "forward" and of != "saved"), of in OF_NO_PHASE)
        whole = _outcome(points, recovery, (of, phase, ""))
        counts = [*recovery.space.counted.values()]
        found = (
            {path: _outcome(points, recovery, (of, phase, path)) for path in paths(counts, of, phase)}
            if modules
            else {}
        )
        made_from = recovery.made_from((of, phase, ""))
        table = [
            Point(sizes, counts[of, phase, ""], "fit" if sizes in made_from else "held out")
            for at, counts in points.known.items()
            for sizes in [dict(at)]
        ]
        return Scaling(
            self.domains,
            self.fixed,
            of,
            phase,
            whole,
            found,
            tuple(sorted(table, key=lambda point: [point.sizes[name] for name in self.domains])),
            sum(points.runs for points, _ in self._kinds.values()),
            tuple(self._notes(points, recovery)),
            self.name,
            lambda quantity, phase: self.scaling(quantity, phase, modules),
        )

    def _of_kind(self, backward: bool, memory: bool) -> tuple[CountedPoints, Recovery]:
        """The runs with a backward or without, and with memory or without; those with more serve for less."""
        for (has_backward, has_memory), found in self._kinds.items():
            if has_backward >= backward and has_memory >= memory:
                return found
        points = CountedPoints(self.build, self.fixed, backward, memory, self.told)
        found = self._kinds[backward, memory] = points, Recovery(points, list(self.domains.values()))
        return found

    def _notes(self, points: CountedPoints, recovery: Recovery) -> Iterator[str]:
        """What a reader must know of how it was counted."""
        if points.is_real:
            yield "Counted on real tensors: the model looks at values."
        if points.layers:
            yield (
                f"The {points.layers} layers are alike: runs of 3, 4 and 5 of them came to the counts of all at the "
                "first size, and stand for all at the others."
            )
        if points.unpriced:
            yield f"FLOPs and bytes leave out ops without a formula: {', '.join(sorted(points.unpriced))}."
        yield from recovery.limits()


def _outcome(points: CountedPoints, recovery: Recovery, key: Key) -> Outcome:
    """The formula, unless runs at the same sizes came to different counts."""
    if not recovery.space.anchors:
        recovery.space.find_anchor()
        recovery.checks.at_the_end = not points.is_real  # real tensors that are large in all sizes at once may not fit
    recovery.survey()
    if (spread := points.data_dependent(key)) is not None:
        return spread
    if key[0] == "peak":
        counted = [*recovery.space.counted.values()]
        places = [one for one in counted[0] if one[0] == "live" and all(one in counts for counts in counted)]
        largest = maximum(recovery, key, places)
        if isinstance(largest, Formula):
            return largest
    found = recovery.outcome(key)
    return points.data_dependent(key) or found


def _model(
    build: Build | str,
    domains: Mapping[str, Domain],
    fixed: Mapping[str, Any],
    told: Callable[[Sizes, int], None] | None,
) -> _Model:
    name = build if isinstance(build, str) else getattr(build, "__name__", type(build).__name__)
    both = domains.keys() & fixed.keys()
    if both:
        raise AttnprofError(f"{min(both)} is fixed and varies: give it once.")
    if isinstance(build, str):
        made = of_zoo(build, (*domains, *fixed))
    elif callable(build):
        made = build
        _check(made, name, (*domains, *fixed))
    else:
        raise AttnprofError(f"build is a {type(build).__name__}; it must be a callable, or a name of the zoo.")
    return _Model(name, made, domains, fixed, told or (lambda sizes, runs: None))


def _check(build: Build, name: str, given: Sequence[str]) -> None:
    """Raise unless ``build`` takes what it will be given, and needs nothing else."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [one for one in given if one not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        known = f"it takes {', '.join(takes)}" if takes else "it takes no arguments"
        raise AttnprofError(f"{name} takes no argument {unknown[0]!r}; {known}.{closest(unknown[0], takes)}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name in takes and p.name not in given]
    if missing:
        raise AttnprofError(f"{name} needs {', '.join(missing)}: vary it, or fix it.")
