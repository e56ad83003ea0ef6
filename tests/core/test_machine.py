"""What the operating system says of a machine, from files such as it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnprof.core import machine

MIB, GIB = 2**20, 2**30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(tmp_path / "limit"),))
    monkeypatch.setattr(machine, "_sysctl", lambda name: "")
    return tmp_path


def cache(folder: Path, cpu: int, level: int, size: str, shared: str) -> None:
    for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
        write(folder / f"cpu{cpu}" / "cache" / f"index{level}" / name, text)


def test_last_caches_of_all_groups_of_cores_add_up(folder: Path) -> None:
    """Four cores, of which two share a cache of 32 MiB each; private ones of a lower level are not the last."""
    for cpu in range(4):
        cache(folder, cpu, 2, "1024K", str(cpu))
        cache(folder, cpu, 3, "32768K", "0-1" if cpu < 2 else "2-3")
    assert machine.last_level_cache_bytes() == 2 * 32 * MIB


def test_last_caches_that_are_private_add_up(folder: Path) -> None:
    for cpu in range(3):
        cache(folder, cpu, 1, "64K", str(cpu))
        cache(folder, cpu, 2, "2M", str(cpu))
    assert machine.last_level_cache_bytes() == 3 * 2 * MIB


@pytest.mark.parametrize("size", ["", "a lot", "32"])
def test_a_cache_without_a_size_is_not_known(folder: Path, size: str) -> None:
    assert machine.last_level_cache_bytes() is None
    cache(folder, 0, 3, size, "0")
    assert machine.last_level_cache_bytes() is None


def test_caches_of_a_mac(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_sysctl", {"hw.perflevel0.l2cachesize": "12582912", "hw.l3cachesize": ""}.__getitem__)
    assert machine.last_level_cache_bytes() == 12 * MIB


def test_the_processor(folder: Path) -> None:
    assert machine.processor() != ""
    write(folder / "cpuinfo", "processor\t: 0\nmodel name\t: An  EPYC  Processor\nmodel name\t: another")
    assert machine.processor() == "An EPYC Processor"


def test_memory_is_at_most_what_a_container_may_take(folder: Path) -> None:
    whole = machine.memory_bytes()
    assert whole is not None
    write(folder / "limit", "max")
    assert machine.memory_bytes() == whole
    write(folder / "limit", str(whole // 2))
    assert machine.memory_bytes() == whole // 2
    write(folder / "limit", str(2**63))
    assert machine.memory_bytes() == whole


def test_there_is_a_core_and_a_name() -> None:
    assert machine.cores() >= 1
    assert machine.host()
