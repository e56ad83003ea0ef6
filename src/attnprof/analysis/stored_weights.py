"""Tensors of a file of weights put together by the beginning of their names, layers that are alike as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnprof.core.module_names import fold, unfold
from attnprof.core.stored import StoredTensor, StoredWeights

#: About a screenful: so many rows the depth is chosen for.
_ROWS = 40


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors whose names begin alike: ``h.[0-11].attn`` for twelve layers' attention.

    ``alike`` is how many beginnings it stands for; ``shape`` that of each tensor, when there is one of each and all
    are of one shape; ``dtypes`` all there are, the most bytes first.
    """

    name: str
    alike: int
    tensors: int
    numel: int
    bytes: int
    dtypes: tuple[str, ...]
    shape: tuple[int, ...] | None


def groups(weights: StoredWeights, depth: int | None = None) -> list[Group]:
    """The tensors by the first ``depth`` parts of their names, in the order of the file.

    Without a depth, by as many as give about a screenful of rows. Tensors that share a storage count once.
    """
    tensors = weights.counted
    if depth is not None:
        return _at(tensors, max(depth, 1))
    deepest = max((t.name.count(".") + 1 for t in tensors), default=1)
    best = _at(tensors, 1)
    for at in range(2, deepest + 1):
        finer = _at(tensors, at)
        if len(finer) > _ROWS:
            break
        best = finer
    return best


def _at(tensors: Iterable[StoredTensor], depth: int) -> list[Group]:
    by_name: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        by_name.setdefault(".".join(tensor.name.split(".")[:depth]), []).append(tensor)
    folded = {name: text for text, count in fold(by_name).items() for name in (unfold(text) if count > 1 else [text])}
    found: dict[str, list[StoredTensor]] = {}
    alike: dict[str, int] = {}
    for name, some in by_name.items():
        text = folded.get(name, name)
        found.setdefault(text, []).extend(some)
        alike[text] = alike.get(text, 0) + 1
    return [_group(text, alike[text], some) for text, some in found.items()]


def _group(name: str, alike: int, tensors: list[StoredTensor]) -> Group:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    shapes = {tensor.shape for tensor in tensors}
    return Group(
        name,
        alike,
        len(tensors),
        sum(tensor.numel for tensor in tensors),
        sum(tensor.bytes for tensor in tensors),
        tuple(sorted(sizes, key=lambda dtype: -sizes[dtype])),
        shapes.pop() if len(shapes) == 1 and len(tensors) == alike else None,
    )
