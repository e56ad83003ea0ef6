"""The page of a training step in a real browser: what it shows is the report, and its switches work."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from plotly.offline import get_plotlyjs

from attnprof.api import Report
from attnprof.core.units import Units, duration
from html_report.browser import DESKTOP, PHONE, Opened, opened

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DIGITS = Units(exact=True)


def exact(value: int, kind: str = "flops") -> str:
    return DIGITS.named(value, kind)  # type: ignore[arg-type]


def test_it_says_nothing_and_asks_for_nothing(open_gpt: Opened, gpt_page: Path) -> None:
    for section in ("shares", "roofline", "memory"):
        open_gpt.drawn(section)
    assert open_gpt.said == []
    assert open_gpt.asked == [gpt_page.as_uri()]


def test_the_file_names_nothing_to_load(gpt_page: Path) -> None:
    """Beside the library, which the policy keeps from loading anything, there is no address in it."""
    ours = html.unescape(gpt_page.read_text(encoding="utf-8").replace(get_plotlyjs(), ""))
    assert "http://" not in ours.replace("http://www.w3.org/", "")
    assert "https://" not in ours
    assert "default-src 'none'" in ours


def test_tiles_are_the_report(open_gpt: Opened, gpt: Report) -> None:
    total, memory, roofline = gpt.total, gpt.memory, gpt.roofline
    assert memory is not None
    assert roofline is not None
    assert open_gpt.tile("Matmul FLOPs").locator(".big").get_attribute("title") == exact(total.matmul_flops, "matmul")
    assert open_gpt.tile("Bytes moved").locator(".big").get_attribute("title") == exact(total.bytes, "bytes")
    assert open_gpt.tile("Peak memory").locator(".big").get_attribute("title") == exact(memory.peak.bytes, "bytes")
    best = open_gpt.tile("At best on h100-sxm").locator(".big")
    assert best.inner_text() == duration(roofline.total.attainable.seconds)
    assert open_gpt.tile("Residual to theory").locator(".big").get_attribute("title") == exact(0)
    assert open_gpt.tile("Coverage").locator(".big").inner_text() == "100%"
    by_phase = open_gpt.tile("Matmul FLOPs").locator(".legend li").all_inner_texts()
    named = Units().named
    assert [text.split("\n") for text in by_phase] == [
        [phase, named(cost.matmul_flops, "matmul")] for phase, cost in gpt.phases.items() if cost.matmul_flops
    ]


def test_every_module_has_the_numbers_of_the_json(browser: Browser, gpt_page: Path, gpt: Report) -> None:
    """Every row of the unfolded tree against ``to_json``, by what hovering shows: each digit."""
    modules = {m["module"]: m for m in json.loads(gpt.to_json())["modules"]}
    with opened(browser, gpt_page, (1280, 3000)) as found:
        found.press("Layers", "Every layer")
        found.press("Columns", "All")
        for _ in range(4):
            found.page.get_by_role("button", name="One level more").click()
        cells = found.page.evaluate(READ, "#grid-layers")
        rows = {row["label"]: row for row in cells if "(own ops)" not in row["label"]}
        seen = 0
        for fqn, module in modules.items():
            row = rows.get(f"{fqn} · {module['class']}" if fqn else module["class"])
            if row is None:
                continue  # scrolled out of view, or the optimizer: it has no name of its own
            seen += 1
            assert row["matmul"] == exact(module["total_matmul_flops"], "matmul")
            assert row["matmul-backward"] == exact(module["backward_matmul_flops"], "matmul")
            assert row["vector"] == exact(module["total_vector_flops"])
            assert row["read"] == exact(module["total_read_bytes"], "bytes")
            assert row["written"] == exact(module["total_write_bytes"], "bytes")
            assert row["saved"] == exact(module["saved_bytes"], "bytes")
            best = float(row["best"].removesuffix(" s") or 0)
            assert best == module["h100-sxm_attainable_s"]
        assert seen > 30
        rows_in_all = int(found.page.locator("#grid-layers").get_attribute("aria-rowcount") or 0) - 1
        assert found.rows("layers").count() < rows_in_all
        found.page.evaluate("dispatchEvent(new Event('beforeprint'))")  # on paper every row is there
        assert found.rows("layers").count() == rows_in_all
        found.press("Columns", "Overview")
        found.page.set_viewport_size({"width": 760, "height": 1000})  # a sheet of A4, with margins
        found.page.emulate_media(media="print")
        found.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")  # charts follow the width


#: What the rows of a table that are elements now show on hover, by column.
READ = """(grid) => [...document.querySelectorAll(`${grid} tr[data-index]`)].map((row) => Object.fromEntries(
  [...row.children].map((cell) => [cell.dataset.column, cell.title])))"""


def test_sorting(open_gpt: Opened) -> None:
    page = open_gpt.page
    header = page.locator("#grid-ops [data-sort='calls']")
    header.click()

    def calls() -> list[int]:
        texts = [row["calls"] for row in page.evaluate(READ, "#grid-ops")]
        return [int(text.replace(",", "")) for text in texts]

    first = calls()
    assert first == sorted(first, reverse=True)
    assert len(set(first)) > 3
    assert page.locator("#grid-ops th[aria-sort='descending']").inner_text().startswith("calls")
    page.locator("#grid-ops [data-sort='calls']").click()
    assert calls() == sorted(first)
    page.locator("#grid-ops [data-sort='matmul']").click()
    assert open_gpt.labels("ops")[0] == "aten.mm.default"


def test_sorting_the_tree_keeps_rows_below_theirs(open_gpt: Opened) -> None:
    open_gpt.page.get_by_role("button", name="Collapse").click()
    open_gpt.page.locator("#grid-layers [data-sort='params']").click()
    assert open_gpt.labels("layers")[:3] == ["TinyGPT", "h.[0-11] x12", "wte"]
    for _ in range(2):
        open_gpt.page.locator("#grid-layers [data-sort='params']").click()
    assert open_gpt.labels("layers")[:4] == ["TinyGPT", "(own ops)", "wte", "wpe"]


def test_rows_open_and_are_found(browser: Browser, gpt_page: Path, gpt: Report) -> None:
    with opened(browser, gpt_page) as found:
        page = found.page
        assert found.labels("ops")[0] == "aten.mm.default"
        found.rows("ops").first.locator(".twisty").click()
        shapes = page.locator("#grid-ops tr[aria-level='2']")
        calls = [
            int(text) for text in page.locator("#grid-ops tr[aria-level='2'] [data-column=calls]").all_inner_texts()
        ]
        assert sum(calls) == gpt.operator_calls()["aten.mm.default"]
        assert "bfloat16[256,8192]" in "".join(shapes.locator("th").all_inner_texts())
        # a comparison opens to its terms
        page.get_by_label("Find a module").fill("lm_head")
        page.locator("#grid-theory .twisty.shut").first.click()
        assert page.locator("#grid-theory tr[aria-level='2'] .label").all_inner_texts()
        assert page.locator("#grid-theory [data-column=residual] .differs").count() == 0
        # layers are found by name
        page.get_by_label("Find a layer").fill("qkv")
        assert found.labels("layers") == ["TinyGPT", "h.[0-11] x12", "attn", "qkv"]
        assert page.locator("#layers .count").inner_text() == "1 match"
        assert found.said == []


def test_keys_move_open_and_close(browser: Browser, gpt_page: Path) -> None:
    with opened(browser, gpt_page) as found:
        page, grid = found.page, found.page.locator("#grid-layers")
        page.get_by_role("button", name="Collapse").click()
        active = page.locator("#grid-layers tr.active")
        assert grid.get_attribute("role") == "treegrid"
        page.locator("#grid-layers thead button").first.focus()
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.id") == "grid-layers"
        assert active.locator(".label").inner_text() == "TinyGPT"
        for _ in range(4):
            page.keyboard.press("ArrowDown")
        assert active.locator(".label").inner_text() == "h.[0-11] x12"
        assert active.get_attribute("aria-expanded") == "false"
        page.keyboard.press("ArrowRight")
        assert active.get_attribute("aria-expanded") == "true"
        page.keyboard.press("ArrowRight")
        assert active.get_attribute("aria-level") == "3"
        assert grid.get_attribute("aria-activedescendant") == active.get_attribute("id")
        page.keyboard.press("ArrowLeft")
        assert active.locator(".label").inner_text() == "h.[0-11] x12"
        page.keyboard.press("ArrowLeft")
        assert active.get_attribute("aria-expanded") == "false"
        page.keyboard.press("End")
        assert active.locator(".label").inner_text() == "optimizer"
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert found.labels("layers") == ["TinyGPT"]
        assert found.said == []


def test_every_control_is_reached_by_tab(open_gpt: Opened) -> None:
    """Links, buttons, fields and tables all take the focus, and it can be seen."""
    page = open_gpt.page
    left_out = page.evaluate("""() => [...document.querySelectorAll('a[href], button, select, input, table.grid')]
        .filter((one) => one.tabIndex < 0 || !one.getClientRects().length).map((one) => one.outerHTML)""")
    assert left_out == []
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.locator("#bar a").first.focus()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_names_of_controls(open_gpt: Opened) -> None:
    """A screen reader has a name for everything that can be used, and tables have headings."""
    nameless = open_gpt.page.evaluate("""() => [
        ...document.querySelectorAll('button, select, input, table, nav, [role=img]')].filter((one) => !(
        one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length || one.caption
    )).map((one) => one.outerHTML)""")
    assert nameless == []
    assert open_gpt.page.locator("thead th:not([scope=col])").count() == 0
    assert open_gpt.page.locator("tbody th:not([scope=row])").count() == 0


def test_switching_quantities_and_charts(browser: Browser, gpt_page: Path) -> None:
    with opened(browser, gpt_page) as found:
        found.drawn("shares")
        chart = found.page.locator("#shares .plot")

        def labels() -> str:
            return " ".join(chart.locator(".slicetext").all_text_contents())

        assert chart.locator(".iciclelayer .slice").count() > 5
        flops = labels()
        assert "h.[0-11] x12" in flops
        assert "84%" in flops  # as the table has it
        found.press("Kind of chart", "Treemap")
        assert chart.locator(".treemaplayer .slice").count() > 5
        assert chart.locator(".iciclelayer .slice").count() == 0
        found.press("Quantity", "Bytes")
        assert labels() != flops
        assert "optimizer" in labels()  # which moves bytes and has no matmuls
        found.page.get_by_label("Look into a module").select_option(label="h.[0-11] x12")
        assert found.page.locator(".crumbs button").all_inner_texts() == ["TinyGPT", "h.[0-11] x12"]
        assert "optimizer" not in labels()
        assert found.said == []


def test_choosing_a_device_a_phase_and_units(browser: Browser, gpt_page: Path, gpt: Report) -> None:
    with opened(browser, gpt_page) as found:
        found.drawn("roofline")
        found.press("Device", "mi300x")
        seconds = gpt.rooflines[2].total.attainable.seconds
        assert found.tile("At best on mi300x").locator(".big").inner_text() == duration(seconds)
        assert float(found.cell("layers", "TinyGPT", "best").removesuffix(" s")) == seconds
        assert found.page.locator("#roofline .said").first.inner_text().startswith("mi300x: at best")
        found.page.locator("#roofline .plot .point").first.hover(force=True)
        text = found.page.locator("#roofline .hoverlayer").text_content() or ""
        assert "FLOP/B" in text
        assert "of the time" in text
        # the phase and the units hold everywhere
        found.page.get_by_label("Phase", exact=True).select_option("backward")
        backward = gpt.phases["backward"]
        assert found.cell("layers", "TinyGPT", "matmul") == exact(backward.matmul_flops, "matmul")
        mm = gpt.by_operator("backward")["aten.mm.default"].matmul_flops
        assert found.cell("ops", "aten.mm.default", "matmul") == exact(mm, "matmul")
        found.page.get_by_label("Units", exact=True).select_option("exact")
        text = found.rows("layers").first.locator("[data-column=matmul]").inner_text()
        assert text.strip() == f"{backward.matmul_flops:,}"
        found.page.get_by_label("Count", exact=True).select_option("mac")
        half = backward.matmul_flops // 2
        assert found.rows("layers").first.locator("[data-column=matmul]").inner_text().strip() == f"{half:,}"


def test_the_peak_is_marked(open_gpt: Opened, gpt: Report) -> None:
    assert gpt.memory is not None
    open_gpt.drawn("memory")
    peak = Units().named(gpt.memory.peak.bytes, "bytes")
    assert f"peak {peak}" in open_gpt.page.locator("#memory .annotation").all_text_contents()


#: Whether all of a column can be seen without scrolling its table: what matters most, on a phone as well.
IN_VIEW = """([grid, head]) => {
  const table = document.querySelector(grid);
  const edge = table.parentElement.getBoundingClientRect().right;
  return table.querySelector(head).closest("th").getBoundingClientRect().right <= edge + 1;
}"""


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_fits_and_is_pictured(
    browser: Browser, gpt_page: Path, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    """No page is wider than its window. ``UPDATE_DOCS=1`` puts the pictures into the documents."""
    with opened(browser, gpt_page, size, scheme) as found:
        page = found.page
        for section in ("shares", "roofline", "memory"):
            found.drawn(section)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for grid, column in {"layers": "time-share", "ops": "time-share", "theory": "residual"}.items():
            assert page.evaluate(IN_VIEW, [f"#grid-{grid}", f"[data-sort='{column}']"]), grid
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) > 3 * 128
        assert light == (scheme == "light")
        part = {("light", DESKTOP): "top", ("dark", DESKTOP): "memory"}.get((scheme, size), "layers")
        page.locator(f"#{part}").evaluate("(one) => one.scrollIntoView()")
        picture = page.screenshot()
        name = f"report-{'phone-' if size == PHONE else ''}{scheme}.png"
        if os.environ.get("UPDATE_DOCS"):
            IMAGES.mkdir(exist_ok=True)
            (IMAGES / name).write_bytes(picture)
        assert _size(picture) == size
        assert _size((IMAGES / name).read_bytes()) == size
        assert found.said == []


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, as the header of a PNG file has them."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_the_theme_can_be_chosen(open_gpt: Opened) -> None:
    page: Page = open_gpt.page
    page.get_by_label("Theme", exact=True).select_option("dark")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.get_by_label("Theme", exact=True).select_option("auto")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_without_scripts_the_table_is_there(browser: Browser, gpt_page: Path, gpt: Report) -> None:
    with opened(browser, gpt_page, java_script_enabled=False) as found:
        text = found.page.locator("noscript pre").inner_text()
        assert text.strip() == gpt.to_table(width=120).strip()


def test_paper_is_light(browser: Browser, gpt_page: Path) -> None:
    with opened(browser, gpt_page, scheme="dark") as found:
        page = found.page
        found.drawn("memory")

        def inks() -> tuple[str, str]:
            """The colour of the text, and of the axes' titles of a chart."""
            title = page.locator("#memory .ytitle").first
            return page.evaluate("getComputedStyle(document.body).color"), title.evaluate("(one) => one.style.fill")

        dark = inks()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print", color_scheme="dark")
        assert inks() == ("rgb(0, 0, 0)", "rgb(29, 31, 35)") != dark  # print's black, and the light theme's text
        legends = [page.locator(f"#{section} .legend").first for section in ("shares", "roofline", "memory")]
        assert all(legend.is_visible() for legend in legends)  # what the colours are
        page.emulate_media(media="screen", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert inks() == dark
        assert found.said == []
