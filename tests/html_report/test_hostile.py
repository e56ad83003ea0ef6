"""Names that would do something if they were anything but text: they do nothing, and are shown as they are."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Browser
from plotly.offline import get_plotlyjs

from attnprof.reports.html.embedding import embedded
from attnprof.reports.text import printable
from html_report.browser import opened
from html_report.pages import HOSTILE


def test_names_do_nothing(browser: Browser, hostile_page: Path) -> None:
    with opened(browser, hostile_page) as found:
        page = found.page
        for section in ("shares", "roofline"):
            found.drawn(section)
        for _ in range(3):
            page.get_by_role("button", name="One level more").click()
        page.get_by_role("group", name="Kind of chart").get_by_role("button", name="Treemap").click()
        points = page.locator("#roofline .plot .point")
        for i in range(points.count()):
            points.nth(i).hover(force=True)
        assert page.evaluate("window.hit") is None
        assert page.locator("script").count() == 4  # the data, the library as text and as run, the page's own
        assert page.locator("img, iframe, object, main b:not(.legend b)").count() == 0
        assert page.locator("a:not([href^='#'])").count() == 0
        assert found.said == []
        assert found.asked == [hostile_page.as_uri()]


def test_names_are_shown_as_they_are(browser: Browser, hostile_page: Path) -> None:
    with opened(browser, hostile_page) as found:
        assert found.page.locator("h1").inner_text() == HOSTILE[0]
        assert found.page.title() == f"{HOSTILE[0]} · attnprof"
        labels = found.labels("layers")
        for name in HOSTILE:
            assert printable(name.replace(".", "·")) in labels
        assert any("\\u202e" in label for label in labels)  # what would turn the text around is written out
        notes = found.page.locator(".warning li").all_inner_texts()
        assert notes[: len(HOSTILE)] == [printable(name) for name in HOSTILE]
        assert HOSTILE[1] in found.page.locator("#about").inner_text()


def test_data_never_leaves_its_element() -> None:
    """No character in it can end the element or begin a comment, and it reads back as the names as they are shown."""
    text = embedded({"names": list(HOSTILE), "<key>": 2**53, "n": 2**53 - 1})
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert json.loads(text) == {
        "names": [printable(name) for name in HOSTILE],
        "<key>": str(2**53),  # larger than a double's whole numbers: digits
        "n": 2**53 - 1,
    }


def test_the_page_has_no_invisible_characters(hostile_page: Path) -> None:
    ours = hostile_page.read_text(encoding="utf-8")
    ours = ours.replace(get_plotlyjs(), "")
    assert [c for c in ours if not c.isprintable() and c != "\n"] == []
