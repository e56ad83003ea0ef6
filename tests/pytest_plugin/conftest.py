"""Sessions inside this one forget the modules that they imported first; torch's compiler must not be loaded twice."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def the_compiler_is_loaded() -> None:
    """All that it imports on its way, before any session inside this one does."""
    torch.compile(torch.sin, backend="eager")(torch.ones(1))
    torch._dynamo.reset()
