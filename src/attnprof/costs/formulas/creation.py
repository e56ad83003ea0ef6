"""Creations, fills and random draws: 0 FLOPs, nothing read, the result written."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import reading, write_only

#: Shapes, dtypes and devices of inputs may be looked at; their elements are not.
_CONSTANT = (
    "zeros ones full arange linspace eye scalar_tensor range tril_indices triu_indices zeros_like ones_like full_like "
    "new_zeros new_ones new_full _new_zeros_with_same_feature_meta zero fft_fftfreq fft_rfftfreq "
    "_efficientzerotensor tensor"
)
_RANDOM = (
    "rand randn randint randperm rand_like randn_like randint_like uniform random exponential cauchy "
    "log_normal geometric normal_functional"
)
_WRITTEN = tuple(f"aten.{name}" for name in (_CONSTANT + " " + _RANDOM).split())

movement(_WRITTEN)
traffic(*_WRITTEN)(write_only)

free(
    (
        "aten.empty",
        "aten.empty_like",
        "aten.empty_strided",
        "aten.empty_permuted",
        "aten.new_empty",
        "aten.new_empty_strided",
    ),
    "memory is reserved, not touched",
)

movement(("aten.fill",))

#: Draws whose parameters are tensors: those are read.
_DRAWN_FROM = ("bernoulli", "normal", "poisson", "binomial", "_standard_gamma", "multinomial")
movement(f"aten.{name}" for name in _DRAWN_FROM)


@traffic("aten.fill")
def fill_traffic(op: OpSignature) -> tuple[int, int]:
    """The value when it is a tensor."""
    return reading(op, "value")


@traffic("aten.bernoulli", "aten.normal")
def draw_traffic(op: OpSignature) -> tuple[int, int]:
    """The tensors of parameters: mean and std, p, or self where it holds the probabilities; else self is a shape."""
    if op.op in ("aten.bernoulli.default", "aten.bernoulli.out"):
        return reading(op, "self")
    return reading(op, "p", "mean", "std")


@cost("aten._sample_dirichlet")
def sample_dirichlet(op: OpSignature) -> Work:
    """Gamma draws, divided by their sum over rows of S: S - 1 additions, S divisions."""
    x = op.tensor("self")
    rows = x.numel // x.shape[-1] if x.shape and x.shape[-1] else 0
    return Work(vector=2 * x.numel - rows)


@cost("aten._standard_gamma_grad", "aten._dirichlet_grad")
def draw_gradient(op: OpSignature) -> Work:
    """A special function per element."""
    return Work(vector=op.out.numel)


#: What evaluating a window takes per position.
_WINDOWS = {
    "aten.bartlett_window": 2,  # a slope and its mirror image
    "aten.hann_window": 4,  # a - b cos(k i)
    "aten.hamming_window": 4,
    "aten.blackman_window": 8,  # a - b cos(k i) + c cos(2 k i)
    "aten.kaiser_window": 8,  # i0(b sqrt(1 - ((i - a) / a)^2)) / i0(b): sub, div, square, sub, sqrt, mul, i0, div
    "aten.logspace": 1,  # a power
}


@cost(*_WINDOWS)
def window(op: OpSignature) -> Work:
    """A function of the position."""
    return Work(vector=op.out.numel * _WINDOWS[op.packet])


traffic(*_WINDOWS)(write_only)
