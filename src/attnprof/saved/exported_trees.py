"""The trees of arguments and results in a saved program: PyTorch imports the modules that they name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from attnprof.core.errors import AttnprofError

#: What a defaultdict may make.
_FACTORIES = {"list", "dict", "int", "float", "str", "set", "tuple"}
#: No program is nested deeper.
DEEPEST = 200


class UnsafeError(AttnprofError):
    """Something in a program that no program of torch.export has, or that would run code."""


def check_tree(text: Any) -> None:
    """The structure of arguments or results: its contexts must not make PyTorch import anything."""
    if not text:
        return
    try:
        _, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise UnsafeError("the structure of its arguments cannot be read") from None
    for context in _contexts(tree, 0):
        if isinstance(context, str):
            with contextlib.suppress(ValueError, RecursionError):  # else it is a plain string
                context = json.loads(context)
        for inner in _dicts(context, 0):
            factory = (inner.get("default_factory_module"), inner.get("default_factory_name"))
            if "__enum__" in inner or ("default_factory_module" in inner and not _is_plain(factory)):
                raise UnsafeError("the structure of its arguments names Python modules to import")


def _is_plain(factory: tuple[Any, Any]) -> bool:
    return factory[0] == "builtins" and factory[1] in _FACTORIES


def _contexts(tree: Any, depth: int) -> Iterator[Any]:
    if depth > DEEPEST or not isinstance(tree, dict):
        raise UnsafeError("the structure of its arguments cannot be read")
    yield tree.get("context")
    _register(tree.get("type"))
    for child in tree.get("children_spec") or ():
        yield from _contexts(child, depth + 1)


def _dicts(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth > DEEPEST:
        raise UnsafeError("the structure of its arguments cannot be read")
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _dicts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _dicts(inner, depth + 1)


def _register(kind: Any) -> None:
    """Classes of transformers in arguments and results are known to PyTorch once that package is imported."""
    if isinstance(kind, str) and kind.startswith("transformers."):
        try:
            import transformers.cache_utils
            import transformers.modeling_outputs  # noqa: F401
        except ImportError:
            raise AttnprofError(
                f"its arguments or results hold a {kind}, and transformers is not installed: pip install 'attnprof[hf]'"
            ) from None
