"""Opening models in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.core import sizes
from attnprof.core.errors import AttnprofError
from attnprof.saved.loaded import Loaded

if TYPE_CHECKING:
    from torch import nn


def load_model(
    path: str | Path,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    dims: Mapping[str, int] | None = None,
    task: str | None = None,
    batch: int | None = None,
    seq: int | None = None,
    fake: bool = False,
    real: bool = False,
    trust_pickle: bool = False,
) -> Loaded:
    """Open a model in a file, for :func:`attnprof.run`: ``attnprof.run(attnprof.load_model("model.pt2"))``.

    What a file is, its bytes say, not its suffix: a program of ``torch.export`` (``dims`` sets sizes that it leaves
    open, ``{"batch": 4}``, and so do ``batch`` and ``seq``); TorchScript; weights, which go into ``model``, a module or
    what makes one; a Hugging Face folder or config.json, built without weights (``task``, ``batch``, ``seq``), or with
    random ones where it is to be ``real``. With ``fake``, weights are not read where that is possible.

    Nothing in a file is executed: what would be is refused, unless ``trust_pickle`` says that you made it yourself.
    ``.model``, ``.args``, ``.kwargs`` and ``.notes`` of the result are the model, the arguments that the file has
    for it, and what a reader of its report must know.

    Raises :class:`AttnprofError` in a sentence for a file that is no model, is damaged or would run code, and for
    arguments that mean nothing for such a file.
    """
    from torch import nn

    from attnprof.saved.opening import Opening, open_saved

    if model is not None and not callable(model):
        raise AttnprofError(f"model takes an nn.Module or a function that makes one, not a {type(model).__name__}.")
    for name, value in {
        **(dims or {}),
        "batch": 1 if batch is None else batch,
        "seq": 1 if seq is None else seq,
    }.items():
        sizes.positive(**{name: value})
    build = None
    if model is not None:
        build = _builder(model) if not isinstance(model, nn.Module) else lambda: Loaded(model)
    return open_saved(path, Opening(build, dict(dims or {}), trust_pickle, task, batch, seq, fake, real))


def _builder(make: Callable[[], Any]) -> Callable[[], Loaded]:
    def build() -> Loaded:
        from torch import nn

        made = make()
        if not isinstance(made, nn.Module):
            raise AttnprofError(f"model made a {type(made).__name__}; it must make an nn.Module.")
        return Loaded(made)

    return build
