"""How data and scripts stand in a page: as text that no name in it can leave, under a policy that runs nothing else.

Names come from the user's model. They are in the page as JSON in a script element of a type that does not run, and the
page's own script sets them as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from attnprof.reports.text import printable

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

#: The largest integer that JavaScript's numbers hold exactly: larger ones are written as strings of digits.
_EXACT = 2**53 - 1
#: ``<`` would end the script element, or begin a comment in it.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def embedded(data: Json) -> str:
    """``data`` as JSON for a script element; what is invisible in strings is written out, as on a terminal."""
    return json.dumps(_plain(data), separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def _plain(data: Json) -> Json:
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, bool) or data is None or isinstance(data, float):
        return data
    if isinstance(data, int):
        return data if abs(data) <= _EXACT else str(data)
    if isinstance(data, Mapping):
        return {printable(name): _plain(value) for name, value in data.items()}
    return [_plain(value) for value in data]


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A Content-Security-Policy under which these run, and nothing is loaded from anywhere.

    Plotly makes empty style elements, which it fills by rules, and sets ``style`` attributes: both are let through.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src-elem {' '.join(map(_hash, [*styles, '']))}",
            "style-src-attr 'unsafe-inline'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
