"""A small GPT, readable in one sitting: `attnprof run examples/tiny_gpt.py:build --backward`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attnprof
from attnprof.analytic.binding import Given, Recorded

LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 12, 256, 8, 8192, 256


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values come from one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, length, WIDTH))


@attnprof.predicts(Attention)
def attention(module: Recorded, call: Given) -> attnprof.Prediction:
    """What theory says of the contractions of one call; without this, the table says that they are not predicted."""
    x = call.input(0)
    batch, length, width = x.shape
    theory = attnprof.predict("mha-sdpa", B=batch, T=length, d=width, H=HEADS, causal=True, input_grad=x.needs_grad)
    return theory.of("matmul")  # its matrices have no biases


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TinyGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight  # tied: one matrix reads tokens in and writes them out

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def build() -> tuple[nn.Module, tuple[Tensor]]:
    """The model and the arguments of one call: what attnprof runs."""
    return TinyGPT(), (torch.randint(VOCABULARY, (1, CONTEXT)),)
