"""The devices attnprof knows, and those a user describes in a file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.hardware import calibrated, files, names

_FILES = (".json", ".toml")


@cache
def devices() -> tuple[DeviceSpec, ...]:
    """Every known device, by vendor and id."""
    return tuple(sorted(files.shipped(), key=lambda device: (device.vendor, device.id)))


def device(name: str) -> DeviceSpec:
    """The device of a name: an id (``h100-sxm``), an alias, or what a driver reports (``NVIDIA H100 80GB HBM3``).

    A name that ends in .json or .toml is a file that describes a device; ``this`` is the machine itself, once
    it is calibrated. A name of several devices, or of none, is an :class:`AttnprofError` with the closest
    names: no device stands in for another.
    """
    if not isinstance(name, str) or not name.strip():
        raise AttnprofError(f"a device is a name such as h100-sxm, not {name!r}; `attnprof devices` lists them all.")
    if name.strip().lower() == calibrated.THIS:
        return calibrated.read()
    path = Path(name)
    if path.suffix.lower() in _FILES:
        return files.read(path, lambda known: names.match(known, devices()))
    return names.match(name, devices())
