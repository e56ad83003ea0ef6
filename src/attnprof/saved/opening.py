"""Opening a file: what it is decides how, and which options mean something for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnprof.core.errors import AttnprofError
from attnprof.saved.kinds import Kind, kind_of
from attnprof.saved.loaded import Loaded


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a file. ``None``, ``False`` and no entries mean: as the file says.

    ``build`` makes the model that weights go into, with its arguments; ``dims`` sets the symbolic dimensions of an
    exported program, as do ``batch`` and ``seq`` for the first and second axis of its inputs; ``trust_pickle`` allows
    to unpickle what may run code; ``task``, ``batch`` and ``seq`` say which model and inputs a Hugging Face
    configuration is for, and ``real`` that it is built with random weights, from
    this ``seed``, and ``generate`` that it may keep a cache of keys; ``fake`` opens without memory for the weights.
    """

    build: Callable[[], Loaded] | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    trust_pickle: bool = False
    task: str | None = None
    batch: int | None = None
    seq: int | None = None
    fake: bool = False
    real: bool = False
    seed: int = 0
    generate: bool = False


#: option of the command line -> (whether it is given, the kinds that it means something for, in words and as such)
_EXPORTED = {Kind.EXPORTED}
_WEIGHTS = {kind for kind in Kind if kind.is_weights}
_HUGGING_FACE = {Kind.HUGGING_FACE}
_SIZED = _HUGGING_FACE | _EXPORTED
_PICKLES = {Kind.TORCH_SAVE, Kind.TORCH_SAVE_LEGACY, Kind.SHARDS, Kind.EXPORTED}


def check(path: Path, kind: Kind, opening: Opening) -> None:
    """Refuse, in a sentence, what was asked for that means nothing for such a file."""
    for option, given, kinds, meaning in (
        ("--dim", bool(opening.dims), _EXPORTED, "sets a symbolic dimension of a torch.export program"),
        ("--model", opening.build is not None, _WEIGHTS, "names the model that weights go into"),
        ("--trust-pickle", opening.trust_pickle, _PICKLES, "is for files that hold pickles"),
        ("--task", opening.task is not None, _HUGGING_FACE, "is for Hugging Face configurations"),
        ("--real", opening.real, _HUGGING_FACE, "is for Hugging Face configurations, which are else built fake"),
        ("--seq", opening.seq is not None, _SIZED, "is for Hugging Face configurations and torch.export programs"),
        ("--batch", opening.batch is not None, _SIZED, "is for Hugging Face configurations and torch.export programs"),
    ):
        if given and kind not in kinds:
            raise AttnprofError(f"{path} is {kind.value}, and {option} {meaning}: leave it out.")


def open_saved(path: str | Path, opening: Opening | None = None) -> Loaded:
    """The model in a file or folder, and the arguments of one call where the file tells them.

    Raises :class:`AttnprofError` in one sentence for a file that is nothing attnprof opens, is damaged, would run
    code, or for options that mean nothing for it. Nothing in a file is executed without ``trust_pickle``.
    """
    path = Path(path)
    opening = opening or Opening()
    kind = kind_of(path)
    check(path, kind, opening)
    if kind is Kind.EXPORTED:
        from attnprof.saved import exported

        given = {"batch": opening.batch, "seq": opening.seq}
        sizes = {name: size for name, size in given.items() if size is not None}
        return exported.load(path, {**sizes, **opening.dims}, trust_pickle=opening.trust_pickle)
    if kind is Kind.SCRIPTED:
        from attnprof.saved import scripted

        return scripted.load(path)
    if kind is Kind.HUGGING_FACE:
        from attnprof.saved import hugging_face

        return hugging_face.build(
            path,
            task=opening.task,
            batch=opening.batch,
            seq=opening.seq,
            real=opening.real,
            seed=opening.seed,
            generate=opening.generate,
        )
    from attnprof.saved import pickles, weights

    if kind in (Kind.TORCH_SAVE, Kind.TORCH_SAVE_LEGACY):
        model = pickles.whole_model(path, trust_pickle=opening.trust_pickle, or_weights=opening.build is not None)
        if model is not None:
            return Loaded(model)
    if opening.build is None:
        raise AttnprofError(f"{path} holds weights alone; --model file.py:build names the model that they go into.")
    return weights.load(path, opening.build, fake=opening.fake, trust_pickle=opening.trust_pickle)
