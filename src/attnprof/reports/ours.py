"""Whether a file is one that attnprof wrote: told by what is in it, never by its name."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from attnprof.analysis.report import PHASES

#: What Markdown and LaTeX begin with, as comments that nothing renders.
MARKDOWN_MARK = "<!-- attnprof -->"
LATEX_MARK = "% attnprof"
#: What pictures name as the program that made them.
PROGRAM = "attnprof"

#: How much of the beginning, and of the end, is looked at.
_PART = 1 << 16

_BEGINNINGS = (
    rb'\{\s*"format"\s*:\s*"attnprof ',  # a saved run, a report, a study, ...
    rb'\{\s*"\$schema"[^{}]*"exporter"\s*:\s*"attnprof"',  # speedscope
    rb'\{\s*"id"\s*:\s*"[^"]*",\s*"product"[^{}]*"measured_on"\s*:\s*\{',  # a calibrated device
    rb'\{\s*"displayTimeUnit"[^{}]*"otherData"\s*:\s*\{\s*"made by"\s*:\s*"attnprof"',  # a Chrome trace
    re.escape(MARKDOWN_MARK.encode()),
    re.escape(LATEX_MARK.encode()) + rb"\r?\n",
    rb"batch,seq,parameters,forward_matmul_flops,",
    rb"module,class,aliases,calls,parameters,saved_bytes,total_matmul_flops,",  # CSV has no comments: its header
    rb"\x89PNG\r\n\x1a\n(?s:.*?)tEXtSoftware\0attnprof",
    rb"<\?xml(?s:.*?)<metadata>(?s:.*?)<dc:title>attnprof</dc:title>",
    rb'(?is:<!doctype html>.*?<meta name="?generator"? content="attnprof\b)',
)
_OURS = re.compile(rb"|".join(rb"(?:%s)" % beginning for beginning in _BEGINNINGS))
#: A PDF describes itself wherever it likes, which is near its end.
_PDF = re.compile(rb"/Creator \(attnprof\)")
#: The sentence on top of every table, however its lines were broken, below what ran: a page that quotes a table begins
#: with something else.
_TABLE = re.compile(
    rb"(?![#<`$>*|-])[^\n]+\n(?:[^\n]+\n){0,20}?FLOPs:\s+2\s+per\s+multiply-add,\s+masks\s+not\s+deducted"
)
#: Collapsed stacks have no place for a mark: each begins with one of our phases, and ends in a whole number.
_STACK = re.compile(rb"(?:%s);[^ \n]+ [0-9]+" % "|".join(PHASES).encode())


def is_ours(path: Path) -> bool:
    """Whether attnprof wrote this file. Raises ``OSError`` where it cannot be read."""
    with path.open("rb") as file:
        head = file.read(_PART)
        size = file.seek(0, 2)
        file.seek(max(0, size - _PART))
        tail = file.read()
    if head.startswith(b"\x1f\x8b"):
        head = _unpacked(head)
    if _OURS.match(head.lstrip(b"\xef\xbb\xbf \t\r\n")):
        return True
    if head.startswith(b"%PDF-"):
        return bool(_PDF.search(head) or _PDF.search(tail))
    if _TABLE.match(head):
        return b"\0" not in head
    lines = head.splitlines()
    whole = lines if size <= _PART else lines[:-1]  # the last one may be cut off
    return bool(whole) and all(_STACK.fullmatch(line) for line in whole)


def _unpacked(head: bytes) -> bytes:
    """The beginning of what gzip packed, as much as is looked at; nothing where it is damaged."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _PART)
    except zlib.error:
        return b""
