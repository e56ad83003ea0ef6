"""A project with a model, and what the model costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import attnprof

# Loaded here, since a session inside a test forgets what it was the first to import, and torch bears no second time.
from attnprof.pytest_plugin import comparing, failures, fixture, limits, locking, measuring, summary

LOADED = (comparing, failures, fixture, limits, locking, measuring, summary)
LOADED_BY_A_RUN = attnprof.run(torch.nn.Linear(1, 1), (torch.ones(1, 1),), optimizer="adamw", fake=True).total

NET = """
import pytest
import torch
from torch import nn
import attnprof as package

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.up = nn.Linear(8, width)
        self.down = nn.Linear(width, 8)

    def forward(self, x):
        return self.down(self.up(x))

def rows(n=4):
    return torch.ones(n, 8)

MODEL, X = Net(), rows()
"""


def up(width: int = 16, rows: int = 4) -> int:
    """FLOPs of the first layer: its products, and the bias."""
    return 2 * rows * 8 * width + rows * width


def down(width: int = 16, rows: int = 4) -> int:
    return 2 * rows * width * 8 + rows * 8


def net(width: int = 16, rows: int = 4) -> int:
    return up(width, rows) + down(width, rows)


#: Reads and writes of float32: the weights, the biases and what goes in, and what comes out.
UP_BYTES = 4 * (8 * 16 + 16 + 4 * 8) + 4 * (4 * 16)
DOWN_BYTES = 4 * (16 * 8 + 8 + 4 * 16) + 4 * (4 * 8)

Outcomes = dict[str, int]
Project = Callable[..., pytest.RunResult]


def run(pytester: pytest.Pytester, body: str, *options: str, **outcomes: int) -> str:
    """Run a file of tests beside the model; its output, once the outcomes are as said."""
    pytester.makepyfile(NET + body)
    return again(pytester, *options, **outcomes)


def again(pytester: pytest.Pytester, *options: str, **outcomes: int) -> str:
    """Run the project as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:hypothesispytest", *options)
    text = result.stdout.str() + result.stderr.str()
    if outcomes:
        result.assert_outcomes(**outcomes)
    return text
