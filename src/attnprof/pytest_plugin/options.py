"""Options of the command line and of the ini file, and which of them wins: command line over marker over ini."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fractions import Fraction

    from attnprof.core.budget import Budget

MARKERS = {
    "limit_flops(limit, *, phase=None, module=None)": 'the test may run so many FLOPs ("4.2 GFLOP").',
    "limit_bytes(limit, *, phase=None, module=None)": 'the ops of the test may move so many bytes ("120 MB").',
    "limit_memory_bytes(limit, *, kind='peak', module=None)": 'the test may hold so much ("1 GiB"), peak or saved.',
    "limit_unpriced(limit)": "so many op calls of the test may have no formula (0: none).",
}
#: Limits that the command line and the ini file can set, for every test.
LIMITS = {
    "flops": "FLOPs",
    "bytes": "bytes of traffic",
    "memory_bytes": "bytes of peak memory",
    "unpriced": "op calls without a formula",
}


def add_options(parser: pytest.Parser) -> None:
    """Declare every option; defaults are None, so that what was not given does not hide the ini file."""
    group = parser.getgroup("attnprof", "attnprof: budgets of FLOPs, bytes and memory")

    def flag(name: str, told: str) -> None:
        group.addoption(f"--attnprof-{name}", action="store_const", const=True, default=None, help=told)

    def value(name: str, metavar: str, told: str) -> None:
        group.addoption(f"--attnprof-{name}", metavar=metavar, default=None, help=told)

    flag("update", "Write what attnprof.check() compares into the lock file: the entries that ran.")
    flag("prune", "With --attnprof-update: delete the stale entries that are listed.")
    value("lock", "FILE", "The lock file. Default: attnprof_lock, or attnprof.lock.toml in tests/ (or the root).")
    value("tolerance", "PERCENT", 'How far a number may be from its lock, either way: "1%%". Default: exactly.')
    flag("report", "Count every test, and show the dearest at the end.")
    value("json", "FILE", "Count every test, and write all counts and limits as JSON.")
    value("markdown", "FILE", "Count every test, and write a summary as Markdown, for a CI job.")
    parser.addini("attnprof_lock", "The lock file, from the root of the project.")
    parser.addini("attnprof_tolerance", 'How far a number may be from its lock, either way: "1%".')
    parser.addini("attnprof_report", "Count every test, and show the dearest at the end.", type="bool", default=None)
    for quantity, what in LIMITS.items():
        metavar = "N" if quantity == "unpriced" else "AMOUNT"
        told = f"So many {what} for each test, in place of its limit_{quantity} for the whole test."
        value(f"limit-{quantity.replace('_', '-')}", metavar, told)
        parser.addini(f"attnprof_default_limit_{quantity}", f"So many {what} for tests without a limit of their own.")


class Settings:
    """What was asked for, checked. ``forced`` are limits of the command line, ``default`` those of the ini file.

    A plain class: to make a dataclass takes longer than all else that the plugin does when pytest starts.
    Raises :class:`pytest.UsageError` for what cannot be read.
    """

    def __init__(self, config: pytest.Config) -> None:
        def given(name: str) -> Any:
            return config.getoption(f"attnprof_{name}")

        self.update = bool(given("update"))
        self.prune = bool(given("prune"))
        if self.prune and not self.update:
            raise pytest.UsageError("--attnprof-prune deletes with --attnprof-update only: give both.")
        report = given("report")
        self.report = bool(config.getini("attnprof_report") if report is None else report)
        self.lock: Path = _lock(config, given("lock"))
        self.tolerance = _tolerance("--attnprof-tolerance", given("tolerance"))  # of the command line
        self.default_tolerance = _tolerance("attnprof_tolerance", config.getini("attnprof_tolerance") or None)
        self.json = _writable(config, "json")
        self.markdown = _writable(config, "markdown")
        forced = {quantity: given(f"limit_{quantity}") for quantity in LIMITS}
        default = {quantity: config.getini(f"attnprof_default_limit_{quantity}") for quantity in LIMITS}
        self.forced = _limits(forced, "--attnprof-limit-{}")
        self.default = _limits(default, "attnprof_default_limit_{}")

    @property
    def counts_all(self) -> bool:
        """Whether every test is to be counted, whatever its markers."""
        return self.report or self.json is not None or self.markdown is not None


def _lock(config: pytest.Config, given: str | None) -> Path:
    if given is not None:
        return config.invocation_params.dir / given
    named = config.getini("attnprof_lock")
    if named:
        return config.rootpath / str(named)
    tests = config.rootpath / "tests"
    return (tests if tests.is_dir() else config.rootpath) / "attnprof.lock.toml"


def _tolerance(option: str, text: str | None) -> Fraction | None:
    if text is None:
        return None
    from attnprof.core import amounts
    from attnprof.core.errors import AttnprofError

    try:
        return amounts.tolerance(text)
    except AttnprofError as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def _limits(texts: dict[str, str | None], option: str) -> dict[str, Budget]:
    given = {quantity: text for quantity, text in texts.items() if text}
    found: dict[str, Budget] = {}
    if given:
        from attnprof.core.budget import Budget
        from attnprof.core.errors import AttnprofError

        for quantity, text in given.items():
            count = quantity == "unpriced" and text.isdecimal()
            try:
                found[quantity] = Budget.of(quantity, int(text) if count else text)
            except AttnprofError as error:
                name = option.format(quantity.replace("_", "-") if option.startswith("--") else quantity)
                raise pytest.UsageError(f"{name}: {error}") from None
    return found


def _writable(config: pytest.Config, name: str) -> Path | None:
    """The file of an option, once it is clear that it can be written, and is nobody else's."""
    given: str | None = config.getoption(f"attnprof_{name}")
    if given is None:
        return None
    from attnprof.core.errors import AttnprofError
    from attnprof.reports.files import check_replaceable, check_writable

    try:
        path = check_writable(config.invocation_params.dir / given)
    except AttnprofError as error:
        raise pytest.UsageError(str(error)) from None
    try:
        check_replaceable(path)
    except AttnprofError:
        raise pytest.UsageError(f"--attnprof-{name}: attnprof did not write {path}: name another file.") from None
    return path
