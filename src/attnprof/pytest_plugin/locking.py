"""The lock file of a session: compared with, or written at the end in one step, and what in it is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnprof.analysis.budget_changes import compare
from attnprof.analysis.budget_snapshot import snapshot
from attnprof.analysis.report import Report
from attnprof.core import amounts, lock
from attnprof.core.budget import BudgetError
from attnprof.core.errors import AttnprofError
from attnprof.pytest_plugin.options import Settings
from attnprof.reports.text import printable
from attnprof.testing import difference, update_lock

#: Names that are said of those that were written: the rest is in the file.
_MOST = 10
_REMEDY = "update on purpose: pytest --attnprof-update"


class LockSession:
    """The entries of the lock file, and what this session found out about them.

    A worker of xdist reads the file; only the process that the reports come to writes it.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings = settings
        self.gone_elsewhere: set[str] = set()
        self.passed: set[str] = set()
        self.sentences: list[str] = []
        self._root = root
        self._present: dict[str, lock.Entry] | None = None
        self._taken: dict[str, dict[str, list[lock.Entry]]] = {}  # by name and test
        self._checked: dict[str, set[str]] = {}  # names by test

    @property
    def path(self) -> Path:
        """The file, as short as it can be said."""
        path = self.settings.lock
        return path.relative_to(self._root) if path.is_relative_to(self._root) else path

    def entries(self) -> dict[str, lock.Entry]:
        """What the file had when this session first looked."""
        if self._present is None:
            self._present = lock.read(self.settings.lock, str(self.path))
        return self._present

    def check(self, report: Report, name: str, tolerance: str | int | None, test: str, carried: dict[str, Any]) -> None:
        """Compare a run with its entry, or carry it on to be written."""
        __tracebackhide__ = True
        try:
            present = self.entries()
            allowed = self._tolerance(tolerance)
        except AttnprofError as error:
            raise BudgetError(str(error)) from None
        carried.setdefault("checked", []).append(name)
        now = lock.Entry(snapshot(report), test)
        if self.settings.update:
            entries = carried.setdefault("entries", {})
            told = lock.dumps({name: now})
            if entries.setdefault(name, told) != told:
                raise BudgetError(f'two runs of this test are called "{name}" and cost not the same: name each.')
            return
        entry = present.get(name)
        if entry is None:
            told = f'{self.path} has no entry "{printable(name)}"'
            carried.setdefault("differs", {})[name] = told
            raise BudgetError(f"{told}\n  write it: pytest --attnprof-update")
        changes = compare(entry.snapshot, now.snapshot, allowed)
        if changes:
            told, details = difference(name, changes, _REMEDY)
            carried.setdefault("differs", {})[name] = told
            raise BudgetError(told, details)

    def _tolerance(self, given: str | int | None) -> Any:
        """Command line over the call over the ini file; exact where nobody says."""
        if self.settings.tolerance is not None:
            return self.settings.tolerance
        return (self.settings.default_tolerance or 0) if given is None else amounts.tolerance(given)

    # At the end of a test, where its report arrives

    def take(self, test: str, carried: dict[str, Any]) -> None:
        """What a test checked; its entries are written if it passes."""
        self._checked.setdefault(test, set()).update(carried["checked"])
        for name, told in carried.get("entries", {}).items():
            entry = lock.loads(told, "the report of a test")[name]
            self._taken.setdefault(name, {}).setdefault(test, []).append(entry)

    def forget(self, test: str) -> None:
        """What an attempt at a test checked: there is another."""
        for tests in self._taken.values():
            tests.pop(test, None)

    # At the end of the session

    def gone(self, collected: set[str] | None) -> set[str]:
        """Entries whose test is there no more: its file is gone, or was collected whole and has it not.

        ``collected`` are all tests of the files that were; None where files were collected in part.
        """
        try:
            present = self.entries()
        except AttnprofError:
            return set()
        known = collected or set()
        files = {test.partition("::")[0] for test in known}
        return {
            name
            for name, entry in present.items()
            if entry.test and (file := entry.test.partition("::")[0])
            if (file in files and entry.test not in known) or not (self._root / file).exists()
        }

    def finish(self, collected: set[str] | None, failed: set[str]) -> bool:
        """Write what is to be written and say what there is to say; whether nothing went wrong.

        For ``collected`` see :meth:`gone`. ``failed`` are the tests that did not pass: what they checked is not
        written.
        """
        settings = self.settings
        checked = {name for names in self._checked.values() for name in names}
        try:
            present = self.entries()
            new, clashes = self._to_write(present, failed)
            unused = {n for n, entry in present.items() if entry.test in self.passed - failed}
            stale = sorted((unused | self.gone(collected) | self.gone_elsewhere) - checked)
            if settings.update and (new or (settings.prune and stale)):
                changed = [n for n, entry in new.items() if present.get(n) != entry]
                update_lock(settings.lock, new, stale if settings.prune else ())
                self.sentences.append(self._wrote(changed, len(new), stale if settings.prune else []))
        except AttnprofError as error:
            if settings.update:
                self.sentences.append(f"{error} Nothing was written.")
            return not settings.update
        if stale and not settings.prune:
            names = ", ".join(map(printable, stale))
            self.sentences.append(
                f"{self.path}: no test checks {names} any more. Delete: pytest --attnprof-update --attnprof-prune"
            )
        self.sentences += clashes
        return not clashes

    def _to_write(self, present: dict[str, lock.Entry], failed: set[str]) -> tuple[dict[str, lock.Entry], list[str]]:
        """The entry of each name that has one, and a sentence for each that has several.

        Of several tests that check one name, the entry is of the one it was of; else of the first by name.
        """
        new: dict[str, lock.Entry] = {}
        clashes: list[str] = []
        for name, tests in self._taken.items():
            entries = [entry for test in sorted(tests.keys() - failed) for entry in tests[test]]
            if not entries:
                continue
            if any(other.snapshot != entries[0].snapshot for other in entries):
                told = f'"{printable(name)}" is the name of two runs that cost not the same, in '
                told += " and ".join(dict.fromkeys(printable(entry.test) for entry in entries))
                clashes.append(f"{told}: name each. Its entry was left as it is.")
            else:
                was = present.get(name)
                new[name] = next((entry for entry in entries if was and entry.test == was.test), entries[0])
        return new, clashes

    def _wrote(self, changed: list[str], ran: int, pruned: list[str]) -> str:
        if not changed and not pruned:
            return f"{self.path}: {ran} {'entry is' if ran == 1 else 'entries are'} up to date."
        what = [f"wrote {_few(changed)}"] if changed else []
        what += [f"deleted {_few(pruned)}"] if pruned else []
        return f"{self.path}: {'; '.join(what)}."


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(printable, names[:_MOST])) + more
