"""One small transformer under several training plans. `attnprof run examples/training_plans.py:lora --optimizer adamw`

`python examples/training_plans.py` compares them all.
"""

from math import prod

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import attnprof

LAYERS, WIDTH, HEADS, TOKENS, RANK = 4, 256, 4, 128, 8

Built = tuple[nn.Module, tuple[torch.Tensor]]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        scores = q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5
        return self.o((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Transformer(nn.Module):
    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 10)
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x.mean(1))


class LoRA(nn.Module):
    """A frozen Linear and a thin trained product beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def full() -> Built:
    """Every weight is trained; the input is data and needs no gradient."""
    return Transformer(), (torch.randn(1, TOKENS, WIDTH),)


def frozen_qk() -> Built:
    """Queries and keys are frozen."""
    model, args = full()
    for block in model.blocks:
        block.attention.q.requires_grad_(False)
        block.attention.k.requires_grad_(False)
    return model, args


def head() -> Built:
    """Only the last layer is trained."""
    model, args = full()
    model.blocks.requires_grad_(False)
    return model, args


def biases() -> Built:
    """Only the biases are trained."""
    model, args = full()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    return model, args


def lora() -> Built:
    """Everything is frozen but thin products beside the attention's projections."""
    model, args = full()
    model.requires_grad_(False)
    for block in model.blocks:
        for name in "qkvo":
            setattr(block.attention, name, LoRA(getattr(block.attention, name)))
    return model, args


def checkpointed() -> Built:
    """Every block is run again in the backward."""
    return Transformer(checkpointed=True), (torch.randn(1, TOKENS, WIDTH),)


PLANS = (full, frozen_qk, lora, biases, head, checkpointed)


def compare() -> dict[str, attnprof.Report]:
    """A steady step of each plan."""
    return {plan.__name__: attnprof.run(*plan(), optimizer="adamw") for plan in PLANS}


def trained_parameters(report: attnprof.Report) -> int:
    records = [parameter for node in report.root.walk() for parameter in node.record.parameters]
    return sum(prod(parameter.shape) for parameter in records if parameter.trainable)


def table(reports: dict[str, attnprof.Report]) -> str:
    """Trained parameters, backward and recomputation in forwards, and the optimizer's FLOPs, plan by plan."""
    lines = [f"{'plan':<14}{'trained':>12}{'backward':>18}{'recompute':>18}{'optimizer FLOPs':>17}"]
    for name, report in reports.items():
        forward = report.phases["forward"].matmul_flops
        times = [f"{report.phases[phase].matmul_flops / forward:.3f} × forward" for phase in ("backward", "recompute")]
        update = report.phases["optimizer"].flops
        lines.append(f"{name:<14}{trained_parameters(report):>12,}{times[0]:>18}{times[1]:>18}{update:>17,}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(compare()))
