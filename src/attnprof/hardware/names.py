"""Which device a name means: its id, an alias, or what a driver reports. Never the nearest one instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, closest

#: Words that tell no two devices of the table apart: makers and their brands.
_BRANDS = {
    "nvidia",
    "tesla",
    "geforce",
    "amd",
    "instinct",
    "radeon",
    "intel",
    "r",
    "habana",
    "google",
    "aws",
    "apple",
    "gpu",
}
#: What people call the machine they sit at; no device of the table has such a name.
_HERE = {"cpu", "cuda", "gpu", "local", "localhost", "host", "mps"}
_SIZE = re.compile(r"\b(\d+) ?(?:g|gb|gib)\b")


def match(name: str, devices: Sequence[DeviceSpec]) -> DeviceSpec:
    """The one device a name means.

    Case, separators and brands do not matter, and a name may add what the device is anyway ("NVIDIA H100
    PCIe 80GB"). The longest known name decides, and a word that is not the device's own ("Laptop", "SUPER",
    "MIG") makes it another device. A name that several devices share is an error that lists them.
    """
    for device in devices:
        if _words(name) in [_words(known) for known in _names(device)]:
            return device
    asked = _telling(name)
    family = [device for device in devices if set(asked) <= set(_telling(device.id))]
    if len(family) < 2:
        found = _longest(asked, devices)
        if len(found) == 1:
            return found[0]
    variants = [device for device in devices if asked and set(asked) <= _vocabulary(device)]
    if len(variants) > 1:
        ids = [device.id for device in variants]
        raise AttnprofError(f'"{name}" is several devices: {", ".join(ids[:-1])} or {ids[-1]}.')
    if not variants and len(same := _without_separators(asked, devices)) == 1:
        return same[0]
    if name.strip().casefold() in _HERE:
        raise AttnprofError(
            f'unknown device "{name}". `attnprof calibrate` measures this machine, the device "this" then.'
        )
    known = [device.id for device in variants or devices]
    close = f" Did you mean {known[0]}?" if variants else closest("-".join(asked), known)
    raise AttnprofError(f'unknown device "{name}".{close} `attnprof devices` lists all {len(devices)}.')


def _longest(asked: Sequence[str], devices: Sequence[DeviceSpec]) -> list[DeviceSpec]:
    """The devices with the longest name inside the one asked for, if the rest of it is true of them."""
    fitting: list[tuple[int, DeviceSpec]] = []
    for device in devices:
        inside = [len(words) for known in _names(device) if (words := set(_telling(known))) and words <= set(asked)]
        if inside and set(asked) <= _vocabulary(device):
            fitting.append((max(inside), device))
    most = max((length for length, _ in fitting), default=0)
    return [device for length, device in fitting if length == most]


def _without_separators(asked: Sequence[str], devices: Sequence[DeviceSpec]) -> list[DeviceSpec]:
    """The devices with this name written in one word, or in others: ``h100sxm``, ``rtx4090``."""
    return [device for device in devices if "".join(asked) in ["".join(_telling(known)) for known in _names(device)]]


def _names(device: DeviceSpec) -> tuple[str, ...]:
    return (device.id, *device.aliases, *device.reported_as)


def _vocabulary(device: DeviceSpec) -> set[str]:
    """Every word that is true of a device, its memory size included."""
    size = f"{device.memory_bytes // 2**30}gb" if device.memory_bytes else ""
    described = (*_names(device), device.product, device.form_factor, size)
    return {word for text in described for word in _telling(text)}


def _telling(text: str) -> list[str]:
    return [word for word in _words(text) if word not in _BRANDS]


def _words(text: str) -> list[str]:
    """``NVIDIA A100-SXM4-80 GB`` as nvidia, a100, sxm4, 80gb."""
    plain = re.sub(r"[^a-z0-9.]+", " ", text.casefold()).strip()
    return _SIZE.sub(r"\1gb", plain).split()
