"""The pytest plugin: budgets as markers, a fixture, and a lock file of what runs cost.

pytest loads it in every project that has attnprof installed. It costs nothing there: torch, and all of attnprof
that counts, is imported by the first test that asks for a number.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from attnprof.pytest_plugin.options import MARKERS, add_options

if TYPE_CHECKING:
    from attnprof.pytest_plugin.fixture import Attnprof
    from attnprof.pytest_plugin.session import AttnprofSession

NAME = "attnprof-session"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    from attnprof.pytest_plugin.options import Settings
    from attnprof.pytest_plugin.session import AttnprofSession

    for signature, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{signature}: {meaning}")
    config.pluginmanager.register(AttnprofSession(config, Settings(config)), NAME)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A limit that cannot be read is an error of collection."""
    report = yield
    items = [item for item in report.result or () if isinstance(item, pytest.Item)]
    inherited = collector.iter_markers() if items else ()
    if any(mark.name.startswith("limit_") for marks in (inherited, *(i.own_markers for i in items)) for mark in marks):
        from attnprof.pytest_plugin.limits import refused

        errors = refused(items)
        if errors:
            report.outcome, report.result = "failed", []
            report.longrepr = "\n".join(errors)
    return report


@pytest.fixture(name="attnprof")
def attnprof_fixture(request: pytest.FixtureRequest) -> Generator[Attnprof, None, None]:
    """attnprof, with the test's lock file: run(), profile(), budget(), check(), flops(), bytes()."""
    from attnprof.pytest_plugin.fixture import Attnprof

    session: Any = request.config.pluginmanager.get_plugin(NAME)
    own: AttnprofSession = session
    yield Attnprof(own)
    own.reports.clear()
