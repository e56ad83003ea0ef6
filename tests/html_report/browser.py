"""Pages in a real browser: Debian's Chromium, headless, with all it says and asks for written down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page

#: What the browser may be called, in the order they are tried.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


def executable() -> str | None:
    """The first of the browsers that is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Opened:
    """A page that is open. ``said`` is what it wrote to the console or raised, ``asked`` every address it loaded."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def rows(self, grid: str) -> Locator:
        """The rows of a table that are elements now."""
        return self.page.locator(f"#grid-{grid} tr[data-index]")

    def labels(self, grid: str) -> list[str]:
        return self.page.locator(f"#grid-{grid} tbody th .label").all_inner_texts()

    def cell(self, grid: str, row: str, column: str) -> str:
        """The hover text of a cell, which has every digit, of the first row with this label."""
        found = self.page.locator(f"#grid-{grid} tbody tr").filter(has=self.page.get_by_text(row, exact=True)).first
        return str(found.locator(f"[data-column='{column}']").get_attribute("title"))

    def tile(self, title: str) -> Locator:
        return self.page.locator(f"[data-tile='{title}']")

    def press(self, group: str, name: str) -> None:
        """Press one of several buttons."""
        self.page.get_by_role("group", name=group, exact=True).get_by_role("button", name=name, exact=True).click()

    def drawn(self, section: str) -> None:
        """Bring a section into view, and wait until its chart is drawn."""
        self.page.locator(f"#{section}").scroll_into_view_if_needed()
        self.page.locator(f"#{section} .plot .main-svg").first.wait_for()


@contextmanager
def opened(
    browser: Browser, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light", **more: Any
) -> Iterator[Opened]:
    """The page of a file in a window of this size; a narrow one is a phone."""
    phone = size[0] < 500
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        is_mobile=phone,
        has_touch=phone,
        reduced_motion="reduce",
        **more,
    )
    page = context.new_page()
    page.set_default_timeout(60_000)  # milliseconds: a broken page fails, and does not hang
    found = Opened(page)
    page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (found.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: found.asked.append(request.url))
    try:
        page.goto(path.as_uri())
        yield found
    finally:
        context.close()
