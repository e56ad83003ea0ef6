"""How many keys a layer of attention finds in its cache: what theory has to know of a decoding step.

The caches of transformers are objects of one layer for each module of attention. A call that was given one is
noted with the keys that its layer kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: The names in a kind of call: keys in the cache after it; of a window, how many tokens went through it; a cache of
#: which neither is known.
KEYS, SEEN, NOT_SEEN = "cache", "seen", "cache?"
_NOTHING: tuple[Any, ...] = ()


def cached(module: Any, value: Any) -> tuple[Any, ...]:
    """Of an argument that is no tensor: name, shape, dtype and gradient flag, as kinds of calls have them.

    Empty for what is no cache. Of a module that does not say which layer it is, nothing is known of its keys. Runs no
    op.
    """
    kept = getattr(value, "__dict__", None)
    if not kept:
        return _NOTHING
    layers = kept.get("layers")
    if layers is None and "self_attention_cache" in kept:
        layers = getattr(kept["self_attention_cache"], "layers", None)
    if not isinstance(layers, list):
        return _NOTHING
    at = module.__dict__.get("layer_idx")
    layer = layers[at] if isinstance(at, int) and at < len(layers) else None
    keys, seen = getattr(layer, "keys", None), getattr(layer, "cumulative_length", None)
    if not isinstance(keys, Tensor) or keys.dim() != 4:
        return NOT_SEEN, (), torch.int64, False
    with torch._C.DisableTorchFunction():
        found = KEYS, keys.shape, keys.dtype, False
    if isinstance(seen, int) and seen != keys.shape[-2]:
        return *found, SEEN, (seen,), torch.int64, False
    return found
