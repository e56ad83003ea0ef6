"""A model of transformers from its configuration alone: no weights, no network, no code but transformers' own."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import positive
from attnprof.saved import hugging_face_tasks as tasks
from attnprof.saved.hugging_face_calls import guard
from attnprof.saved.hugging_face_config import Read, find, first_line, read, text_of
from attnprof.saved.hugging_face_inputs import arrays, left_out, longest_text, sizes_for, tensor
from attnprof.saved.hugging_face_offline import offline
from attnprof.saved.loaded import Loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build(
    path: str | Path,
    *,
    task: str | None = None,
    batch: int | None = None,
    seq: int | None = None,
    real: bool = False,
    seed: int = 0,
    generate: bool = False,
) -> Loaded:
    """The model that a ``config.json``, or a folder with one, is of, with the arguments of one call.

    ``task`` (``"text-generation"``, ``"image-classification"``, ...) picks the class; without one it is what the file
    names. ``batch`` is 1 unless given; ``seq`` is the tokens of each text, the frames or samples of each sound. The
    model is on ``meta``, to be run on fake tensors; ``real`` makes one with random weights instead. It is called
    without a cache of keys, unless it is to ``generate``.

    Raises :class:`AttnprofError` in one sentence for what cannot be built or given arguments.
    """
    tasks.check(task)
    positive(**{name: size for name, size in (("--batch", batch), ("--seq", seq)) if size is not None})
    found = read(path)
    with offline():
        model, notes = _model(found, task, real, seed)
        arguments, more = _arguments(model, found, batch or 1, seq, real, seed)
    if generate:
        arguments.pop("use_cache", None)
    guard(model, fake=not real)
    return Loaded(model, (), arguments, (*notes, *more), fake=not real)


def _model(found: Read, task: str | None, real: bool, seed: int) -> tuple[PreTrainedModel, list[str]]:
    import torch

    config = found.config
    kind = tasks.class_for(found.where, config, task, found.architectures)
    try:
        wanted = kind.config_class or object
    except ImportError as error:  # a stand-in for a class whose package is not installed
        raise AttnprofError(f"{kind.__name__} needs more than is installed: {first_line(error)}") from None
    text = text_of(config)
    if not isinstance(config, wanted) and isinstance(text, wanted):
        config = text  # the decoder of a model of images and text
    notes = [_what(found, kind, task, config, "with random weights" if real else "without weights")]
    if found.quantised:
        dtype = _dtype(config) or "bfloat16"
        config.dtype = getattr(torch, dtype)
        notes.append(
            f"The weights are quantised ({found.quantised}). What is modelled is the same model unquantised, in "
            f"{dtype}: as many FLOPs, but parameters, and the traffic of reading them, of that width."
        )
    if found.code:
        notes.append("The configuration names code of its own (auto_map). It was not run: this is transformers' own.")
    _pad(config)
    state = torch.random.get_rng_state() if real else None
    try:
        if real:
            torch.manual_seed(seed)
        with nullcontext() if real else torch.device("meta"):
            model = kind._from_config(config)  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise AttnprofError(f"{kind.__name__} needs more than is installed: {first_line(error)}") from None
    except Exception as error:  # whatever a constructor makes of sizes that do not fit
        raise AttnprofError(f"{found.where} cannot be built as a {kind.__name__}: {first_line(error)}") from None
    finally:
        if state is not None:
            torch.random.set_rng_state(state)
    return model.eval(), notes


def _what(found: Read, kind: type, task: str | None, config: Any, how: str) -> str:
    said = f"Built from {found.where} as {kind.__name__}, {how}"
    if task is None and not found.architectures:
        return f"{said}: it names no architectures; --task is one of {', '.join(tasks.tasks_of(config))}."
    return f"{said}."


def _dtype(config: Any) -> str | None:
    found = find(config, "dtype", kind=object)
    return None if found is None else str(found).removeprefix("torch.")


def _pad(config: Any) -> None:
    """Classifiers look for the last token before the padding, and refuse a batch where none is named."""
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 0


def _arguments(
    model: PreTrainedModel, found: Read, batch: int, seq: int | None, real: bool, seed: int
) -> tuple[dict[str, Any], list[str]]:
    import inspect

    import torch

    sizes = sizes_for(model, batch, seq, found.image)
    given = arrays(model, sizes)
    if seq is not None and arrays(model, sizes_for(model, batch, seq + 1, found.image)) == given:
        raise AttnprofError(
            f"--seq changes nothing of {type(model).__name__}, which takes {', '.join(given)}: leave it out."
        )
    notes = [sentence] if (sentence := left_out(model, given)) else []
    longest = longest_text(model)
    texts = any(name in given for name in ("input_ids", "decoder_input_ids"))
    if seq is not None and longest is not None and texts and seq > longest:
        raise AttnprofError(f"--seq {seq}: {type(model).__name__} has learned positions for {longest} tokens at most.")
    stated = find(model.config, "max_position_embeddings")
    if seq is not None and stated is not None and texts and seq > stated > 0:  # -1 says that there is no end
        notes.append(f"{seq} tokens are more than the {stated} that the model is made for (max_position_embeddings).")
    generator = torch.Generator().manual_seed(seed)
    arguments: dict[str, Any] = {name: tensor(array, real, generator) for name, array in given.items()}
    dtype = model.dtype
    for name, value in arguments.items():
        if value.is_floating_point():
            arguments[name] = value.to(dtype)
    if "use_cache" in inspect.signature(model.forward).parameters:
        arguments["use_cache"] = False
    return arguments, notes
