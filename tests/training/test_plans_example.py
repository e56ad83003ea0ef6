"""The plans of examples/training_plans.py cost what their closed forms say, and the document shows what it prints."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import attnprof
from training.counts import product

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "training_plans.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def reports(example: dict[str, Any]) -> dict[str, attnprof.Report]:
    return example["compare"]()


def test_products(example: dict[str, Any], reports: dict[str, attnprof.Report]) -> None:
    """Per block, P = N d² and A = N² d: projections 2 P each, attention 4 A, feed-forward 8 P + 8 P; a head on one row.

    The first block's input is data, but its norms are trained, so that its projections have a dX.
    """
    layers, d, n, rank = (example[name] for name in ("LAYERS", "WIDTH", "TOKENS", "RANK"))
    p, a, head, thin = n * d * d, n * n * d, product(1, d, 10), product(n, d, rank)
    forward = layers * (24 * p + 4 * a) + head
    adapters = layers * 4 * 2 * thin
    # With adapters alone trained: dX of all but the first q, k and v; of the first adapters, dW and up's dX.
    frozen_dx = layers * (24 * p + 4 * a) + head - 3 * 2 * p
    expected = {
        "full": (forward, 2 * forward, 0),
        "frozen_qk": (forward, 2 * forward - layers * 2 * 2 * p, 0),
        "lora": (forward + adapters, frozen_dx + layers * 4 * a + 2 * adapters - 3 * thin, 0),
        # The first norm's bias is trained: dX of everything, no dW; an attention without weights has all of its 8 A.
        "biases": (forward, forward + layers * 4 * a, 0),
        "head": (forward, head, 0),
        "checkpointed": (forward, 2 * forward, layers * (16 * p + 4 * a)),
    }
    found = {
        name: tuple(report.phases[phase].matmul_flops for phase in ("forward", "backward", "recompute"))
        for name, report in reports.items()
    }
    assert found == expected


def test_updates(example: dict[str, Any], reports: dict[str, attnprof.Report]) -> None:
    """AdamW, 14 per trained element and a step counter per tensor."""
    layers, d, rank = (example[name] for name in ("LAYERS", "WIDTH", "RANK"))
    block, biases, in_head = 12 * d * d + 13 * d, 11 * d, 10 * d + 10
    counts = {
        "full": (layers * block + in_head, layers * 16 + 2),
        "frozen_qk": (layers * (block - 2 * (d * d + d)) + in_head, layers * 12 + 2),
        "lora": (layers * 4 * 2 * d * rank, layers * 8),
        "biases": (layers * biases + 10, layers * 8 + 1),
        "head": (in_head, 2),
        "checkpointed": (layers * block + in_head, layers * 16 + 2),
    }
    for name, (elements, tensors) in counts.items():
        assert example["trained_parameters"](reports[name]) == elements
        assert reports[name].phases["optimizer"].vector_flops == 14 * elements + tensors, name


def test_the_document_shows_what_it_prints(example: dict[str, Any], reports: dict[str, attnprof.Report]) -> None:
    """``UPDATE_DOCS=1`` writes it anew."""
    document = ROOT / "docs" / "training.md"
    printed = example["table"](reports) + "\n"
    block = re.compile(r"(```text\n\$ python examples/training_plans.py\n)(.*?)(```\n)", re.DOTALL)
    text = document.read_text(encoding="utf-8")
    real, found = block.subn(lambda m: m[1] + printed + m[3], text)
    assert found == 1
    if os.environ.get("UPDATE_DOCS"):
        document.write_text(real, encoding="utf-8")
        text = real
    assert text == real
