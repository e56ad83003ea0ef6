"""The model FLOPs utilisation in a progress bar, while training. `python examples/live_mfu.py [DEVICE]`.

DEVICE is a name of `attnprof devices`, or `this` after `attnprof calibrate`; without one the bar shows FLOP/s.
"""

import sys

import torch
from torch import nn
from tqdm import tqdm

import attnprof

BATCH, WIDTH, CLASSES = 64, 256, 10


def train(device: str | None = None, steps: int = 200) -> attnprof.Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    with attnprof.profile(model, device=device) as prof, tqdm(total=steps, disable=None) as bar:
        for _ in range(steps):
            x, label = torch.randn(BATCH, WIDTH), torch.randint(CLASSES, (BATCH,))
            loss = nn.functional.cross_entropy(model(x), label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step(samples=BATCH)  # the first steps are counted; from here on, like ones run bare and are timed
            bar.set_postfix_str(str(prof.live() or "counting"))
            bar.update()

    return prof.report()


if __name__ == "__main__":
    print(train(*sys.argv[1:2]))
