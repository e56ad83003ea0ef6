"""What the backward costs beside the forward, and why, in a sentence."""

from __future__ import annotations

from fractions import Fraction

from attnprof.analysis.training import Cause, Reason, Training
from attnprof.core.units import Units, rounded
from attnprof.reports.names import called, listed, place

_PHRASES: dict[Cause, str] = {
    "call": "some forward calls have no backward",
    "frozen": "the weights of {} are frozen",
    "input": "the inputs of {} need no gradient",
    "either": "the inputs of {} need no gradient or some of the calls have no backward",
    "unreached": "no backward reached {}",
    "less": "{} did less than twice the forward: part of it has no backward, or one of its own",
    "more": "{} did more than twice the forward: several backwards, a double one, or one of its own",
}


def sentence(training: Training, model: str, units: Units) -> str:
    """``backward = 1.52 × forward (matmul FLOPs), because the weights of h.[0-11].attn.q are frozen (-0.48).``"""
    ratio = training.ratio
    if ratio is None:
        return f"backward: {units.named(training.backward, 'matmul')} of matmul; its forward was not seen."
    reasons = [f"{_phrase(reason, model)} ({_signed(reason.flops, training.forward)})" for reason in training.reasons]
    because = f", because {', and '.join(reasons)}" if reasons else ""
    return f"backward = {rounded(ratio)} × forward (matmul FLOPs){because}{_recompute(training, model)}."


def _phrase(reason: Reason, model: str) -> str:
    return _PHRASES[reason.cause].format(listed([_called(fqn, model) for fqn in reason.modules]))


def _recompute(training: Training, model: str) -> str:
    """``; recompute adds 0.33: h.[0-11] run again``."""
    if not training.recompute:
        return ""
    again = f"run again in {place([_called(fqn, model) for fqn in training.rerun])}"
    scores = "fused attention rebuilds its scores"
    whole = rounded(Fraction(training.recompute, training.forward))
    if not training.rebuilt:
        return f"; recompute adds {whole}: {again}"
    if not training.rerun:
        return f"; recompute adds {whole}: {scores}"
    parts = [rounded(Fraction(sum(part.values()), training.forward)) for part in (training.rerun, training.rebuilt)]
    return f"; recompute adds {whole}: {parts[0]} {again}, {parts[1]} {scores}"


def _called(fqn: str, model: str) -> str:
    if fqn == "(outside)":
        return "what runs outside any module"
    return called(fqn, model) if fqn else f"{model or 'the run'} itself"


def _signed(flops: int, whole: int) -> str:
    return f"{'-' if flops < 0 else '+'}{rounded(Fraction(abs(flops), whole))}"
