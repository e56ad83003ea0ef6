"""The dotted names of modules without those of wrappers, as attnprof's tree has them."""

from __future__ import annotations

from collections.abc import Sequence

#: Attributes under which ``torch.compile``, FSDP and checkpoint wrappers hold the module they wrap.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def without_wrappers(parts: Sequence[str], *, parallel: bool = False) -> str:
    """The parts as one name; ``parallel``: they begin below a wrapper that holds the model as its ``module``."""
    if parallel and parts and parts[0] == "module":
        parts = parts[1:]
    return ".".join(part for part in parts if part not in _WRAPPED)
