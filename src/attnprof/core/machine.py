"""What the operating system says of this machine: its name, processor, memory and caches."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PROCESSORS = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
_SIZES = {"K": 2**10, "M": 2**20, "G": 2**30}


def host() -> str:
    """The name of the machine in its network."""
    return platform.node() or "unnamed"


def processor() -> str:
    """The processor's model as the system names it, at the least its architecture."""
    for line in _read(_PROCESSORS).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return " ".join(value.split())
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """The logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """The memory that processes may fill, the limit of a container included; None where it is not known."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a name that this system does not have
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += [int(text) for path in _CGROUP_LIMITS if (text := _read(Path(path)).strip()).isdecimal()]
    return min((size for size in found if size > 0), default=None)


def last_level_cache_bytes() -> int | None:
    """All caches of the last level together, as several groups of cores may have one each; None if not known."""
    sizes: dict[tuple[int, str], int] = {}
    for folder in _CPUS.glob("cpu[0-9]*/cache/index*"):
        level = _read(folder / "level").strip()
        if level.isdecimal():
            sizes[int(level), _read(folder / "shared_cpu_list").strip()] = _size(_read(folder / "size"))
    last = max((level for level, _ in sizes), default=0)
    size = sum(size for (level, _), size in sizes.items() if level == last)
    return size or int(_sysctl("hw.l3cachesize") or _sysctl("hw.perflevel0.l2cachesize") or 0) or None


def _size(text: str) -> int:
    """``32768K`` in bytes; 0 for anything else."""
    match = re.fullmatch(r"(\d+)([KMG])", text.strip())
    return int(match[1]) * _SIZES[match[2]] if match else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    """What macOS says of itself; nothing on other systems."""
    if platform.system() != "Darwin":
        return ""
    import subprocess

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()
    return ""
