"""``attnprof run FILE``: a TARGET that is a file of a model, and the options that are for such."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprof.analysis.sweep import Shape
from attnprof.cli import sized, target
from attnprof.cli.users_code import their_own
from attnprof.core.errors import AttnprofError

if TYPE_CHECKING:
    from attnprof.saved.loaded import Loaded

Dim = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=N",
        help="Of a torch.export program: a size that it leaves open, by its symbol ('s77=8'), by an axis of an input "
        "('x.0=8'), or as batch=8, seq=128 for the first and second axis. Repeatable.",
        show_default=False,
    ),
]
ModelText = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="Of a file of weights: file.py:callable or package.module:callable that makes the model they go into.",
        show_default=False,
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Of a pickled model: unpickle it, which runs its code. Only for files you made yourself.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of a Hugging Face configuration: what the model is for, such as causal-lm or image-classification. "
        "Default: its architecture's.",
        show_default=False,
    ),
]
Real = Annotated[
    bool,
    typer.Option(
        "--real",
        help="Of a Hugging Face configuration: build the model with random weights, in the memory that they take, and "
        "run it for real. Default: on fake tensors.",
    ),
]

#: Suffixes of files of models: a TARGET that ends in one is a file, whether or not it is there.
_SUFFIXES = (".pt2", ".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json", ".onnx", ".gguf", ".ptl", ".pte", ".npz")


def is_file(text: str) -> bool:
    """Whether a TARGET is a file or folder of a model, not code."""
    if text.endswith(".py"):
        return False
    return os.path.lexists(text) or text.lower().endswith(_SUFFIXES)


def is_fake(text: str, fake: bool, real: bool) -> bool:
    """Whether a run is on fake tensors: where it is asked for, and of a configuration unless it is to be real."""
    if fake and real:
        raise AttnprofError("--fake and --real exclude each other: leave one out.")
    if fake or real or not is_file(text):
        return fake
    from attnprof.saved.kinds import Kind, kind_of

    return kind_of(Path(text)) is Kind.HUGGING_FACE


@dataclass(frozen=True, slots=True)
class Saved:
    """A file of a model, and how to open it: what makes the model anew, each time it is called."""

    path: Path
    opening: Any
    is_configuration: bool = False

    def __call__(self) -> target.Target:
        from attnprof.saved.opening import open_saved

        found = open_saved(self.path, self.opening)
        return target.Target(found.model, tuple(found.args), dict(found.kwargs), found.notes, found.fake)


def of(
    text: str,
    *,
    dims: Sequence[str],
    model: str | None,
    trust_pickle: bool,
    task: str | None,
    batch: int | None,
    seq: int | None,
    fake: bool,
    real: bool = False,
    seed: int = 0,
    generate: bool = False,
) -> Saved | None:
    """The file that TARGET names; None when it names code. Options that mean nothing for it are refused at once."""
    given: dict[str, object] = {"--dim": dims, "--model": model, "--trust-pickle": trust_pickle}
    given |= {"--task": task, "--real": real}
    if not is_file(text):
        for option, value in given.items():
            if value:
                raise AttnprofError(f"{option} is for a model in a file, and {text} is not one: leave it out.")
        return None
    from attnprof.saved.kinds import Kind, kind_of
    from attnprof.saved.opening import Opening, check

    path = Path(text)
    kind = kind_of(path)
    sizes = {name: size for name, size in (("batch", batch), ("seq", seq)) if size is not None}
    open_sizes = parsed(dims)
    if kind is Kind.EXPORTED:  # whose axes are called so
        if twice := sizes.keys() & open_sizes.keys():
            raise AttnprofError(f"--{min(twice)} and --dim both set {min(twice)}.")
        open_sizes |= sizes
    build = None if model is None else _builder(model, sizes)
    of_config = sizes if kind is Kind.HUGGING_FACE or (build is None and kind is not Kind.EXPORTED) else {}
    opening = Opening(
        build,
        open_sizes,
        trust_pickle,
        task,
        of_config.get("batch"),
        of_config.get("seq"),
        fake,
        real,
        seed,
        generate,
    )
    check(path, kind, opening)
    return Saved(path, opening, kind is Kind.HUGGING_FACE)


def parsed(texts: Sequence[str]) -> dict[str, int]:
    """``batch=4`` -> ``{"batch": 4}``."""
    found: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name.strip() or not value.strip().isascii() or not value.strip().isdigit():
            raise AttnprofError(f'--dim "{text}" is not NAME=N with a whole number, such as batch=4.')
        if name.strip() in found:
            raise AttnprofError(f"--dim sets {name.strip()} twice.")
        found[name.strip()] = int(value)
    return found


def _builder(text: str, sizes: Mapping[str, int]) -> Callable[[], Loaded]:
    """What ``--model`` names, as something that makes a model with its arguments, at these sizes if it takes them."""
    with their_own(f"importing {text}"):
        found = sized.target_at(target.find(text), Shape(**sizes))

    def build() -> Loaded:
        from attnprof.saved.loaded import Loaded

        with their_own(f"building {text}"):
            made = target.build(found, text)
        return Loaded(made.model, tuple(made.args), dict(made.kwargs or {}))

    return build
