"""Tables of real training runs: the sentence on the backward, the memory and the column, against counts by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof

N, D, F = 6, 8, 32
E = 4  # bytes of an element


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(D, F), nn.ReLU(), nn.Linear(F, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Layers(nn.Module):
    def __init__(self, count: int, again: bool = False) -> None:
        super().__init__()
        self.h = nn.ModuleList(FeedForward() for _ in range(count))
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.h:
            x = checkpoint(layer, x, use_reentrant=True) if self.again else layer(x)
        return x


PARAMETERS = D * F + F + F * D + D


def trained(model: nn.Module, grad: bool = True) -> attnprof.Report:
    return attnprof.run(model, (torch.ones(N, D, requires_grad=grad),), backward=True)


def line(report: attnprof.Report, start: str) -> str:
    shown = report.to_table(width=300, units="exact").splitlines()
    return next(text for text in shown if text.startswith(start))


def cells(report: attnprof.Report) -> dict[str, str]:
    """What each row saved."""
    shown = report.to_table(width=300, units="exact").splitlines()
    start = next(i for i, text in enumerate(shown) if text.startswith("layer"))
    rows = [text.lstrip("│├└─ ").split("  ", 1) for text in shown[start + 1 : shown.index("", start)]]
    return {label: rest.split()[2] for label, rest in rows}


def test_a_stack_of_layers() -> None:
    report = trained(Layers(3))
    assert line(report, "backward = ") == "backward = 2.00 × forward (matmul FLOPs)."
    memory = line(report, "memory: ")
    weights = E * 3 * PARAMETERS
    saved = E * 3 * (N * D + N * F)  # what up multiplies, and what relu gave, which down multiplies
    assert memory.startswith(f"memory: parameters {weights:,} B · gradients {weights:,} B · saved {saved:,} B · peak ")
    assert cells(report) == {
        "Layers": f"{saved:,}",
        "h.[0-2] x3": f"{saved:,}",
        "up": f"{E * 3 * N * D:,}",
        "act": f"{E * 3 * N * F:,}",
        "down": "0",
    }


def test_frozen_weights_of_every_layer() -> None:
    model = Layers(2)
    for layer in model.h:
        layer.up.requires_grad_(False)
    report = trained(model)
    # 2 of the 8 gradients: each the size of one of the 4 contractions of the forward
    assert line(report, "backward = ") == (
        "backward = 1.50 × forward (matmul FLOPs), because the weights of h.[0-1].up are frozen (-0.500)."
    )
    frozen = E * 2 * (D * F + F)
    assert f"parameters {E * 2 * PARAMETERS:,} B ({frozen:,} B frozen) · gradients " in line(report, "memory: ")


def test_a_first_layer_on_a_plain_input() -> None:
    assert line(trained(Layers(2), grad=False), "backward = ") == (
        "backward = 1.75 × forward (matmul FLOPs), because the inputs of h.0.up need no gradient (-0.250)."
    )


def test_checkpointed_layers() -> None:
    report = trained(Layers(3, again=True))
    assert line(report, "backward = ") == (
        "backward = 2.00 × forward (matmul FLOPs); recompute adds 1.00: run again in h.[0-2].up, h.[0-2].down."
    )
    assert f"saved {E * 3 * N * D:,} B" in line(report, "memory: ")  # the input of each layer


def test_a_saved_run_shows_the_same(tmp_path: Path) -> None:
    report = trained(Layers(2))
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    for by in ("module", "op", "memory"):
        assert again.to_table(by=by, width=100) == report.to_table(by=by, width=100)
    assert again.to_json() == report.to_json()


def test_a_forward_alone_saves_nothing_under_no_grad() -> None:
    with torch.no_grad():
        report = attnprof.run(Layers(1), (torch.ones(N, D),))
    memory = line(report, "memory: ")
    assert "saved" not in memory
    # of what the forward makes, at most two are alive at once: [N, F] before and after the relu
    peak = E * (PARAMETERS + N * D + 2 * N * F)
    assert memory == f"memory: parameters {E * PARAMETERS:,} B · peak {peak:,} B (at h.0.act aten.relu, forward)"
    assert "Nothing was saved for a backward." in report.to_table(by="memory", width=100)
