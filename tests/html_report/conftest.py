"""One browser for the tests of pages, and the pages they look at."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

import attnprof
from attnprof.api import Report
from html_report import browser as browsers
from html_report import pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, closed when the tests of this folder are done."""
    executable = browsers.executable()
    if executable is None:
        absent = f"no browser is installed: none of {', '.join(browsers.NAMES)} is on the path."
        if os.environ.get("ATTNPROF_REQUIRE_BROWSER"):
            pytest.fail(f"{absent} ATTNPROF_REQUIRE_BROWSER says that these tests must run.")
        pytest.skip(absent)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=browsers.FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="package")
def gpt() -> Report:
    """A training step of the example in bfloat16 on three devices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, arguments = runpy.run_path(str(ROOT / "examples" / "tiny_gpt.py"))["build"]()
        return attnprof.run(
            model.to(torch.bfloat16),
            arguments,
            backward=True,
            optimizer="adamw",
            device="h100-sxm,a100-80gb-sxm,mi300x",
        )
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def gpt_page(gpt: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt") / "report.html"
    gpt.to_html(path)
    return path


@pytest.fixture(scope="package")
def open_gpt(browser: Browser, gpt_page: Path) -> Iterator[browsers.Opened]:
    """The page of the example, open: for tests that only look at it."""
    with browsers.opened(browser, gpt_page) as found:
        yield found


@pytest.fixture(scope="package")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    pages.report(pages.hostile(), "h100-sxm").to_html(path)
    return path
