"""The examples do what they say."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import attnprof
from attnprof.costs import registry

EXAMPLES = Path(__file__).parents[1] / "examples"


def loaded(name: str) -> dict[str, object]:
    return runpy.run_path(str(EXAMPLES / name))


def test_tiny_gpt_costs_what_a_gpt_costs() -> None:
    gpt = loaded("tiny_gpt.py")
    model, args = gpt["build"]()  # type: ignore[operator]
    report = attnprof.run(model, args, backward=True, strict_prediction=True)  # theory accounts for all of it
    layers, d, heads, v, t = (gpt[k] for k in ("LAYERS", "WIDTH", "HEADS", "VOCABULARY", "CONTEXT"))
    projections = layers * 2 * t * (3 * d * d + d * d + 4 * d * d + 4 * d * d) + 2 * t * d * v  # type: ignore[operator]
    attention = layers * 4 * heads * t * t * (d // heads)  # type: ignore[operator]
    assert report.phases["forward"].matmul_flops == projections + attention
    # dX and dW of every projection (the embeddings need a gradient, so the first layer's input does too)
    assert report.phases["backward"].matmul_flops == 2 * (projections + attention)
    assert report.phases["recompute"].matmul_flops == attention // 2  # the backward rebuilds QK^T
    assert report.unpriced == {}


def test_live_mfu() -> None:
    report = loaded("live_mfu.py")["train"]("a100-sxm-80gb", 12)  # type: ignore[operator]
    assert report.phases["forward"].matmul_flops == 12 * 2 * 64 * (256 * 1024 + 1024 * 10)
    assert report.pace is not None
    assert (report.pace.counted, report.pace.reused, report.pace.timed) == (2, 10, 10)
    assert 0 < report.pace.mfu < 1
    assert report.pace.samples_per_s > 0


def test_training_loop() -> None:
    report = loaded("training_loop.py")["train"](3)  # type: ignore[operator]
    forward = 3 * 2 * 32 * (64 * 256 + 256 * 10)  # three steps of a batch of 32
    assert report.phases["forward"].matmul_flops == forward
    # dW of both layers and dX of the second: the data needs no gradient
    assert report.phases["backward"].matmul_flops == forward + 3 * 2 * 32 * 256 * 10
    assert report.phases["optimizer"].vector_flops > 0
    assert report.unpriced == {}


def test_custom_op_has_its_price() -> None:
    try:
        model, args = loaded("custom_op.py")["build"]()  # type: ignore[operator]
        report = attnprof.run(model, args, strict=True)
    finally:
        registry.forget("mylib::scaled_square")
    assert report.total.matmul_flops == 2 * 32 * 128 * 256
    assert report.total.vector_flops == 32 * 256
    assert report.unpriced == {}


def test_huggingface_small() -> None:
    model, args, kwargs = loaded("huggingface.py")["small"]()  # type: ignore[operator]
    assert isinstance(model, nn.Module)
    report = attnprof.run(model, args, kwargs)
    d, f, kv, t, v = 256, 688, 64, 128, 1000
    layer = 2 * t * (2 * d * d + 2 * d * kv + 3 * d * f) + 4 * t * t * d
    assert report.phases["forward"].matmul_flops == 4 * layer + 2 * t * d * v
    assert report.unpriced == {}


def test_huggingface_llama_8b_on_fake_tensors() -> None:
    with attnprof.fake_tensors():
        model, args, kwargs = loaded("huggingface.py")["llama_8b"]()  # type: ignore[operator]
    report = attnprof.run(model, args, kwargs, fake=True)
    d, f, kv, t, v = 4096, 14_336, 1024, 4096, 128_256
    layer = 2 * t * (2 * d * d + 2 * d * kv + 3 * d * f) + 4 * t * t * d
    assert report.total.matmul_flops == 32 * layer + 2 * t * d * v
    assert {p.dtype for node in report.root.walk() for p in node.record.parameters} == {"bfloat16"}


@pytest.mark.parametrize("name", ["decoding.py", "training_loop.py"])
def test_scripts_print_a_table(name: str) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=True)
    assert "coverage" in done.stdout
    assert done.stderr == ""
