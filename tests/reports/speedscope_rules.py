"""The rules of speedscope's file format, written from its published JSON schema and the description of its fields."""

from __future__ import annotations

import json
from typing import Any

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
UNITS = {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}
_FILE = {"$schema", "shared", "profiles", "name", "activeProfileIndex", "exporter"}
_PROFILE = {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}


def profile(text: str) -> dict[str, Any]:
    """The one profile of a file, once it is clear that it follows the rules, with ``stacks`` of names and weights."""
    content = json.loads(text)
    check(content)
    (found,) = content["profiles"]
    names = [frame["name"] for frame in content["shared"]["frames"]]
    stacks = [tuple(names[index] for index in sample) for sample in found["samples"]]
    return {**found, "stacks": list(zip(stacks, found["weights"], strict=True))}


def check(content: dict[str, Any]) -> None:
    assert content["$schema"] == SCHEMA
    assert content.keys() <= _FILE
    frames = content["shared"]["frames"]
    assert all(frame.keys() <= {"name", "file", "line", "col"} for frame in frames)
    assert all(isinstance(frame["name"], str) for frame in frames)
    assert isinstance(content.get("name", ""), str)
    assert isinstance(content.get("exporter", ""), str)
    profiles = content["profiles"]
    assert 0 <= content.get("activeProfileIndex", 0) < len(profiles)
    used = set()
    for one in profiles:
        assert one["type"] == "sampled"
        assert one.keys() == _PROFILE
        assert isinstance(one["name"], str)
        assert one["unit"] in UNITS
        assert len(one["samples"]) == len(one["weights"])
        assert all(type(weight) in (int, float) for weight in one["weights"])
        assert all(weight >= 0 for weight in one["weights"])
        assert one["endValue"] >= one["startValue"]
        assert one["endValue"] - one["startValue"] == sum(one["weights"])
        for sample in one["samples"]:
            assert sample, "an empty stack"
            assert all(type(index) is int and 0 <= index < len(frames) for index in sample)
            used |= set(sample)
    assert used == set(range(len(frames))), "a frame that no stack has"
