"""The page of the JSON Schemas says what they say."""

from __future__ import annotations

import os
from pathlib import Path

import attnprof
from attnprof.reports.schemas import NAMES
from reports.schema_page import page

PAGE = Path(__file__).parents[2] / "docs" / "json-schema.md"
ORDER = ("report", *(name for name in NAMES if name != "report"))
MARK = "<!-- from the schemas: UPDATE_DOCS=1 pytest tests/reports/test_schema_page.py -->\n"


def test_the_page_is_that_of_the_schemas() -> None:
    above, mark, below = PAGE.read_text(encoding="utf-8").partition(MARK)
    made = "\n" + "\n".join(page(name, attnprof.json_schema(name)) for name in ORDER)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(above + mark + made, encoding="utf-8")
        below = made
    assert mark
    assert below == made


def test_every_field_is_on_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in ORDER:
        for part in (attnprof.json_schema(name), *attnprof.json_schema(name)["$defs"].values()):
            for field, of in part.get("properties", {}).items():
                assert f"| `{field}` |" in text or not of.get("description")
