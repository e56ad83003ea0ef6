"""Whole reports, compared whole. ``UPDATE_GOLDEN=1 pytest tests/reports/test_golden.py`` writes them anew.

The files guard the form: where a number stands, what surrounds it. The numbers themselves are derived below, and in
the tests of what makes them.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attnprof.analysis.report import Report
from attnprof.hardware.catalog import device
from attnprof.reports.forms import FORMS
from attnprof.reports.view import View
from reports.traces import Hand, mm, stack, unknown

FOLDER = Path(__file__).parent / "golden"
SUFFIXES = {"table": "txt", "tree": "tree.txt", "markdown": "md", "latex": "tex", "csv": "csv", "json": "json"}

#: Names that some form must escape.
HOSTILE = ("a|b`*_<i>[x](y)", r"c\d&e%f$g#h{i}~j^k", '=cmd()"q,r', "new\nline\u202e", "中文😀é", "\u03b1--\u03b2")


def folded() -> Report:
    """Equal layers, a tied head, a backward, and an op that nobody priced."""
    hand = stack().ran("head", unknown(), times=2)
    hand.trace.meta["torch"] = "2.13.0"
    for record in hand.trace.modules:
        if record.class_name == "Linear":
            record.hyperparameters = {"in_features": 8, "out_features": 16, "bias": False}
    return hand.report()


def hostile() -> Report:
    hand = Hand("Net[*]")
    for position, name in enumerate(HOSTILE):
        hand.add(name, "Lin|ear_").ran(name, mm(4, 8, 1 + position))
    hand.trace.notes.append("A note with 100% of <b>|everything|</b>_.")
    return hand.report()


def on_a_device() -> Report:
    report = stack(2).report()
    report.devices = (device("h100-sxm"),)
    return report


REPORTS: dict[str, Callable[[], Report]] = {"folded": folded, "hostile": hostile, "device": on_a_device}


@pytest.mark.parametrize("form", SUFFIXES)
@pytest.mark.parametrize("name", REPORTS)
def test_whole(name: str, form: str) -> None:
    text = FORMS[form].of(REPORTS[name](), View.of(), 100)
    path = FOLDER / f"{name}.{SUFFIXES[form]}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_there_is_no_other_file() -> None:
    expected = {f"{name}.{suffix}" for name in REPORTS for suffix in SUFFIXES.values()} | {"schema_versions.json"}
    assert {path.name for path in FOLDER.iterdir()} == expected


def test_the_numbers_in_them() -> None:
    """The files say what the ops amount to: 2 m k n FLOPs, 4 bytes an element."""
    data = json.loads((FOLDER / "folded.json").read_text(encoding="utf-8"))
    layers, up, head = 3, 2 * 4 * 8 * 16, 2 * 4 * 8 * 100
    assert data["phases"]["forward"]["matmul_flops"] == layers * 2 * up + head
    assert data["phases"]["backward"]["matmul_flops"] == layers * 2 * (2 * up) + head
    assert data["modules"][0]["parameters"] == 800 + layers * 2 * 128
    rows = list(csv.DictReader((FOLDER / "hostile.csv").read_text(encoding="utf-8").splitlines()))
    found = [int(row["forward_matmul_flops"]) for row in rows[-len(HOSTILE) :]]
    assert found == [2 * 4 * 8 * n for n in range(1, len(HOSTILE) + 1)]
    run = json.loads((FOLDER / "device.json").read_text(encoding="utf-8"))
    bandwidth = device("h100-sxm").bandwidth_bytes_per_s
    assert bandwidth is not None
    layer = 4 * (4 * 8 + 8 * 16 + 4 * 16)  # both factors read, the product written
    forward = 2 * 2 * layer + 4 * (4 * 8 + 8 * 100 + 4 * 100)
    # the sum of five quotients, each rounded, against one
    assert run["rooflines"][0]["phases"]["forward"]["attainable_s"] == pytest.approx(forward / bandwidth, rel=1e-12)
