"""Names that look like something else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import attnprof
from attnprof.reports.rows import branches


class Odd(nn.Module):
    """Its first child has the name of the row for a module's own ops."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("(own ops)", nn.Linear(4, 4))
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.get_submodule("(own ops)")(x))


def test_a_module_called_own_ops_counts() -> None:
    report = attnprof.run(Odd(), (torch.ones(2, 4),))
    assert branches(report).total == report.total


def test_names_with_leading_zeros_are_not_folded() -> None:
    model = nn.ModuleDict({"0": nn.Linear(4, 4), "01": nn.Linear(4, 4)})
    with attnprof.profile(model) as prof:
        for layer in model.values():
            layer(torch.ones(2, 4))
    names = [branch.name for branch in branches(prof.report()).children]
    assert names[:2] == ["0", "01"]


def test_a_run_of_views_ran() -> None:
    with attnprof.profile() as prof:
        torch.ones(4, device="meta").view(2, 2)
    report = prof.report()
    assert "nothing ran" not in str(report)
    assert report.ran == {"other"}


def test_escapes_in_a_saved_version_do_nothing() -> None:
    report = attnprof.run(nn.Linear(2, 2), (torch.ones(1, 2),))
    report.trace.meta["torch"] = "\x1b[31m2.0\nfoo"
    assert "\x1b" not in str(report)


def test_a_number_is_no_name_in_a_sentence() -> None:
    """The members of a Sequential are named by its class: "the inputs of 0" would be read as a count."""
    report = attnprof.run(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), (torch.ones(2, 4),), backward=True)
    assert "because the inputs of Sequential.0 need no gradient" in " ".join(report.to_table(width=200).split())
    assert report.memory is not None
    peak = report.memory.peak.place
    assert peak is not None
    assert f"(at Sequential.{peak.module} aten." in " ".join(report.to_table().split())
    assert " in Sequential.0" in report.to_table(by="memory")
