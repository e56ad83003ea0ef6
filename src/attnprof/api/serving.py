"""Serving and attention's traffic, predicted: :func:`serving`, :func:`attention_io`, and the forms to read them in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from attnprof.analysis import attention_io as of_attention
from attnprof.analysis import serving as of_models
from attnprof.analysis.serving_rows import Serving as _Serving
from attnprof.api.report import Devices, specs
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units


class Serving(_Serving):
    """What serving a model costs, by device and batch. ``print(served)`` shows the table.

    ``units`` of the forms below are words as on the command line: ``"exact"``, ``"binary"``, ``"macs"``.
    """

    def to_table(self, *, units: str = "decimal", width: int | None = None) -> str:
        """A table for each device, in at most ``width`` columns (default: the terminal's)."""
        from attnprof.reports.predicted_serving import to_text

        return to_text(self, Units.parse(units), width)

    def to_markdown(self, *, units: str = "decimal") -> str:
        """The same with Markdown tables."""
        from attnprof.reports.predicted_serving import to_markdown

        return to_markdown(self, Units.parse(units))

    def to_csv(self) -> str:
        """One line for each device and batch; plain numbers."""
        from attnprof.reports.predicted_serving import to_csv

        return to_csv(self)

    def to_json(self) -> str:
        """Everything as JSON; counts are integers."""
        from attnprof.reports.predicted_serving import to_json

        return to_json(self)

    def __str__(self) -> str:
        return self.to_table()


class AttentionIO(of_attention.AttentionIO):
    """What attention moves on a device. ``print(found)`` shows it."""

    def __str__(self) -> str:
        from attnprof.reports.attention_io import to_text

        return to_text([self], Units())


def serving(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    phase: str = "decode",
    batch: int | Iterable[int] = 1,
    kv: int | None = None,
    prompt: int | None = None,
    dtype: str | None = None,
    device: Devices = None,
    model_type: str | None = None,
) -> Serving:
    """What serving the model of a Hugging Face ``config.json`` costs by batch, without the model and without torch.

    ``config`` is its path, that of its folder, or what is in it. A ``decode`` step makes one token of each sequence,
    which attends to ``kv`` tokens, itself included. A ``prefill`` reads ``prompt`` tokens of each (all ``kv`` unless
    given); others of the ``kv`` are cached. ``dtype`` is that of weights, cache and arithmetic: the config's unless
    given, or bfloat16 where it names none. ``device``: one or several, by name or as values; without one there are no
    times. ``model_type`` stands in where the config names none.

    FLOPs are those of matmuls, 2 per multiply-add; bytes are every weight once, keys and values once. Raises
    :class:`AttnprofError` in one sentence for anything that cannot be.
    """
    found = of_models.serving(
        config,
        phase=phase,
        batch=batch,
        kv=kv,
        prompt=prompt,
        dtype=dtype,
        devices=specs(device),
        model_type=model_type,
    )
    return Serving(**{field.name: getattr(found, field.name) for field in fields(found)})


def attention_io(
    *,
    T: int,  # noqa: N803 - symbols
    dh: int,
    device: str | DeviceSpec,
    dtype: str = "bfloat16",
    B: int = 1,  # noqa: N803
    H: int = 1,  # noqa: N803
    M: int | None = None,  # noqa: N803
) -> AttentionIO:
    """What attention over T tokens moves on a device, tile by tile or with its scores written out.

    B samples of H heads of width ``dh``. M elements fit on chip: as many of ``dtype`` as a unit of the device
    (an SM, a CU) has memory for, unless given. Raises :class:`AttnprofError` where the device does not say.
    """
    devices = specs(device)
    if len(devices) != 1:
        raise AttnprofError(f"attention's traffic is that of one device, not of {len(devices)}.")
    found = of_attention.attention_io(T=T, dh=dh, device=devices[0], dtype=dtype, B=B, H=H, M=M)
    return AttentionIO(**{field.name: getattr(found, field.name) for field in fields(found)})
