"""The tree is a module's repr with numbers, whatever the width."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.core.units import duration
from attnprof.hardware.catalog import device
from attnprof.reports.text import cells
from attnprof.reports.tree import to_tree
from attnprof.reports.view import View
from reports.traces import Hand, mm, stack, unknown


def body(text: str) -> list[str]:
    """The lines of the tree alone."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("Net(", "Sequential(")))
    return lines[start : lines.index("", start)]


def numbers(line: str) -> list[str]:
    """The cells of a line, which stand two spaces apart."""
    return re.split(r"  +", line.strip())[1:]


def test_the_modules_are_those_of_the_repr() -> None:
    """Names, classes, levels and brackets are torch's; what stands inside the brackets is ours."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5)))
    shown = body(attnprof.run(model, (torch.ones(4, 8),)).to_tree(width=120))
    plain = [re.sub(r"\((?!\w+\):).*", "(", line) for line in repr(model).splitlines()]
    assert [re.sub(r"\((?!\w+\):).*", "(", line) for line in shown] == plain
    assert "  (0): Linear(in_features=8, out_features=16)" in shown[1]
    first, product = 8 * 16 + 16, 2 * 4 * 8 * 16 + 4 * 16  # weights and bias; the product, and the bias added
    assert numbers(shown[1])[:2] == [f"{first} params", f"{product} FLOP"]
    assert shown[2].split("  ")[1].startswith("(1): ReLU()")


def test_equal_layers_are_one_line_as_torch_has_them() -> None:
    shown = body(to_tree(stack().report(), View.of(units="exact"), 100))
    names = [line.split("  ")[0] if line[0] != " " else re.split(r"  +", line.strip())[0] for line in shown]
    assert names == [
        "Net(",
        "(embed): Embedding()",
        "(h.[0-2]): 3 x Block(",
        "(up): Linear()",
        "(down): Linear()",
        ")",
        "(head (= embed)): Linear()",
        ")",
    ]
    assert numbers(shown[2])[:2] == [f"{3 * 2 * 128} params", f"{3 * 2 * (3 * 2 * 4 * 8 * 16):,} FLOP"]  # all three


def test_folded_siblings_are_numbered_as_in_a_repr() -> None:
    hand = Hand().add("x", "Linear").ran("x", mm(1, 1, 1))
    for i in range(3):
        hand.add(str(i)).ran(str(i), mm(4, 8, 16))
    assert any(line.startswith("  (0-2): 3 x Linear()") for line in body(to_tree(hand.report(), width=80)))


def test_hyperparameters_are_what_folded_layers_have_alike() -> None:
    hand = stack(2)
    for i, p in ((0, 0.1), (1, 0.2)):
        record = hand.trace.modules[hand.index(f"h.{i}.up")]
        record.hyperparameters = {"in_features": 8, "p": p, "bias": False, "of": None, "kernel": (3, 3), "mode": "a"}
    (line,) = [line for line in body(to_tree(hand.report(), width=120)) if "(up)" in line]
    assert "Linear(in_features=8, kernel=(3, 3), mode='a')" in line


def test_a_module_with_others_in_it_has_its_own_on_a_line() -> None:
    hand = stack(1)
    hand.trace.modules[hand.index("h.0")].hyperparameters = {"eps": 1e-5, "scale": float("inf"), "n": 10}
    shown = body(to_tree(hand.report(), width=120))
    block = next(i for i, line in enumerate(shown) if "Block(" in line)
    assert shown[block + 1] == "    eps=1e-05, scale=inf, n=10"


def test_what_is_no_module_has_its_name_alone() -> None:
    hand = stack(1, extra=1).ran(None, mm(2, 2, 2), "other").ran("(optimizer)", mm(2, 3, 2), "optimizer")
    shown = [line.strip().split("  ")[0] for line in body(to_tree(hand.report(), width=120))]
    assert {"(own ops)", "outside any module", "optimizer"} <= set(shown)
    assert "… 2 more" in [
        line.strip().split("  ")[0] for line in body(to_tree(stack().report(), View.of(top=1), width=120))
    ]


def test_rows_add_up() -> None:
    """Each line is the sum of the lines one level below it."""
    hand = stack(4, extra=2).ran(None, mm(2, 2, 2), "other").ran("", mm(3, 3, 3))
    shown = body(to_tree(hand.report(), View.of(units="exact"), 200))
    rows = [(len(line) - len(line.lstrip()), line) for line in shown if line.strip() != ")"]
    flops = [int(m[1].replace(",", "")) if (m := re.search(r"([\d,]+) FLOP", line)) else 0 for _, line in rows]
    checked = 0
    for i, (level, _) in enumerate(rows):
        below = []
        for j in range(i + 1, len(rows)):
            if rows[j][0] <= level:
                break
            if rows[j][0] == level + 2:
                below.append(flops[j])
        if below:
            assert flops[i] == sum(below)
            checked += 1
    assert checked == 4  # the model, its list, the three equal layers, the last one with ops of its own


def test_depth_phase_and_rows() -> None:
    report = stack().report()
    assert len(body(to_tree(report, View.of(depth=0), 80))) == 2
    assert "1 deeper level not shown: use --depth." in to_tree(report, View.of(depth=1), 80)
    assert body(to_tree(report, View.of(phase="backward", units="exact"), 80))[0].split()[-4:-2] == [
        f"{3 * 2 * 2 * 1024 + 6400:,}",
        "FLOP",
    ]
    with pytest.raises(AttnprofError, match='the tree shows modules, not by="op"'):
        attnprof.Report(stack().trace).to_tree(by="op")


def test_what_nobody_priced_comes_first() -> None:
    text = to_tree(stack().ran("head", unknown()).report(), width=120)
    assert text.index("no formula: mylib.mystery.default") < text.index("Net(")


@pytest.mark.parametrize("width", range(40, 201, 8))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    hand = stack(12).add("a_module_with_a_really_long_name_" + "x" * 80, "Linear", params={99: 7})
    hand.trace.modules[-1].hyperparameters = {"in_features": 10**9, "names": "中" * 60}
    hand.trace.modules[hand.index("h.3")].hyperparameters = {"long": "y" * 300}
    report = hand.ran(None, mm(512, 512, 512), "optimizer").report()
    for found in (report, on_a_device(hand)):
        lines = to_tree(found, width=width).splitlines()
        assert max(map(cells, lines)) <= width
        assert all("FLOP" in line for line in lines if " x Block(" in line)


def on_a_device(hand: Hand) -> attnprof.Report:
    report = attnprof.Report(hand.trace)
    report.devices = (device("h100-sxm"),)
    return report


def test_a_device_gives_times_which_stay_longest() -> None:
    report = on_a_device(stack())
    # 4 bytes an element: up and down and their two gradients in three layers, the head and its gradient
    up, down = 4 * (4 * 8 + 8 * 16 + 4 * 16), 4 * (8 * 4 + 4 * 16 + 8 * 16)
    head = 4 * (4 * 8 + 8 * 100 + 4 * 100) + 4 * (4 * 100 + 100 * 8 + 4 * 8)
    bandwidth = device("h100-sxm").bandwidth_bytes_per_s
    assert bandwidth is not None
    least = duration((3 * 2 * (up + 2 * down) + head) / bandwidth)
    assert numbers(body(to_tree(report, width=120))[0])[-1] == f"{least} memory"
    assert "memory" not in body(to_tree(stack().report(), width=120))[0]
    narrow = body(to_tree(report, width=64))[0]
    assert "FLOP" in narrow
    assert "memory" in narrow
    assert "params" not in narrow


def test_a_saved_run_has_the_same_tree(tmp_path) -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    report = attnprof.run(model, (torch.ones(1, 3, 8),), backward=True)
    report.save(tmp_path / "run.json")
    assert attnprof.load(tmp_path / "run.json").to_tree(width=100) == report.to_tree(width=100)
