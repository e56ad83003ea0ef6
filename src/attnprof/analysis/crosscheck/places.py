"""Op calls that two counters both saw, and where each of them books what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from attnprof.analysis.tree import ModuleNode
from attnprof.core.crosscheck import Kind


@dataclass(frozen=True, slots=True)
class Entry:
    """One op call of a module: why the other counter's number for it differs, and where it books that number.

    ``causes`` are (kind, reason, FLOPs). ``theirs`` are the FLOPs that it books to ``there``, the modules of
    attnprof's tree with the enclosing ones; None: where attnprof does.
    """

    module: str
    op: str
    causes: tuple[tuple[Kind, str, int], ...] = ()
    theirs: int = 0
    there: frozenset[str] | None = None


#: Entries with how often each is there; a call that the other counter's run lacks is there -1 times.
Entries = Counter[Entry]


@dataclass(slots=True)
class Places:
    """The modules of a tree by any of their names, each with those around it."""

    root: ModuleNode
    around: dict[str, frozenset[str]] = field(default_factory=dict)
    parents: dict[str, ModuleNode] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add(self.root, frozenset())

    def _add(self, node: ModuleNode, above: frozenset[str]) -> None:
        inside = self.around[node.fqn] = above | {node.fqn}
        for name in (node.fqn, *node.aliases):
            self._named.setdefault(name, node.fqn)
        last = node.fqn.rpartition(".")[2]
        if last.startswith("("):  # of no module of the model: the other counter does not know what ran it
            self._named.setdefault(last, node.fqn)
        for child in node.children:
            self.parents[child.fqn] = node
            self._add(child, inside)

    def find(self, name: str) -> str | None:
        """The module with this name or alias; None where the tree has none."""
        return self._named.get(name)

    def nearest(self, name: str) -> str:
        """The module with this name, or the closest around it that the tree has."""
        while (found := self._named.get(name)) is None:
            name = name.rpartition(".")[0]
        return found

    def unlisted(self, listed: Iterable[str]) -> frozenset[str]:
        """Modules that no counter of calls can have a row for: lists that are never called themselves.

        ``listed`` are the modules that it has rows for.
        """
        has_row = self.known(listed)
        nodes = (node for node in self.root.walk() if node is not self.root and node.fqn not in has_row)
        return frozenset(node.fqn for node in nodes if not node.calls and node.children)

    def known(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that the tree has, as it has them."""
        return frozenset(found for name in names if (found := self.find(name)) is not None)
