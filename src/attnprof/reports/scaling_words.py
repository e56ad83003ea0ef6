"""The sentences about how a model grows, one of each kind: text, Markdown, pages and LaTeX's comments say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from attnprof.analysis.scaling import Found, Overtaking, Responsible
from attnprof.analysis.scaling_answer import Answer
from attnprof.analysis.scaling_claim import Judged, sentence
from attnprof.analysis.scaling_extrapolation import Extrapolation
from attnprof.analysis.scaling_theory import Theory
from attnprof.core.units import Kind, Units, duration, rounded, share

CONVENTIONS = "FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone · counted, not timed"
#: What kind of number a quantity is.
KINDS: Mapping[str, Kind] = {
    "flops": "flops",
    "matmul": "matmul",
    "vector": "flops",
    "bytes": "bytes",
    "saved": "bytes",
    "peak": "bytes",
}
#: The most modules that a sentence names.
_NAMED = 4
#: What ops outside of any module are called.
OWN = "the model's own ops"


def subject(answer: Answer) -> str:
    """What was counted, of what, at which sizes."""
    scaling = answer.growth.scaling
    sizes = ", ".join(map(str, scaling.domains.values()))
    fixed = ", ".join(f"{name}={value}" for name, value in scaling.fixed.items())
    return " · ".join(part for part in (scaling.name, answer.label, sizes, fixed) if part)


def exactness(answer: Answer) -> str:
    """How many sizes a formula was made from and checked on."""
    whole, scaling = answer.growth.whole, answer.growth.scaling
    if not whole.pieces:
        return f"{_counted(scaling.runs, 'run')} of the model"
    made, checked = _counted(whole.runs, "size"), f"checked on {whole.held_out} more, each equal"
    return f"exact: made from {made}, {checked}; {_counted(scaling.runs, 'run')} of the model"


def theory(found: Theory) -> str:
    """Whether the closed form of the mechanism is what was measured."""
    named = found.source
    if found.symbolic:
        return f"the same formula as {named} has."
    if found.equal:
        return f"{named} has {found.formula}, which comes to the same at every size that was counted."
    return f"{named} has {found.formula}: measured - predicted = {found.difference}."


def overtaking(row: Overtaking) -> str:
    """What grows fastest in a symbol, from where on it is most, and whose it is."""
    if not row.told:
        return f"it grows as {row.power}{whose(row.modules)}." if row.power else "how it grows cannot be told."
    if row.start is None:
        start = f"every term grows as {row.power}" if row.is_all else f"{row.terms} is more than the rest at every size"
    else:
        start = f"{row.terms} is more than the rest from {row.symbol} = {row.start} on"
        start += "" if row.inside is not False else ", beyond the sizes here"
    return f"{start}{whose(row.modules)}."


def whose(modules: Sequence[Responsible]) -> str:
    """``: h.*.attn 66.7%, h.*.mlp 33.3%``; nothing where no module is known."""
    if not modules or (len(modules) == 1 and not modules[0].path):
        return ""
    named = [f"{_name(m)} {share(m.share, 1)}%" for m in modules[:_NAMED]]
    rest = len(modules) - len(named)
    more = f" and {rest} more" if rest else ""
    unknown = "" if sum(m.share for m in modules) == 1 else ", the rest in modules without a formula"
    return f": {', '.join(named)}{more}{unknown}"


def verdict(judged: Judged, units: Units, answer: Answer) -> str:
    """True or false, and why, with sizes that show it."""
    word = "TRUE" if judged.verdict.holds else "FALSE"
    return f"{word}: {sentence(judged)}{_shown(judged, units, answer)}"


def _shown(judged: Judged, units: Units, answer: Answer) -> str:
    """The sizes that show that a claim is false, or at which a claimed formula was compared last."""
    found, kind = judged.verdict, KINDS[answer.growth.scaling.quantity]
    if not found.examples:
        return ""
    last = found.examples[-1]
    at = sizes_of(last.sizes)
    if found.holds:
        return f" At {at} both are {units.text(last.measured, kind)}." if judged.claim.bound == "=" else ""
    if judged.claim.bound == "=":
        numbers = f"{units.text(last.measured, kind)} measured, {units.text(last.claimed, kind)} claimed"
        part = f"; what is missing is {share(found.share, 1)}%" if found.share and found.times is None else ""
        return f" At {at}: {numbers}{part}."
    ratios = _ratios(judged)
    if found.share is not None:
        return f" At {at} that is {share(found.share, 1)}% of the {answer.label}.{ratios}"
    return ratios


def _ratios(judged: Judged) -> str:
    """How measured ÷ claimed changes: below any constant it does not stay."""
    examples = judged.verdict.examples
    if len(examples) < 2 or any(not example.claimed for example in examples):
        return ""
    first, last = (
        f"{rounded(Fraction(e.measured) / e.claimed)} at {sizes_of(e.sizes)}" for e in (examples[0], examples[-1])
    )
    return f" Measured ÷ claimed is {first} and {last}."


def renamed(judged: Judged) -> str:
    """Which of the claim's names are which sizes."""
    return ", ".join(f"{other} is {name}" for other, name in judged.renamed)


def needs(found: Extrapolation, units: Units) -> list[str]:
    """What a model needs at some sizes, and how far that is to be trusted."""
    done = "the forward needs" if found.phase == "forward" else "a forward and a backward need"
    amounts = []
    for quantity, name in (("flops", ""), ("bytes", " moved"), ("saved", " saved for the backward")):
        amount = found.amounts.get(quantity)  # type: ignore[call-overload]  # all of these are quantities
        if amount is not None and not (quantity == "saved" and amount == 0):
            amounts.append(f"{units.named(amount, KINDS[quantity])}{name}")
    what = ", ".join(amounts) or "something that no formula was found of"
    lines = [f"At {sizes_of(found.sizes)}, {done} {what}{_time(found)}."]
    lines += [*_validity(found), *found.notes]
    return lines


def _time(found: Extrapolation) -> str:
    if found.device is None or found.seconds is None:
        return ""
    several = f"{found.count} x {found.device.id}" if found.count > 1 else found.device.id
    dtype = f" in {' and '.join(found.dtypes)}" if found.dtypes else ""
    least = "at least" if found.is_bound else "at best"
    return f", {duration(found.seconds)} {least} on {several}{dtype}"


def _validity(found: Extrapolation) -> Iterator[str]:
    ranges = [f"{name} = {domain.first} to {domain.last}" for name, domain in found.beyond]
    if ranges:
        made = f"The formulas were made and checked for {', '.join(ranges)}."
        if found.counted:
            yield f"{made} The model was counted at these very sizes too, and comes to the same FLOPs."
        elif found.counted is None:
            yield f"{made} This is an extrapolation: it holds if nothing changes beyond that."
        else:
            yield made
    if found.counted is False:
        yield "The model was counted at these very sizes too, and does NOT come to the same FLOPs: something changes."
    if found.count > 1 and found.seconds is not None:
        yield "The devices share the work evenly, and what they tell each other takes no time here."
    if found.is_bound and found.seconds is not None:
        yield "The time is that of all arithmetic or of all traffic, whichever is longer: op by op it is more."


def spread(found: Found) -> Iterator[str]:
    """Counts that differed between runs of the same sizes."""
    for sizes, least, most in found.spread:
        yield f"at {sizes_of(sizes)}: {least:,} to {most:,}"


def sizes_of(sizes: Mapping[str, int]) -> str:
    """``N=4096, d=768``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _name(module: Responsible) -> str:
    return module.path or OWN


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
