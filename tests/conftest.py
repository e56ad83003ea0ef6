"""Around every test: nothing that torch keeps globally may be left changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks", "_global_backward_hooks")
_HOOKS += (
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
    "_global_module_registration_hooks",
)
_STEP_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


def torch_state() -> dict[str, Any]:
    """Modes, global hooks, stance and flags: all that decides what the next op does, but for the seed."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    from torch.nn.modules import module
    from torch.optim import optimizer
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return {
        "torch functions": not torch._C._is_torch_function_all_disabled(),
        "dispatch modes": [type(mode).__name__ for mode in _get_current_dispatch_mode_stack()],
        "function modes": [type(mode).__name__ for mode in _get_current_function_mode_stack()],
        "module hooks": {name: len(getattr(module, name)) for name in _HOOKS},
        "optimizer hooks": {name: len(getattr(optimizer, name)) for name in _STEP_HOOKS},
        "compile stance": "default" if dynamo is None else dynamo._stance.stance,
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(False),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "storages resize": torch.UntypedStorage.resize_,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "attention backends": (
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        ),
        "excluded dispatch keys": str(torch._C._dispatch_tls_local_exclude_set()),
        "included dispatch keys": str(torch._C._dispatch_tls_local_include_set()),
    }


@pytest.fixture(autouse=True)
def the_same_width_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines break alike in every terminal, in none, and in the processes that tests are spread over."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail the test that leaves a mode, a global hook, a compile stance or a flag behind."""
    before = torch_state()
    yield
    after = torch_state()
    if before:
        assert after == before
    elif after:  # torch was loaded by the test itself
        assert not after["dispatch modes"]
        assert not after["function modes"]
        assert not any(after["module hooks"].values())
        assert not any(after["optimizer hooks"].values())
        assert after["compile stance"] == "default"
