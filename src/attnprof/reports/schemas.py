"""The JSON Schemas of what attnprof writes as JSON, as files of the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from attnprof.core.errors import AttnprofError, closest

#: What is described, by name: a saved run, a report, and what the other commands and the pytest plugin write.
NAMES = ("run", "report", "sweep", "weights", "study", "serving", "attention-io", "scaling", "tests")


def json_schema(name: str = "report") -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``"report"``, which ``to_json()`` writes, ``"run"``, which ``save()`` does ...

    ... or of what commands and tests write: ``"sweep"``, ``"weights"``, ``"study"``, ``"serving"``, ``"attention-io"``,
    ``"scaling"``, ``"tests"``. Of the version that this attnprof writes, which is the constant of its property
    ``schema``. Raises :class:`AttnprofError` for another name.
    """
    if name not in NAMES:
        raise AttnprofError(f'there is no schema "{name}": it is one of {", ".join(NAMES)}.{closest(str(name), NAMES)}')
    text = resources.files("attnprof.reports").joinpath("schema", f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
