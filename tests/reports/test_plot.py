"""The roofline plot: what it says is true, what it draws keeps apart, and the file is the same every time."""

from __future__ import annotations

import warnings
from math import hypot, isclose
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnprof
from attnprof.analysis.report import Report
from attnprof.core.errors import AttnprofError
from attnprof.hardware.overrides import override
from attnprof.reports import pictures, plot
from attnprof.reports.plot_figure import draw
from attnprof.reports.plot_labels import Box, Disc, place
from attnprof.reports.plot_panels import panels, title
from reports.devices import BANDWIDTH, PEAK, peak, round_device
from reports.traces import Hand, mm, stack, unknown

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
#: Mathtext, markup, long names, right to left, no glyph in the font, control characters.
HOSTILE = [r"$\frac{1$", "<b>&amp;", "x" * 300, "\u202eabc", "سلام", "層", "a\nb\x00", "_^{", "%d %s", "\\"]


def on(hand: Hand, *devices: object) -> Report:
    report = Report(hand.trace)
    report.devices = devices or (round_device(),)  # type: ignore[assignment]
    return report


def saved(report: Report, path: Path) -> bytes:
    return plot.save(report, report.rooflines, path).read_bytes()


# What it says


def test_marks_are_the_lowest_rows_and_make_up_the_whole() -> None:
    hand = stack(12).ran("h.3", mm(5, 5, 5)).ran(None, mm(2, 2, 2), "optimizer").ran("head", unknown())
    report = on(hand)
    (panel,) = panels(report, report.rooflines)
    labels = [mark.label for mark in panel.marks]
    assert len(labels) == len(set(labels))
    # the products of the layers are alike: up and down of three folded layers, of h.3, and of the eight others
    assert {"h.[0-2].up + 5 more", "h.3 (own ops)", "head", "outside any module"} == set(labels)
    assert isclose(sum(mark.share for mark in panel.marks), 1)  # of floats, added in another order
    assert panel.left_out == ""


def test_no_mark_is_above_its_roofs() -> None:
    report = on(stack())
    (panel,) = panels(report, report.rooflines)
    assert [(roof.label, roof.flops_per_s) for roof in panel.roofs] == [("float32 matmul", PEAK)]
    marks = {mark.label: mark for mark in panel.marks}
    for mark in marks.values():
        roof = min(PEAK, mark.intensity * BANDWIDTH)
        assert mark.flops_per_s <= roof or isclose(mark.flops_per_s, roof)  # a quotient of floats
    assert marks["head"].intensity == 6400 / 4928
    assert isclose(marks["head"].flops_per_s, PEAK)  # as above
    assert marks["head"].bound == "compute"
    assert marks["h.[0-2].up + 1 more"].bound == "memory"


def test_roofs_of_equal_peaks_are_one() -> None:
    device = round_device(peaks=(peak("vector", "float32", PEAK), peak("matmul", "float16", 4 * PEAK)))
    report = on(stack().ran("head", mm(4, 8, 16)), device)
    (panel,) = panels(report, report.rooflines)
    assert [(roof.label, roof.flops_per_s) for roof in panel.roofs] == [("float32 matmul", PEAK)]


def test_time_without_flops_has_no_mark_and_is_said() -> None:
    report = on(stack().add("vast").ran("vast", unknown(n=10**6)))
    (panel,) = panels(report, report.rooflines)
    assert "vast" not in {mark.label for mark in panel.marks}
    assert panel.left_out == "99.7% of the time moves bytes without FLOPs"  # 8 ms of 8.026


def test_a_panel_names_its_device_and_what_it_takes() -> None:
    report = on(stack(), round_device(), round_device("poor", peaks=()))
    first, second = panels(report, report.rooflines)
    assert (first.title, first.subtitle) == ("round", "at best 26.4 µs, 61% memory-bound")
    assert second.subtitle.startswith("at best more than ")
    assert second.roofs == ()
    assert title(report) == "Net · forward + backward"


# The file


@pytest.mark.parametrize("suffix", STARTS)
def test_the_same_run_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    report = on(stack(), round_device(), round_device("second", bandwidth_bytes_per_s=3 * BANDWIDTH))
    first = saved(report, tmp_path / f"one{suffix.upper()}")
    assert first.startswith(STARTS[suffix])
    assert saved(on(stack(), *report.devices), tmp_path / f"two{suffix}") == first


