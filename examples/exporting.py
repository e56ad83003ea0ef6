"""A small text classifier, exported with torch.export for any batch and length.

Writes ``classifier.pt2`` beside this file: ``attnprof run examples/classifier.pt2 --dim batch=8 --dim seq=32``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim


class Classifier(nn.Module):
    """Embeds tokens, mixes them in two blocks, and classifies their mean."""

    def __init__(self, d: int = 16, heads: int = 2, vocabulary: int = 64, classes: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList([Block(d, heads) for _ in range(2)])
        self.head = nn.Linear(d, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Block(nn.Module):
    """A transformer block with its norms before."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


def main() -> None:
    torch.manual_seed(0)
    sizes = {"tokens": {0: Dim("batch", min=1, max=64), 1: Dim("seq", min=2, max=512)}}
    program = torch.export.export(Classifier().eval(), (torch.randint(64, (2, 16)),), dynamic_shapes=sizes)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)  # paths of the machine that exported it
    torch.export.save(program, Path(__file__).with_name("classifier.pt2"))


if __name__ == "__main__":
    main()
