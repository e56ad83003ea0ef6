"""Arguments for one call of a transformers model, from its ``forward`` and its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.saved.hugging_face_config import find
from attnprof.saved.hugging_face_shapes import ARRAYS, USUAL_IMAGE, Array, Sizes, image_size

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

#: Optional in a signature, yet no model that has them runs without.
_ALWAYS = ("decoder_input_ids", "bbox")
#: What a text can be given beside: images and sounds, where the model has an encoder for them.
_BESIDE_TEXT = ("pixel_values", "input_features", "input_values")
#: The usual length of a text.
USUAL_SEQ = 128
_IMAGES = ("pixel_values", "pixel_values_videos", "images", "hidden_states", "flattened_patches")
_TEXTS = ("input_ids", "decoder_input_ids", "qformer_input_ids", "bbox")


def arrays(model: PreTrainedModel, sizes: Sizes) -> dict[str, Array]:
    """What ``forward`` is given: what it needs, its main input, and one for every encoder there is.

    Raises :class:`AttnprofError` for an argument that no configuration says the shape of.
    """
    wanted = inspect.signature(model.forward).parameters
    names = list(dict.fromkeys(_names(model, wanted)))
    unknown = [name for name in names if name not in ARRAYS]
    if unknown:
        raise AttnprofError(
            f"{type(model).__name__} needs {', '.join(unknown)}, which no configuration gives the shape of: make "
            "model and arguments in a file of yours, attnprof run file.py:build."
        )
    found = {name: ARRAYS[name](sizes) for name in names}
    if type(model).__name__.endswith("ForMultipleChoice"):  # [B, choices, T]
        found = {n: Array((a.shape[0], 2, *a.shape[1:]), a.dtype, a.low, a.high, a.values) for n, a in found.items()}
    return found


def _names(model: PreTrainedModel, wanted: Any) -> Iterator[str]:
    main = "input_ids" if "input_ids" in wanted else model.main_input_name
    yield from [main] if isinstance(main, str) else main[:1]
    holders = any(
        name.endswith(("image_token_id", "image_token_index", "audio_token_id")) for name in vars(model.config)
    )
    for name, parameter in wanted.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty or name in _ALWAYS or (name in _BESIDE_TEXT and not holders):
            yield name


def left_out(model: PreTrainedModel, given: Collection[str]) -> str:
    """The sentence on encoders that do not run, as a text alone is given; empty where all do."""
    wanted = inspect.signature(model.forward).parameters
    kinds = {"pixel_values": "images", "pixel_values_videos": "videos", "input_features": "sounds"}
    missing = [kind for name, kind in kinds.items() if name in wanted and name not in given]
    if not missing or "input_ids" not in given:
        return ""
    return f"Called with text alone: {' and '.join(missing)}, their encoder and their tokens are not in the counts."


def tensor(array: Array, real: bool, generator: Any = None) -> Tensor:
    """The tensor itself; without values, on ``meta``, unless it is to be real."""
    import torch

    dtype = getattr(torch, array.dtype)
    if array.values:
        last = torch.tensor(array.values, dtype=dtype)
        return last.expand(array.shape).contiguous() if real or array.shape[-1] == 3 else _empty(array)
    if not real:
        return _empty(array)
    if dtype.is_floating_point:
        return torch.randn(array.shape, generator=generator)
    return torch.randint(array.low, array.high, array.shape, generator=generator)


def _empty(array: Array) -> Tensor:
    import torch

    return torch.empty(array.shape, dtype=getattr(torch, array.dtype), device="meta")


def sizes_for(model: PreTrainedModel, batch: int, seq: int | None, image: tuple[int, int] | None) -> Sizes:
    """What the inputs are sized by; a text of usual length where none is asked for and the model is long enough."""
    limits = (longest_text(model), find(model.config, "max_position_embeddings"))
    usual = min([USUAL_SEQ, *(limit for limit in limits if limit and limit > 0)])
    size = image_size(model.config) or image or (USUAL_IMAGE, USUAL_IMAGE)
    return Sizes(model.config, batch, seq or usual, size, seq)


def longest_text(model: PreTrainedModel) -> int | None:
    """The most tokens that a model with learned positions has places for; None where nothing ends."""
    from torch import nn

    stated = find(model.config, "max_position_embeddings", "n_positions", "max_target_positions", "n_ctx")
    ends = []
    for name, part in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(part, nn.Embedding) and ("position" in last or last in ("wpe", "embed_positions")):
            if "vision" in name or "image" in name or "2d" in last or last.startswith(("h_", "w_", "x_", "y_")):
                continue
            start = part.padding_idx + 1 if part.padding_idx is not None else 0
            ends.append(part.num_embeddings - start)
    if not ends or stated is None:
        return None
    ends = [end for end in ends if end >= stated - 4]
    return min(stated, *ends) if ends else None
