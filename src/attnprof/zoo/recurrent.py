"""Diagonal linear recurrences: one step after the other, or as a scan that joins pieces of the sequence.

h[t] = a * h[t - 1] + x[t] is the last element of a prefix "sum" of the pairs (a, x[t]) under

    (a, b) then (a', b')  =  (a a', a' b + b')

which is associative, so that pieces may be joined in any grouping. A join is 3 FLOPs per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.zoo.registry import mechanism, positive

Pair = tuple[Tensor, Tensor]


def combine(first: Pair, second: Pair) -> Pair:
    """The recurrence over two pieces, the first before the second: 3 FLOPs per element."""
    (a1, b1), (a2, b2) = first, second
    return a1 * a2, a2 * b1 + b2


def cut(pair: Pair, positions: slice) -> Pair:
    """Some positions of a sequence of pairs, each [B, T, d]."""
    a, b = pair
    return a[:, positions], b[:, positions]


def hillis_steele(pairs: Pair) -> Pair:
    """The prefix joined at every position: each round reaches twice as far back as the one before."""
    reach = 1
    while reach < pairs[1].shape[1]:
        joined = combine(cut(pairs, slice(None, -reach)), cut(pairs, slice(reach, None)))
        a, b = (torch.cat(both, dim=1) for both in zip(cut(pairs, slice(reach)), joined, strict=True))
        pairs = a, b
        reach *= 2
    return pairs


def brent_kung(pairs: Pair) -> Pair:
    """The prefix joined at every position: neighbours are joined, scanned among themselves, and filled in.

    The scan of the joined neighbours is right at the odd positions; an even position 2 i takes the result
    of the odd one before it.
    """
    T = pairs[1].shape[1]
    if T == 1:
        return pairs
    even, odd = cut(pairs, slice(0, None, 2)), cut(pairs, slice(1, None, 2))
    half = T // 2
    at_odd = brent_kung(combine(cut(even, slice(half)), odd))
    at_even = combine(cut(at_odd, slice((T - 1) // 2)), cut(even, slice(1, None)))
    a, b = (
        _interleaved(torch.cat((first[:, :1], rest), dim=1), others)
        for first, rest, others in zip(even, at_even, at_odd, strict=True)
    )
    return a, b


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """even[0], odd[0], even[1], ...: even may have one more."""
    half = odd.shape[1]
    both = torch.stack((even[:, :half], odd), dim=2).flatten(1, 2)
    return torch.cat((both, even[:, half:]), dim=1)


class _DiagonalRNN(nn.Module):
    """The decays, one per channel, drawn from 0.5 to 1."""

    def __init__(self, d: int = 64) -> None:
        super().__init__()
        positive(d=d)
        self.d = d
        self.decay = nn.Parameter(0.5 + 0.5 * torch.rand(d))

    def steps(self, x: Tensor) -> Pair:
        """(decay, x) at every position: what the scans join."""
        return self.decay.expand_as(x), x


@mechanism("diagonal-rnn")
class DiagonalRNN(_DiagonalRNN):
    """A diagonal linear recurrence, step by step: h[t] = decay * h[t - 1] + x[t].

    x [B, T, d] -> h [B, T, d], h[0] = x[0]. Causal. Streaming needs one h [B, d], whatever T.

        forward     2 B d (T - 1) vector FLOPs and no matmul; T - 1 steps, one after the other
        saved       x, whose first position is h[0], and the other h but the last: B (2 T - 2) d
        parameters  d

    Martin and Cundy, Parallelizing Linear Recurrent Neural Nets Over Sequence Length, 2018.
    """

    def forward(self, x: Tensor) -> Tensor:
        states = [x[:, 0]]
        for now in x.unbind(1)[1:]:
            states.append(self.decay * states[-1] + now)
        return torch.stack(states, dim=1)


@mechanism("diagonal-rnn-hillis-steele")
class DiagonalRNNHillisSteele(_DiagonalRNN):
    """A diagonal linear recurrence as a Hillis-Steele scan: few rounds, more work than step by step.

    x [B, T, d] -> h [B, T, d], the same h. Causal.

        forward     3 B d combines(T) vector FLOPs and no matmul, in ceil(log2 T) rounds
        combines    T r - 2^r + 1 with r = ceil(log2 T); T a power of two: T log2 T - T + 1
        saved       x and both of the pair after every round but the last: B T d (2 r - 1)
        parameters  d

    Decays may differ per position at the same cost. Hillis and Steele, Data Parallel Algorithms, 1986.
    """

    @staticmethod
    def combines(T: int) -> int:
        """Joins per channel: the round that reaches 2^i back makes T - 2^i."""
        return sum(T - 2**i for i in range((T - 1).bit_length()))

    def forward(self, x: Tensor) -> Tensor:
        return hillis_steele(self.steps(x))[1]


@mechanism("diagonal-rnn-brent-kung")
class DiagonalRNNBrentKung(_DiagonalRNN):
    """A diagonal linear recurrence as a Brent-Kung scan: a number of joins linear in T.

    x [B, T, d] -> h [B, T, d], the same h. Causal.

        forward     3 B d combines(T) vector FLOPs and no matmul, in up to 2 floor(log2 T) rounds
        combines    W(T) = T - 1 + W(floor(T / 2)), W(1) = 0; T a power of two: 2 T - 2 - log2 T
        saved       B d (4 T - 5), T a power of two: x, the pairs joined on the way up, the states on the way down
        parameters  d

    Decays may differ per position at the same cost. Brent and Kung, A Regular Layout for Parallel Adders, 1982.
    """

    @staticmethod
    def combines(T: int) -> int:
        """Joins per channel: with n positions left, n // 2 going up and (n - 1) // 2 coming down."""
        return sum((T >> i) - 1 for i in range(T.bit_length()))

    def forward(self, x: Tensor) -> Tensor:
        return brent_kung(self.steps(x))[1]
