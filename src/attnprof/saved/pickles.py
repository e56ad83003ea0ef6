"""Files of torch.save: what their pickles are of, found out without unpickling anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def whole_model(path: Path, trust_pickle: bool) -> nn.Module | None:
    """The model that was pickled whole, if the file is one and is trusted; None for one of weights.

    Raises :class:`AttnprofError` for a pickled model that is not trusted: loading it would run its code.
    """
    raise NotImplementedError
