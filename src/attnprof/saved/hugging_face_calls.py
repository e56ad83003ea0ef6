"""Calls of a model that was built from a configuration: offline, without checks of values, failures in a sentence."""

from __future__ import annotations

import functools
import logging
import os
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.saved.hugging_face_config import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Says to transformers that values of tensors are not to be looked at for a check of them.
_UNCHECKED = "TRANSFORMERS_DISABLE_TORCH_CHECK"


@contextmanager
def offline() -> Iterator[None]:
    """Inside, transformers and its hub ask nothing of any network, and warn of nothing; all is put back."""
    from huggingface_hub import constants
    from transformers.utils import logging as hf_logging

    before, level = constants.HF_HUB_OFFLINE, hf_logging.get_verbosity()
    constants.HF_HUB_OFFLINE = True
    hf_logging.set_verbosity(logging.ERROR)
    try:
        with _environment(HF_HUB_OFFLINE="1"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
        hf_logging.set_verbosity(level)


def guard(model: PreTrainedModel, fake: bool) -> None:
    """Have calls of the model be offline, and say in a sentence what they cannot do.

    On fake tensors the model's own checks of values (as many image tokens as image features?) are off.
    """
    bare = vars(model).get("forward")
    original = type(model).forward

    @functools.wraps(original)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        with offline(), _environment(**({_UNCHECKED: "1"} if fake else {})):
            try:
                return original(self, *args, **kwargs) if bare is None else bare(*args, **kwargs)
            except (MemoryError, AttnprofError):
                raise
            except Exception as error:  # whatever a model makes of arguments that it was not written for
                raise AttnprofError(_why(self, error, kwargs)) from error

    model.forward = types.MethodType(forward, model)


def _why(model: PreTrainedModel, error: Exception, kwargs: Mapping[str, Any]) -> str:
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    name = type(model).__name__
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return (
            f"{name} looks at values of its tensors ({error}), and fake tensors have none: --real builds it with "
            "random weights, in the memory that they take."
        )
    given = ", ".join(f"{n} {list(v.shape)}" for n, v in kwargs.items() if hasattr(v, "shape"))
    return (
        f"{name} cannot be called with what its configuration says ({given}): {type(error).__name__}: "
        f"{first_line(error)} Give other arguments with --input, or make them in a file: attnprof run file.py:build."
    )


@contextmanager
def _environment(**names: str) -> Iterator[None]:
    """Variables set inside, and as they were afterwards."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
