"""Generate text step by step with a key-value cache of plain tensors, and see what every step costs.

`python examples/decoding.py`, or `attnprof run examples/decoding.py:build --generate 16`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attnprof

WIDTH, HEADS, KV_HEADS, LAYERS, VOCABULARY, CONTEXT = 256, 8, 8, 6, 4096, 1024
PROMPT = 64

#: Keys and values of one layer, [batch, key-value heads, tokens, head width] each.
KeyValue = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Causal attention that remembers; ``kv_heads`` below ``heads`` share keys and values among queries."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.v = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        q, k, v = (self._by_head(project(x)) for project in (self.q, self.k, self.v))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        # A prompt is causal; a single new token sees all keys.
        y = scaled_dot_product_attention(q, k, v, is_causal=past is None, enable_gqa=k.shape[1] < q.shape[1])
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_width)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, kv_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        y, present = self.attn(self.ln_1(x), past)
        x = x + y
        return x + self.mlp(self.ln_2(x)), present


class Decoder(nn.Module):
    """``decoder(ids, cache)`` returns the logits and the cache with the new tokens in it."""

    def __init__(
        self,
        width: int = WIDTH,
        heads: int = HEADS,
        kv_heads: int = KV_HEADS,
        layers: int = LAYERS,
        vocabulary: int = VOCABULARY,
        context: int = CONTEXT,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor, cache: list[KeyValue] | None = None) -> tuple[Tensor, list[KeyValue]]:
        start = 0 if cache is None else cache[0][0].shape[2]
        x = self.tokens(ids) + self.positions(torch.arange(start, start + ids.shape[1], device=ids.device))
        present = []
        for i, block in enumerate(self.blocks):
            x, key_value = block(x, None if cache is None else cache[i])
            present.append(key_value)
        return self.head(x), present


def build() -> tuple[nn.Module, tuple[Tensor]]:
    """The model and a prompt: what attnprof runs."""
    return Decoder(), (torch.randint(VOCABULARY, (1, PROMPT)),)


def generate(tokens: int = 16) -> attnprof.Report:
    """A generation loop of your own: end each step with its name."""
    model, (ids,) = build()
    with attnprof.profile(model) as prof, torch.no_grad():
        logits, cache = model(ids)
        for i in range(tokens):
            token = logits[:, -1].argmax(-1, keepdim=True)
            prof.step(f"decode {i}" if i else "prefill")
            if i < tokens - 1:
                logits, cache = model(token, cache)
    return prof.report()


if __name__ == "__main__":
    print(generate())
