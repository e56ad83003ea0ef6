"""Calls of a model that was built from a configuration: offline, without checks of values, failures in a sentence."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.saved.hugging_face_config import first_line
from attnprof.saved.hugging_face_offline import environment, offline

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Says to transformers that values of tensors are not to be looked at for a check of them.
_UNCHECKED = "TRANSFORMERS_DISABLE_TORCH_CHECK"


def guard(model: PreTrainedModel, fake: bool) -> None:
    """Have calls of the model be offline, and say in a sentence what they cannot do.

    On fake tensors the model's own checks of values (as many image tokens as image features?) are off.
    """
    bare = vars(model).get("forward")
    original = type(model).forward

    @functools.wraps(original)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        with offline(), environment(**({_UNCHECKED: "1"} if fake else {})):
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
