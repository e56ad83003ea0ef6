"""Which checkpoint is at work, told by torch's saved-tensor hooks.

``torch.utils.checkpoint`` (non-reentrant) pushes hooks of its own while a region runs and while it runs again.
Their closures name the frame, the object that stands for the region.
"""

from __future__ import annotations

from typing import Any


def checkpointed(pack: Any) -> Any:
    """The frame of the region that runs for the first time under this pack hook; None under any other hook."""
    return _closure(pack, "frame") if _is_named(pack, "_checkpoint_hook") else None


def recomputed(pack: Any) -> Any:
    """The frame of the region that is being run again under this pack hook; None under any other hook."""
    if not _is_named(pack, "_recomputation_hook"):
        return None
    reference = _closure(pack, "target_frame_ref")
    return reference() if reference is not None else None


def _is_named(pack: Any, name: str) -> bool:
    return getattr(_plain(pack), "__qualname__", "").startswith(name)


def _closure(function: Any, name: str) -> Any:
    function = _plain(function)
    code = getattr(function, "__code__", None)
    if code is None or name not in code.co_freevars:
        return None
    return function.__closure__[code.co_freevars.index(name)].cell_contents


def _plain(function: Any) -> Any:
    """The function itself: dynamo wraps some hooks."""
    return getattr(function, "_torchdynamo_orig_callable", function)
