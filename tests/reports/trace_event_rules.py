"""The rules of Chrome's Trace Event Format that viewers insist on, written from the format's description.

Times are read as Perfetto reads them: microseconds, times 1000, what is behind the point cut off.
"""

from __future__ import annotations

import json
from typing import Any

_THREAD_METADATA = {"thread_name": "name", "thread_sort_index": "sort_index"}
_METADATA = {"process_name": "name", **_THREAD_METADATA}


def refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def nanoseconds(value: Any) -> int:
    assert type(value) in (int, float), f"{value!r} is no time"
    return int(value * 1000)


def events(text: str) -> list[dict[str, Any]]:
    """The events of a trace, once it is clear that they follow the rules."""
    content = json.loads(text, parse_constant=refuse)
    assert content["displayTimeUnit"] in ("ms", "ns")
    found: list[dict[str, Any]] = content["traceEvents"]
    check(found)
    return found


def check(found: list[dict[str, Any]]) -> None:
    named: set[tuple[int, int]] = set()
    drawn: set[tuple[int, int]] = set()
    opened: dict[tuple[int, int], list[int]] = {}
    now = 0
    for event in found:
        assert isinstance(event["name"], str), event
        assert event["name"], event
        assert type(event["pid"]) is int, event
        assert isinstance(event.get("args", {}), dict), event
        if event["ph"] == "M":
            assert _METADATA[event["name"]] in event["args"], event
            if event["name"] in _THREAD_METADATA:
                named.add((event["pid"], event["tid"]))
            continue
        start = nanoseconds(event["ts"])
        assert start >= now, f"{event} is before what comes before it"
        now = start
        if event["ph"] == "C":
            assert event["args"], event
            assert all(type(value) in (int, float) for value in event["args"].values()), event
        elif event["ph"] == "i":
            assert event["s"] in ("g", "p", "t"), event
            drawn |= {(event["pid"], event["tid"])} if event["s"] == "t" else set()
        else:
            assert event["ph"] == "X", event
            track = event["pid"], event["tid"]
            drawn.add(track)
            length = nanoseconds(event["dur"])
            assert length > 0, event
            around = opened.setdefault(track, [])
            while around and around[-1] <= start:
                around.pop()
            assert not around or start + length <= around[-1], f"{event} ends after what is around it"
            around.append(start + length)
    assert drawn <= named, "a track without a name"


def slices(found: list[dict[str, Any]], category: str) -> list[dict[str, Any]]:
    return [event for event in found if event.get("cat") == category]


def paths(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of every op call in order: its track, the slices that it lies in, and its name."""
    tracks = {event["tid"]: event["args"]["name"] for event in found if event["name"] == "thread_name"}
    opened: dict[int, list[tuple[int, str]]] = {}
    result = []
    for event in found:
        if event["ph"] != "X":
            continue
        start = nanoseconds(event["ts"])
        around = opened.setdefault(event["tid"], [])
        while around and around[-1][0] <= start:
            around.pop()
        around.append((start + nanoseconds(event["dur"]), event["name"]))
        if event["cat"] == "op":
            result.append((tracks[event["tid"]], *(name for _, name in around)))
    return result
