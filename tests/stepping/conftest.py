"""Steps are told apart by autograd's numbers only while nothing was ever compiled in the process."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_was_compiled() -> None:
    """Whatever tests ran before in this process."""
    if "torch._dynamo.convert_frame" in sys.modules:
        import torch

        torch._dynamo.reset()
