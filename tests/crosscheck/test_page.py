"""docs/other-tools.md: its tables are counted, and what it says of other tools is so."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.profiler import profile

from crosscheck.side_by_side import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "other-tools.md"


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_counted(name: str) -> None:
    """``UPDATE_DOCS=1 pytest tests/crosscheck/test_page.py`` writes them anew."""
    marked = re.compile(rf"(<!-- counted: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    text = PAGE.read_text(encoding="utf-8")
    assert marked.search(text)
    counted = TABLES[name]()
    real = marked.sub(lambda m: f"{m[1]}\n{counted}\n{m[2]}", text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(real, encoding="utf-8")
        text = real
    assert text == real


def test_what_the_page_says_of_the_profiler_is_so() -> None:
    """``with_flops``: mm, addmm, bmm, conv2d forwards, add and mul; nothing for attention or other convolutions."""

    def counted(run: object) -> dict[str, int]:
        assert callable(run)
        with profile(with_flops=True, record_shapes=True) as found:
            run()
        return {event.key: event.flops for event in found.key_averages() if event.flops}

    q, x = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 9, 9, requires_grad=True)
    assert counted(lambda: q @ q.mT) == {"aten::bmm": 2 * 2 * 4 * 5 * 5 * 8}
    assert counted(lambda: q + q * q) == {"aten::mul": q.numel(), "aten::add": q.numel()}
    assert counted(lambda: F.gelu(q)) == {}
    assert counted(lambda: F.scaled_dot_product_attention(q, q, q)) == {}
    convolution, transposed = nn.Conv2d(4, 4, 3, bias=False), nn.ConvTranspose2d(4, 4, 3)
    once = 2 * 2 * 4 * 4 * 9 * 7 * 7
    assert counted(lambda: convolution(x).backward(torch.ones(2, 4, 7, 7))) == {"aten::conv2d": once}
    assert counted(lambda: transposed(x)) == {}


def test_a_handle_of_ones_own_is_how_fvcore_learns_an_op() -> None:
    """The example of the page."""
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    counter = FlopCountAnalysis(model, torch.randn(2, 8))
    counter.unsupported_ops_warnings(False).tracer_warnings("none")
    counter.set_op_handle("aten::gelu", lambda inputs, outputs: 14 * outputs[0].type().sizes()[0])
    assert counter.by_operator() == {"linear": 2 * 8 * 8, "gelu": 14 * 2}