def test_settings_of_the_user_change_nothing_and_stay(tmp_path: Path) -> None:
    plain = saved(on(stack()), tmp_path / "plain.svg")
    own = {
        "axes.facecolor": "black",
        "font.size": 30.0,
        "axes.grid": False,
        "svg.fonttype": "none",
        "text.usetex": True,
    }
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        assert saved(on(stack()), tmp_path / "own.svg") == plain
        assert dict(matplotlib.rcParams) == before


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    hand = Hand("Net$_{")
    for index, name in enumerate(HOSTILE):
        hand.add(name).ran(name, mm(4, 8 + index, 16))
    report = on(hand, round_device("$dev_{"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in STARTS:
            assert saved(report, tmp_path / f"names{suffix}").startswith(STARTS[suffix])
    (panel,) = panels(report, report.rooflines)
    assert all(character.isprintable() for mark in panel.marks for character in mark.label)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_every_device_has_a_panel(count: int) -> None:
    devices = [round_device(f"device-{i}", bandwidth_bytes_per_s=BANDWIDTH * 4**i) for i in range(count)]
    report = on(stack(), *devices)
    figure = draw(title(report), panels(report, report.rooflines))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [next(text.get_text() for text in axes.texts if text.get_text()) for axes in shown] == [
        d.id for d in devices
    ]
    (across,) = {(axes.get_xlim(), axes.get_ylim()) for axes in shown}
    assert across[0][0] < across[0][1]


def test_a_run_without_work_has_an_empty_plot(tmp_path: Path) -> None:
    assert saved(on(Hand()), tmp_path / "empty.svg").startswith(STARTS[".svg"])


def test_rates_beyond_64_bits_are_drawn(tmp_path: Path) -> None:
    fast = override(round_device(), ["fp32=1e30", "vector:fp32=1e30"], "1e30")
    assert saved(on(stack(), fast), tmp_path / "fast.svg").startswith(STARTS[".svg"])


def test_texts_stay_in_the_picture() -> None:
    report = on(stack(12), round_device(), round_device("r" * 200))
    figure = draw(title(report), panels(report, report.rooflines))
    whole = figure.bbox
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text.get_text()
            assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text.get_text()


def test_a_report_draws_itself(tmp_path: Path) -> None:
    report = attnprof.Report(stack().trace)
    report.plot(tmp_path / "other.svg", device="h100-sxm,mi300x")
    assert report.devices == ()
    report.devices = (round_device(),)
    report.plot(tmp_path / "own.svg")
    assert (tmp_path / "own.svg").read_bytes() == saved(on(stack()), tmp_path / "saved.svg")
    assert (tmp_path / "other.svg").read_bytes() != (tmp_path / "own.svg").read_bytes()


# Wrong input


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x.gif", r'a plot is a \.png, \.svg or \.pdf file, not "\.gif"\.'),
        ("x", r'a plot is a \.png, \.svg or \.pdf file, and "x" ends in none of them\.'),
        (".png", r'and "\.png" ends in none of them'),
        ("nowhere/x.png", r"cannot write nowhere/x\.png: the folder nowhere does not exist\."),
    ],
)
def test_a_file_that_cannot_be_is_refused(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AttnprofError, match=sentence):
        plot.check(name, [round_device()])


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ([], "a roofline needs a device"),
        ([round_device()] * 10, "a plot has room for 9 devices, not for 10: name fewer"),
        (
            [round_device(bandwidth_bytes_per_s=None)],
            "round has no known bandwidth, so it has no roofline: --bandwidth",
        ),
    ],
)
def test_devices_that_have_no_plot(devices: list[object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AttnprofError, match=sentence):
        plot.check(tmp_path / "x.png", devices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ModuleNotFoundError("No module named 'matplotlib'"),
            r"plots need matplotlib: pip install 'attnprof\[plot\]'\.",
        ),
        (ImportError("built for another numpy"), "matplotlib cannot be loaded: built for another numpy"),
        (ValueError("'x' is not a valid value for backend"), "matplotlib cannot be loaded: 'x' is not a valid value"),
    ],
)
def test_without_matplotlib_it_says_how_to_get_it(
    error: Exception, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr(pictures.importlib, "import_module", fails)
    with pytest.raises(AttnprofError, match=sentence):
        plot.check(tmp_path / "x.png", [round_device()])


# Labels

coordinates = st.tuples(st.floats(50, 950), st.floats(50, 650), st.floats(2, 40))


@settings(deadline=None, max_examples=25)
@given(st.lists(coordinates, min_size=1, max_size=12))
def test_labels_keep_clear_of_everything(points: list[tuple[float, float, float]]) -> None:
    discs = [Disc(*point) for point in points]
    inside, taken = Box(0, 0, 1000, 700), [Box(0, 0, 120, 40)]
    lines = [(float(x), 0.6 * x) for x in range(0, 1000, 4)]
    labelled = discs[:8]
    found = place([(140.0, 18.0)] * len(labelled), discs, inside, taken, lines, [], 2.0)
    places = [there for there in found if there is not None]
    for index, there in enumerate(places):
        box = there.box
        assert inside.holds(box)
        assert not any(box.overlaps(other.box) for other in places[:index])
        assert not box.overlaps(taken[0])
        assert not any(box.has(*point) for point in lines)
        for disc in discs:
            near = box.nearest(disc.x, disc.y)
            assert hypot(disc.x - near[0], disc.y - near[1]) >= disc.radius
        for other in places:
            assert not (other.leader and other is not there and box.crossed_by(*other.leader))


def test_a_label_with_room_stands_beside_its_point() -> None:
    (found,) = place([(100.0, 20.0)], [Disc(500, 300, 10)], Box(0, 0, 1000, 700), [], [], [], 1.0)
    assert found is not None
    assert found.leader is None
    assert found.box == Box(513, 290, 613, 310)  # 3 points right of the rim, centred


def test_no_room_is_no_label() -> None:
    assert place([(100.0, 20.0)], [Disc(20, 20, 10)], Box(0, 0, 40, 40), [], [], [], 1.0) == [None]
