"""Runs of every kind make a page: without memory, without a device, with nothing in it, cut short, generated, timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser
from torch import nn

import attnprof
from attnprof.api import Report
from attnprof.core.crosscheck import Cause, CheckedModule, Crosscheck, Part
from attnprof.core.device import DeviceSpec
from attnprof.core.timing import Durations, LayerTime, LayerTimes
from attnprof.core.units import Units
from html_report import pages
from html_report.browser import opened
from reports.held import Held
from reports.traces import Hand, mm, unknown


def nothing() -> Report:
    return pages.report(Hand("").trace)


def cut_short() -> Report:
    trace = pages.without_memory()
    trace.notes.insert(0, "Incomplete: the model was interrupted after 1 op call; this is what ran until then.")
    return pages.report(trace, "h100-sxm")


def unpriced() -> Report:
    return pages.report(Hand().add("a").ran("a", mm(2, 3, 4)).ran("a", unknown(), times=3).trace)


def without_bandwidth() -> Report:
    """A device of which nothing but its name is known."""
    made = pages.report(pages.without_memory())
    made.devices = (DeviceSpec("mystery", "Mystery", ""),)
    return made


def timed() -> Report:
    hand = Hand().add("a").add("b").ran("a", mm(64, 64, 64)).ran("b", mm(64, 64, 32))
    each = Durations.of([1_000_000, 1_100_000, 1_200_000])
    half = Durations.of([500_000, 550_000, 600_000])
    hand.trace.layer_times = LayerTimes(
        step=each,
        profiled=each,
        layers=(LayerTime(3, "forward", half),),
        accumulation=Durations.of([0, 0, 0]),
        unattributed=half,
    )
    return pages.report(hand.trace)


def with_peak() -> Report:
    held = Held(parameter=400).given("w", 400, "parameter").made("y", 600, "temporary", at=0)
    return pages.report(pages.with_memory(held.memory))


def stepped() -> Report:
    hand = Hand().add("a")
    for position, label in enumerate(("prefill", "decode 1", "decode 2")):
        hand.ran("a", mm(2, 3 + position, 4))
        hand.trace.steps.append(position + 1)
        hand.trace.step_labels[position] = label
    return pages.report(hand.trace, "h100-sxm")


def crosschecked() -> Report:
    """Another counter that leaves out one of the two FLOPs of a multiply-add, and says so."""
    made = pages.report(pages.without_memory())
    less = Cause("convention", "it counts multiply-adds", (Part("aten.mm.default", 1, -24),))
    modules = {name: CheckedModule(name, 2 * 2 * 3 * 4, 0, 24, 24, (less,)) for name in made.by_module()}
    made.crosschecks = (Crosscheck("fvcore", "FlopCountAnalysis", modules),)
    return made


def not_covered() -> Report:
    """A Linear that its formula covers, and a product of the model's own that no formula does."""
    model = Own()
    return attnprof.run(model, (torch.ones(4, 8),))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.a(x)
        return y @ y.T


def huge() -> Report:
    """Counts beyond what a double holds exactly."""
    return pages.report(Hand().add("a").ran("a", mm(2**21 + 1, 2**21 + 1, 2**21 + 1)).trace, "h100-sxm")


SHOWN: dict[Callable[[], Report], tuple[str, ...]] = {
    nothing: ("everything", "nothing ran", "No op with a cost ran.", "Memory was not tracked.", "No device was named."),
    cut_short: ("Incomplete: the model was interrupted", "At best on h100-sxm"),
    unpriced: ("Not everything has a price.", "3 of 4 op calls have no formula", '@attnprof.cost("mylib::mystery")'),
    without_bandwidth: ("mystery has no known bandwidth",),
    timed: ("Measured time", "between ops"),
    with_peak: ("1000 B", "At a aten.mm, forward."),
    stepped: ("prefill", "decode 2"),
    crosschecked: ("Cross-check with fvcore", "it counts multiply-adds (aten.mm -24)", "nothing is left unexplained"),
    not_covered: (
        "Residual to theory\n\n0 FLOP",
        f"Not predicted, for want of a formula: {Units().named(2 * 4 * 16 * 4, 'matmul')}.",
    ),
    huge: (f"{2 * (2**21 + 1) ** 3:,}",),
}


def test_residuals_are_highlighted(browser: Browser, tmp_path: Path) -> None:
    """A class that passes for a Linear and does its work twice: once more than the formula says."""

    def forward(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        nn.Linear.forward(self, x)
        return nn.Linear.forward(self, x)

    twice = type("Linear", (nn.Linear,), {"forward": forward, "__module__": nn.Linear.__module__})
    path = tmp_path / "report.html"
    attnprof.run(nn.Sequential(twice(8, 16)), (torch.ones(4, 8),)).to_html(path)
    once = Units(exact=True).named(2 * 4 * 8 * 16, "matmul")
    with opened(browser, path) as found:
        page = found.page
        assert found.labels("theory") == ["Sequential", "Sequential.0"]  # all that differs, and nothing else
        assert page.locator("#grid-theory tr.odd .differs").all_inner_texts()[0].split() == ["+1024", "FLOP"]
        assert found.cell("theory", "Sequential", "residual") == once
        assert found.tile("Residual to theory").locator(".big").get_attribute("title") == once
        assert page.locator("#grid-layers .differs").count() == 2
        found.rows("theory").last.locator(".twisty").click()
        assert found.labels("theory")[-1] == "aten.addmm.default x2"
        assert found.said == []


@pytest.mark.parametrize("make", SHOWN, ids=lambda make: make.__name__)
def test_it_makes_a_page(browser: Browser, tmp_path: Path, make: Callable[[], Report]) -> None:
    report = make()
    path = tmp_path / "report.html"
    report.to_html(path, units="exact" if make is huge else "decimal")
    with opened(browser, path) as found:
        text = found.page.locator("body").inner_text()
        for part in SHOWN[make]:
            assert part in text, part
        assert "NaN" not in text
        assert "undefined" not in text
        assert "Infinity" not in text
        if make in (nothing, without_bandwidth, with_peak):  # charts of nothing, without roofs, of few points
            found.drawn("memory" if make is with_peak else "roofline" if make is without_bandwidth else "shares")
        assert found.said == []


def test_ten_thousand_modules(browser: Browser, tmp_path: Path) -> None:
    """However many modules there are, the rows in view are all the elements there are, and every row can be reached."""
    path = tmp_path / "report.html"
    pages.report(pages.wide(10_000), "h100-sxm").to_html(path)
    with opened(browser, path) as found:
        page, grid = found.page, found.page.locator("#grid-layers")
        page.get_by_role("button", name="One level more").click()
        page.get_by_role("button", name="One level more").click()
        assert grid.get_attribute("aria-rowcount") == "10002"  # the modules, the whole, and the heading
        most = found.rows("layers").count()
        assert most < 100
        page.locator("#grid-layers [data-sort=matmul]").click()
        assert found.labels("layers")[1:3] == ["b99", "l99"]  # the largest products come last in the model
        grid.focus()
        page.keyboard.press("End")
        assert page.locator("#grid-layers tr.active .label").inner_text() == "l1"
        assert found.rows("layers").count() <= most
        page.get_by_label("Find a layer").fill("b42.l7")
        assert found.labels("layers")[:3] == ["Wide", "b42", "l7"]
        found.drawn("shares")
        assert page.locator("#shares .slice").count() < 3000
        found.drawn("roofline")
        assert page.locator("#roofline .point").count() <= 600
        assert found.said == []
