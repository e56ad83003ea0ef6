"""transformers without any network, whatever it would like to fetch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def offline() -> Iterator[None]:
    """Inside, transformers and its hub ask nothing of any network, and warn of nothing; all is put back."""
    from huggingface_hub import constants
    from transformers.utils import logging as hf_logging

    before, level = constants.HF_HUB_OFFLINE, hf_logging.get_verbosity()
    constants.HF_HUB_OFFLINE = True
    hf_logging.set_verbosity(logging.ERROR)
    try:
        with environment(HF_HUB_OFFLINE="1"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
        hf_logging.set_verbosity(level)


@contextmanager
def environment(**names: str) -> Iterator[None]:
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
