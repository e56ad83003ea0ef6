"""Weights in a file, on their own or in a model of yours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attnprof.core.errors import AttnprofError
from attnprof.core.stored import StoredWeights
from attnprof.saved import weights_safetensors, weights_shards
from attnprof.saved.kinds import Kind, kind_of
from attnprof.saved.loaded import Loaded
from attnprof.saved.weights_names import Names

if TYPE_CHECKING:
    from torch import Tensor


def read(path: str | Path, *, trust_pickle: bool = False) -> StoredWeights:
    """The names, shapes and dtypes of the tensors in a file of weights; their data is not read.

    A file of safetensors, of torch.save, or the index of several. Raises :class:`AttnprofError` in one sentence for
    one that is damaged, or holds none.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind is Kind.SAFETENSORS:
        return weights_safetensors.read(path)
    if kind is Kind.SHARDS:
        return weights_shards.read(path, lambda part: _read_shard(part, trust_pickle))
    if not kind.is_weights:
        raise AttnprofError(f"{path} is {kind.value}, not a file of weights.")
    from attnprof.saved import weights_torch

    return weights_torch.read(path, trust_pickle=trust_pickle)


def load(path: str | Path, build: Callable[[], Loaded], *, fake: bool = False, trust_pickle: bool = False) -> Loaded:
    """The model that ``build`` makes, with the weights of a file in it.

    The model keeps its own dtype. Names may differ by what wrappers put before them (``module.``, ``_orig_mod.``,
    ``model.``). On fake tensors, and on ``meta``, names and shapes are compared, and nothing is read.

    Raises :class:`AttnprofError` in one sentence where the weights are not those of the model.
    """
    path = Path(path)
    stored = read(path, trust_pickle=trust_pickle)
    made = build()
    names = Names.of(made.model, stored)
    notes = [*stored.notes, *names.notes]
    unread = fake or made.fake or _has_no_data(made)
    if not unread:
        _fill(made, names.renamed, path, trust_pickle)
    else:
        notes.append("The weights' names and shapes are those of the model; their values were not read.")
    held = sorted({tensor.dtype for tensor in stored.tensors})
    own = sorted({str(p.dtype).removeprefix("torch.") for p in made.model.parameters()})
    if own and held != own:
        notes.append(f"The weights are stored as {', '.join(held)}; the model is counted in its own {', '.join(own)}.")
    return Loaded(made.model, made.args, made.kwargs, (*made.notes, *notes), fake=made.fake or fake)


def _read_shard(path: Path, trust_pickle: bool) -> StoredWeights:
    kind = kind_of(path)
    if kind is Kind.SHARDS or not kind.is_weights:
        raise AttnprofError(f"{path}, one of an index, is {kind.value}, not a file of weights.")
    return read(path, trust_pickle=trust_pickle)


def _has_no_data(made: Loaded) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return any(p.is_meta or isinstance(p, FakeTensor) for p in made.model.parameters())


def _fill(made: Loaded, renamed: Mapping[str, str], path: Path, trust_pickle: bool) -> None:
    """Copy the weights into the model's own tensors, one file at a time."""
    import torch

    targets = made.model.state_dict(keep_vars=True)
    with torch.no_grad():
        for file in _files(path, trust_pickle):
            for name, tensor in file.items():
                if name in renamed:
                    targets[renamed[name]].copy_(tensor)


def _files(path: Path, trust_pickle: bool = False) -> Iterator[Mapping[str, Tensor]]:
    kind = kind_of(path)
    if kind is Kind.SHARDS:
        for file, names in weights_shards.shards(path).items():
            wanted = set(names)
            for part in _files(file, trust_pickle):
                yield {name: tensor for name, tensor in part.items() if name in wanted}
        return
    if kind is Kind.SAFETENSORS:
        try:
            from safetensors import safe_open
        except ImportError:
            raise AttnprofError(
                f"reading the values in {path} needs safetensors; install it, or count with --fake, which reads none."
            ) from None
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                yield {name: file.get_tensor(name)}
        return
    from attnprof.saved import weights_torch

    yield weights_torch.load(path, trust_pickle=trust_pickle)[0]
