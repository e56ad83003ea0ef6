"""docs/claims.md below its mark: what the documents claim, what is measured, and the verdicts."""

from __future__ import annotations

from collections import Counter

from tabulate import tabulate

from claims import topics_frozen, topics_inference, topics_survey
from claims.facts import DOCUMENTS, FACTS, found

_TOPICS = (*topics_survey.TOPICS, *topics_inference.TOPICS, *topics_frozen.TOPICS)
KINDS = ("measured", "closed form", "arithmetic")


def page() -> str:
    """Everything below the mark."""
    return "\n\n".join([_summary(), *(topic().markdown() for topic in _TOPICS)]) + "\n"


def _summary() -> str:
    """How many facts of each document are found in which way."""
    counts = Counter((fact.id[0], found(fact)[0]) for fact in FACTS)
    rows = [
        [letter, text, *(counts[letter, kind] for kind in KINDS), sum(counts[letter, kind] for kind in KINDS)]
        for letter, text in DOCUMENTS.items()
    ]
    rows.append(["", "all", *(sum(counts[letter, kind] for letter in DOCUMENTS) for kind in KINDS), len(FACTS)])
    headings = ["", "document", *KINDS, "facts"]
    align = ("left", "left", *("right" for _ in headings[2:]))
    return tabulate(rows, headings, tablefmt="pipe", colalign=align)
