"""One run, many forms: the same numbers in JSON, CSV, Markdown, LaTeX and the summary, whole and in parts."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.reports.view import SORTS

KINDS = ("matmul_flops", "vector_flops", "read_bytes", "write_bytes")


class Net(nn.Module):
    """Ids to logits, with names that every form has to escape."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        for name in ("a|b_$%&#{}~^\\*`<b>", "=cmd()", 'ü\u202e,"q'):
            self.add_module(name, nn.Linear(4, 4))
        self.head = nn.Linear(4, 10)

    def forward(self, ids: Tensor) -> Tensor:
        for child in self.children():
            ids = child(ids)
        return ids


IDS = (torch.zeros(2, 3, dtype=torch.int64),)
RUNS: dict[str, dict[str, Any]] = {
    "forward": {},
    "trained": {"optimizer": "adamw"},
    "generated": {"generate": 4},
    "without memory": {"backward": True, "memory": False},
    "on devices": {"backward": True, "device": "h100-sxm,mi300x"},
}


@pytest.fixture(params=RUNS)
def report(request: pytest.FixtureRequest) -> attnprof.Report:
    return attnprof.run(Net(), IDS, **RUNS[request.param])


def test_parts_add_up_in_json(report: attnprof.Report) -> None:
    data = json.loads(report.to_json())
    for kind in KINDS:
        whole = data["total"][kind]
        assert sum(phase[kind] for phase in data["phases"].values()) == whole
        assert sum(op[kind] for op in data["operators"].values()) == whole
        assert data["modules"][0][f"total_{kind}"] == whole
        assert sum(step[kind] for step in data["steps"]) == (whole if data["steps"] else 0)
    training, memory = data["training"], data["memory"]
    if training:
        reasons = sum(sum(reason["modules"].values()) for reason in training["reasons"])
        assert training["backward"] == 2 * training["forward"] + reasons
        assert training["recompute"] == data["phases"]["recompute"]["matmul_flops"]
    if memory:
        assert report.memory is not None
        assert sum(memory["peak"]["by_kind"].values()) == memory["peak"]["bytes"]
        assert max(point.bytes for point in report.memory.timeline) == memory["peak"]["bytes"]
        assert sum(memory["optimizer_states"].values()) == memory["optimizer_bytes"]
        assert data["modules"][0]["saved_bytes"] == memory["saved_bytes"]


def test_csv_has_the_numbers_of_json(report: attnprof.Report) -> None:
    """Those of each module, and what it was compared with."""
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    data = json.loads(report.to_json())
    names = ("module", "class", "aliases")  # escaped
    expected = []
    for module in data["modules"]:
        fields = {name: value for name, value in module.items() if name not in names}
        for phase in ("forward", "backward", "recompute"):
            compared = [
                c
                for c in data["comparisons"]
                if (c["module"], c["phase"], c["quantity"]) == (module["module"], phase, "matmul_flops")
            ]
            for what in ("predicted", "residual"):
                fields[f"{phase}_{what}_matmul_flops"] = compared[0][what] if compared else None
        expected.append({name: "" if value is None else str(value) for name, value in fields.items()})
    assert [{name: value for name, value in row.items() if name not in names} for row in rows] == expected


@pytest.mark.parametrize("view", [{}, {"units": "exact"}, {"depth": 0}, *({"sort": key, "top": 2} for key in SORTS)])
def test_markdown_and_latex_are_tables_of_the_same_cells(report: attnprof.Report, view: dict[str, Any]) -> None:
    if view.get("sort") == "time" and not report.devices:
        with pytest.raises(attnprof.AttnprofError, match="sorting by time needs a device"):
            report.to_markdown(**view)
        return
    markdown = [line for line in report.to_markdown(**view).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in markdown]
    latex = [line.rstrip()[:-2] for line in report.to_latex(**view).splitlines() if line.rstrip().endswith("\\\\")]
    others = [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in latex]
    assert len({len(row) for row in cells + others}) == 1
    body, other = ([row[1:] for row in rows] for rows in (cells[2:], others[1:]))  # below headings, beside names
    plain = {"--": "–", r"\textless{}0.1": "<0.1", "&lt;0.1": "<0.1"}
    assert [[plain.get(c, c) for c in row] for row in body] == [[plain.get(c, c) for c in row] for row in other]
