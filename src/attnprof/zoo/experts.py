"""Mixture of experts: many feed-forward networks, of which a router gives each token to a few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.zoo.feedforward import FeedForward
from attnprof.zoo.registry import at_most, mechanism, positive


@mechanism("moe")
class MixtureOfExperts(nn.Module):
    """Feed-forward experts, each token in the k of E that its router rates highest.

    x [..., d] -> router [..., E] -> softmax -> the k best; their outputs weighted by those probabilities, summed.
    Each token alone, so causal in any use. No capacity limit: no token is dropped, and experts may be idle.

    For n tokens, whatever the routing, since n k rows go through some expert:
        forward     router 2 n d E + up 2 n k d f + down 2 n k d f
        backward    twice that
        saved       n d + n E + n k (3 d + f + 1) with a ReLU: x, the probabilities, and of every routed row the
                    input, hidden layer, output, weight and weighted output; and 3 n k places (int64)
        parameters  E (2 d f + f + d) + d E, of which a token uses k (2 d f + f + d) + d E

    What each expert executes is 4 d f times its :meth:`load`. Values decide these shapes: it needs real tensors.

    Shazeer et al., Outrageously Large Neural Networks, 2017; weights as in Fedus et al., Switch Transformers, 2021.
    """

    def __init__(self, d: int = 64, f: int = 256, E: int = 8, k: int = 2, activation: str = "relu") -> None:
        super().__init__()
        positive(d=d, f=f)
        at_most(E=E, k=k)
        self.d, self.f, self.E, self.k, self.activation = d, f, E, k, activation
        self.router = nn.Linear(d, E, bias=False)
        self.experts = nn.ModuleList(FeedForward(d, f, activation) for _ in range(E))

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the k experts of each token, and which they are: both [n, k]."""
        weights, chosen = torch.softmax(self.router(tokens), dim=-1).topk(self.k, dim=-1)
        return weights, chosen

    def load(self, x: Tensor) -> Tensor:
        """The number of tokens that each expert gets: [E], with the sum n k."""
        _, chosen = self.route(x.flatten(0, -2))
        return torch.bincount(chosen.flatten(), minlength=len(self.experts))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)
        weights, chosen = self.route(tokens)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            rows, rank = torch.where(chosen == index)
            mixed = expert(tokens[rows]) * weights[rows, rank, None]
            out.index_add_(0, rows, mixed.to(out.dtype))  # under autocast experts answer in another dtype
        return out.view_as(x)
