"""Transformers of L layers: any mixer and any feed-forward network of the zoo, checkpointed or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from attnprof.core.errors import AttnprofError
from attnprof.zoo.registry import build, find, mechanism, one_of, positive, sequence


class Block(nn.Module):
    """A pre-norm block: x + mixer(norm(x)), and to that ffn(norm(...)).

    x [B, T, d] -> [B, T, d]. Beside its parts it has two layer norms: 4 d parameters, no matmul; saved: the
    inputs of both norms and their mean and rstd per token, 2 B T d + 4 B T.
    """

    def __init__(self, d: int, mixer: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.mixer, self.ffn = mixer, ffn

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm_1(x))
        out: Tensor = x + self.ffn(self.norm_2(x))
        return out


@mechanism("transformer")
class Transformer(nn.Module):
    """L pre-norm blocks, each of a mixer and a feed-forward network of the zoo, chosen by name.

    x [B, T, d] -> [B, T, d]. ``f`` is 4 d unless given. All other symbols go to the mixer and the feed-forward
    network, to each those it has: ``mixer="gqa", H=8, Hkv=2``, ``ffn="moe", E=8, k=2``. Causal if the mixer is.

    With P = B T d² and A = B T² d, for ``mha`` and ``ffn``, n = d and f = 4 d:
        forward     L (8 P + 4 A + 16 P) = L (24 P + 4 A)
        backward    L (48 P + 8 A)
        saved       L B (16 T d + H T² + 4 T) with ``activation="gelu"``: a block's two norms, mixer and ffn
        parameters  L (12 d² + 9 d): 4 d² of the mixer, 8 d² + 5 d of the ffn, 4 d of the norms

    ``checkpoint`` keeps the input of each block only, L B T d, and runs the block again for its backward:
        "reentrant"      recompute L (24 P + 4 A), the whole forward; it allows ``backward()`` and no
                         ``torch.autograd.grad``
        "non-reentrant"  recompute L (16 P + 4 A): it stops when it has all that was saved, before the product
                         that ends the ffn

    Vaswani et al., Attention Is All You Need, 2017; pre-norm: Xiong et al., On Layer Normalization in the
    Transformer Architecture, 2020; checkpoints: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """

    def __init__(
        self,
        d: int = 64,
        L: int = 2,
        f: int | None = None,
        mixer: str = "mha",
        ffn: str = "ffn",
        checkpoint: str | None = None,
        **symbols: Any,
    ) -> None:
        super().__init__()
        f = 4 * d if f is None else f
        positive(d=d, L=L, f=f)
        if checkpoint is not None:
            one_of(("reentrant", "non-reentrant"), checkpoint=checkpoint)
        self.d, self.L, self.f, self.mixer, self.ffn, self.checkpoint = d, L, f, mixer, ffn, checkpoint
        given = {**symbols, "d": d, "f": f}
        parts = (_part("mixer", mixer), _part("ffn", ffn))
        unused = [symbol for symbol in symbols if not any(symbol in part for part in parts)]
        if unused:
            known = sorted({*parts[0], *parts[1]})
            raise AttnprofError(f"{mixer} and {ffn} have no symbol {unused[0]!r}, only {', '.join(known)}.")
        of_mixer, of_ffn = ({s: v for s, v in given.items() if s in part} for part in parts)
        self.blocks = nn.ModuleList(Block(d, build(mixer, **of_mixer), build(ffn, **of_ffn)) for _ in range(L))

    def forward(self, x: Tensor) -> Tensor:
        recomputing = self.checkpoint is not None and torch.is_grad_enabled()
        reentrant = self.checkpoint == "reentrant"
        if recomputing and reentrant and not x.requires_grad:
            x = x.detach().requires_grad_()  # else the parameters of the first block would get no gradient
        for block in self.blocks:
            x = recomputed(block, x, use_reentrant=reentrant) if recomputing else block(x)
        return x


def _part(role: str, name: str) -> set[str]:
    """The symbols of the mechanism of this name, if it makes x [B, T, d] of x [B, T, d]."""
    entry = find(name)
    if entry.inputs is not sequence:
        raise AttnprofError(f"{role} cannot be {name!r}: it is called with something else than x [B, T, d].")
    return set(entry.symbols)


def token_ids(B: int, T: int, V: int, **_: Any) -> tuple[Tensor]:
    """B sequences of T numbers below V."""
    return (torch.randint(V, (B, T)),)


@mechanism("lm", inputs=token_ids)
class LanguageModel(nn.Module):
    """A language model: embeddings, a transformer, a norm and a head that gives each token V logits.

    ids [B, T], T at most N -> logits [B, T, V]. All other symbols are those of ``transformer``. A mixer that can
    be causal is, unless ``causal=False``; one that has no such symbol is as causal as it is.

    With P = B T d² and A = B T² d, for ``mha`` and ``ffn``, n = d and f = 4 d:
        forward     L (24 P + 4 A) + head 2 B T d V; with W weights in these matrices 2 B T W + 4 L A
        backward    twice that
        parameters  V d + N d + the blocks + 2 d, the head tied to the embeddings; not ``tied``, V d more

    Radford et al., Language Models are Unsupervised Multitask Learners, 2019; tied: Press and Wolf, 2017.
    """

    def __init__(
        self, d: int = 64, V: int = 256, N: int = 256, tied: bool = True, mixer: str = "mha", **symbols: Any
    ) -> None:
        super().__init__()
        positive(d=d, V=V, N=N)
        self.d, self.V, self.N, self.tied, self.mixer = d, V, N, tied, mixer
        own = {"causal": True, "N": N}
        symbols = {**{s: v for s, v in own.items() if s in find(mixer).symbols}, **symbols}
        self.tokens, self.positions = nn.Embedding(V, d), nn.Embedding(N, d)
        self.transformer = Transformer(d=d, mixer=mixer, **symbols)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, V, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        T, N = ids.shape[1], self.N
        if T > N:
            raise AttnprofError(f"T can be at most N: a sequence of T={T} tokens is longer than N={N}.")
        x = self.tokens(ids) + self.positions(torch.arange(T, device=ids.device))
        logits: Tensor = self.head(self.norm(self.transformer(x)))
        return logits
