"""What a claim says of a model: its symbols found among the arguments of ``build``, and the verdict in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from sympy import Add, Expr, Rational, expand

from attnprof.analysis.scaling import Responsible, own_parts, responsible
from attnprof.analytic.symbols import symbol
from attnprof.analytic.text import plain
from attnprof.claims.grammar import Claim, assumption, parse
from attnprof.claims.verdict import Example, Verdict, example, judge, share_of
from attnprof.core.errors import AttnprofError
from attnprof.recovery.outcome import Formula
from attnprof.recovery.scaling import Scaling

Sizes = Mapping[str, int]

#: Names that papers use for one size: length, width, heads, batch, layers.
_SAME = (
    ("T", "N", "n", "s", "S", "t", "seq", "seq_len", "length"),
    ("d", "D", "d_model", "dim", "width"),
    ("H", "h", "heads", "n_heads", "num_heads"),
    ("B", "b", "batch", "batch_size"),
)


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict. ``modules`` have the missing terms; ``renamed`` are names that it has for sizes."""

    claim: Claim
    verdict: Verdict
    modules: tuple[Responsible, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The claim in the notation of formulas: ``O(N·d²)``."""
        inner = plain(self.claim.expression)
        return inner if self.claim.bound == "=" else f"{self.claim.bound}({inner})"

    @property
    def missing(self) -> str:
        """The terms that are missing; empty where none is."""
        return "" if self.verdict.missing == 0 else plain(self.verdict.missing)

    @property
    def surplus(self) -> str:
        """The terms that are too much; empty where none is."""
        return "" if self.verdict.surplus == 0 else plain(self.verdict.surplus)


def read(text: str, names: Collection[str]) -> Claim:
    """The claim that a text makes of a model with sizes of these names, papers' other names of them included.

    Raises :class:`AttnprofError` for what does not parse, and for a name that is none of a size.
    """
    own = {name: symbol(name) for name in names}
    return parse(text, own, {other: symbol(name) for other, name in _others(names).items()})


def read_assumption(text: str, names: Collection[str]) -> tuple[Expr, Expr]:
    """``H<=d`` as the two expressions, with names as :func:`read` has them."""
    own = {name: symbol(name) for name in names}
    return assumption(text, own, {other: symbol(name) for other, name in _others(names).items()})


def names_in(*expressions: Expr) -> set[str]:
    """The sizes that expressions are about."""
    return {s.name for expression in expressions for s in expression.free_symbols}


def hold(scaling: Scaling, claim: Claim, assumed: Iterable[tuple[Expr, Expr]] = (), at: Sizes | None = None) -> Judged:
    """Hold a claim against what was recovered; ``at`` are the sizes that show it, the largest unless given.

    Raises :class:`AttnprofError` where nothing was recovered, or the claim is about a size that did not vary.
    """
    if not isinstance(scaling.outcome, Formula):
        raise AttnprofError(f"'{claim.text}' cannot be judged: {scaling.outcome.reason}")
    assumed = tuple(assumed)
    for name in sorted(names_in(claim.expression, *(e for pair in assumed for e in pair)) - set(scaling.symbols)):
        raise AttnprofError(f"'{claim.text}' is about {name}, which did not vary: vary it too.")
    largest = {name: domain.last for name, domain in scaling.domains.items()} | dict(at or {})
    smallest = {name: domain.first for name, domain in scaling.domains.items()} | dict(at or {})
    points: list[tuple[Sizes, int]] = [(point.sizes, point.count) for point in scaling.points]
    corners = [largest] if claim.bound == "=" else [smallest, largest]
    for corner in corners:
        try:
            points.append((corner, scaling.evaluate(**corner)))
        except AttnprofError:
            continue  # between the pieces, or no whole number: these sizes cannot be
    shown = points if claim.bound == "=" else points[-len(corners) :]
    verdict = judge(claim, scaling.expression, shown or points, assumed)
    if verdict.rates:
        examples = tuple(_along(scaling, claim, verdict.rates, largest)) or verdict.examples
        last = examples[-1].sizes, examples[-1].measured
        verdict = replace(verdict, examples=examples, share=share_of(verdict.missing, last))
    modules: tuple[Responsible, ...] = ()
    missing = verdict.missing if claim.bound != "=" else _unknown(verdict.missing, claim)
    if missing != 0 and verdict.times is None and scaling.modules:
        sizes = verdict.examples[-1].sizes
        modules = responsible(own_parts(scaling, sizes), missing, sizes)
    used = names_in(claim.expression)
    renamed = tuple((o, n) for o, n in _others(scaling.symbols).items() if n in used and _is_word(o, claim.text))
    return Judged(claim, verdict, modules, renamed)


def _along(scaling: Scaling, claim: Claim, rates: Mapping[str, Fraction], largest: Sizes) -> Iterator[Example]:
    """The smallest and the largest sizes on the way on which a bound fails: what does not grow there stays as it is."""
    smallest = {name: scaling.domains[name].first if rates.get(name) else size for name, size in largest.items()}
    for sizes in (smallest, largest):
        try:
            yield example(claim, sizes, scaling.evaluate(**sizes))
        except AttnprofError:
            return  # these sizes cannot be


def _unknown(missing: Expr, claim: Claim) -> Expr:
    """The terms of which a claimed formula has none: whose they are is known, and not whose a coefficient is."""
    known = {term.as_coeff_Mul()[1] for term in Add.make_args(expand(claim.expression))}
    return Add(*(term for term in Add.make_args(missing) if term.as_coeff_Mul()[1] not in known))


def sentence(judged: Judged) -> str:
    """Why a claim is true or false, in one or two sentences."""
    verdict, claim = judged.verdict, judged.claim
    if verdict.holds:
        return _why_true(judged)
    if verdict.times is not None and claim.bound == "=":
        twice = (
            "it counts multiply-adds (MACs), each of which is 2 FLOPs" if verdict.times == 2 else "no term is missing"
        )
        return f"measured is {verdict.times} times as much at all sizes: {twice}."
    parts = []
    if verdict.powers is not None and verdict.rates is not None:
        parts.append(_growth(verdict))
    if verdict.missing != 0:
        several = "terms are" if verdict.missing.is_Add else "term is"
        parts.append(f"{'The' if parts else 'the'} missing {several} {plain(verdict.missing)}{_where(judged.modules)}.")
    if verdict.surplus != 0:
        much = "is not in what was measured" if verdict.missing == 0 else "is too much"
        parts.append(
            f"{plain(verdict.surplus)} {much}."
            if claim.bound == "="
            else f"{plain(verdict.surplus)} is more than that."
        )
    return " ".join(parts)


def _why_true(judged: Judged) -> str:
    if judged.claim.bound == "=":
        return "the same formula."
    given = " and ".join(f"{plain(small)} ≤ {plain(large)}" for small, large in judged.verdict.assumed)
    return f"{_KINDS[judged.claim.bound]}{', where ' if given else ''}{given}."


_KINDS = {
    "O": "a constant times that bounds it from above for all large sizes, however they grow beside each other",
    "Ω": "a constant times that bounds it from below for all large sizes, however they grow beside each other",
    "Θ": "it lies between two constants times that for all large sizes, however they grow beside each other",
}


def _growth(verdict: Verdict) -> str:
    """``grows as N², where N is claimed``: along the direction in which the bound fails."""
    assert verdict.powers is not None
    assert verdict.rates is not None
    growing = [name for name, rate in verdict.rates.items() if rate]
    measured, claimed = (_power(growing, power, verdict) for power in verdict.powers)
    beside = [name for name, rate in verdict.rates.items() if not rate]
    if measured == claimed:
        return "grows faster, by a logarithm." if verdict.missing != 0 else "grows slower, by a logarithm."
    stay = f" while {_listed(beside)} {'stays' if len(beside) == 1 else 'stay'}" if beside else ""
    return f"grows as {measured}{stay}, where the claim grows as {claimed}."


def _power(growing: list[str], power: Fraction, verdict: Verdict) -> str:
    """A power of what grows: of one symbol, or of x, that several symbols are powers of."""
    assert verdict.rates is not None
    if len(growing) == 1:
        rate = verdict.rates[growing[0]]
        return plain(symbol(growing[0]) ** _rational(power / rate)) if power else "a constant"
    rates = " and ".join(f"{name} = {plain(symbol('x') ** _rational(verdict.rates[name]))}" for name in growing)
    return f"{plain(symbol('x') ** _rational(power))} (with {rates})" if power else "a constant"


def _rational(value: Fraction) -> Expr:
    return Rational(value.numerator, value.denominator)


def _where(modules: tuple[Responsible, ...]) -> str:
    """`` (in h.*.attn)``: the modules that have it, three at most; nothing where it is the model's own ops alone."""
    named = [module.path or "the model's own ops" for module in modules]
    if not any(module.path for module in modules):
        return ""
    rest = len(named) - 3
    shown = named if rest <= 0 else [*named[:3], f"{rest} other{'' if rest == 1 else 's'}"]
    return f" (in {_listed(shown)})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _others(names: Collection[str]) -> dict[str, str]:
    """Other names of sizes: of those of which there is just one among what papers call the same."""
    found: dict[str, str] = {}
    for group in _SAME:
        own = [name for name in group if name in names]
        if len(own) == 1:
            found |= {other: own[0] for other in group if other not in names}
    return found


def _is_word(name: str, text: str) -> bool:
    """Whether a name stands in a text: of one letter also between others, as in ``sd²``."""
    bare = re.sub(r"log2|log₂|log|sqrt|ceiling|ceil|floor|min|max|ln|Theta|Omega", " ", text)
    alone = re.escape(name) if len(name) == 1 else rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_0-9])"
    return re.search(alone, bare) is not None
