"""Characters that a terminal or file without Unicode can show, in place of those it cannot."""

from __future__ import annotations

import codecs
import io
import sys

#: One character each, so that columns stay aligned.
_STAND_INS = str.maketrans("·–…×≈─│├└▁▂▃▄▅▆▇█", "|-~x~-||`_.:-=+*#")
_NAME = "attnprof.stand_ins"


def use_stand_ins() -> None:
    """Have standard output and error write what their encoding lacks in other characters, ``?`` at worst."""
    codecs.register_error(_NAME, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_STAND_INS)
    return "".join(c if c.isascii() else "?" for c in text), error.end
