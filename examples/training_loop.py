"""Profile your own training script: wrap it, and ask for the report. `python examples/training_loop.py`."""

import torch
from torch import nn

import attnprof


def train(steps: int = 3) -> attnprof.Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    with attnprof.profile(model) as prof:
        for _ in range(steps):
            x, label = torch.randn(32, 64), torch.randint(10, (32,))
            loss = nn.functional.cross_entropy(model(x), label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()

    return prof.report()


if __name__ == "__main__":
    print(train())
