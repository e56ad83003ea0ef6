"""How a model grows as a page: what there is to say, the curves and every module, in one file without scripts."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from attnprof.analysis.scaling_answer import Answer
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units
from attnprof.reports import pictures, scaling_plot
from attnprof.reports import scaling_words as words
from attnprof.reports.files import check_writable, write_text
from attnprof.reports.scaling import notes, said, table_rows
from attnprof.reports.text import printable

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; background: #fff; margin: 2rem auto; padding: 0 1rem;
  max-width: 72rem; }
h1 { font-size: 1.25rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p.small, footer { color: #5d656d; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 1.5rem 0; }
dt { color: #5d656d; } dd { margin: 0; overflow-wrap: anywhere; }
dd.formula { font-family: ui-monospace, monospace; }
dd.true::before { content: "✓ "; color: #2f7d4f; } dd.false::before { content: "✗ "; color: #b3261e; }
figure { margin: 1.5rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e6e9ec; vertical-align: top; }
td.number, th.number { text-align: right; } td.formula { font-family: ui-monospace, monospace; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
"""
_FORMULAS = ("measured", "claimed", "grows as")


def check(path: str | os.PathLike[str]) -> Path:
    """The path, once it is clear that a page can be written there.

    Raises :class:`AttnprofError` for a suffix other than .html and .htm, where nothing can be written, and where
    matplotlib, which draws the curves, is missing.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        given = f'not "{target.suffix}"' if target.suffix else f'and "{target}" does not end so'
        raise AttnprofError(f"a page is an .html file, {given}.")
    pictures.check(target.with_suffix(".svg"))
    return check_writable(target)


def save(answer: Answer, path: str | os.PathLike[str], units: Units) -> Path:
    """Write the page. Errors are those of :func:`check`."""
    return write_text(check(path), page(answer, units))


def page(answer: Answer, units: Units) -> str:
    """The page: it loads nothing, and runs nothing."""
    title = _escaped(words.subject(answer))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="generator" content="attnprof">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="small">{_escaped(words.CONVENTIONS)}</p>',
        _list(answer, units),
        _figure(answer, units),
        _modules(answer, units),
        *(f'<p class="small">{_escaped(note)}</p>' for note in notes(answer)),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _list(answer: Answer, units: Units) -> str:
    rows = []
    last = ""
    for label, text in said(answer, units):
        last = label or last
        kinds = ["formula"] if label in _FORMULAS else []
        if label == "verdict":
            kinds.append("true" if text.startswith("TRUE") else "false")
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        rows.append(f"<dt>{_escaped(label)}</dt><dd{kind}>{_escaped(text)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _figure(answer: Answer, units: Units) -> str:
    if not any(piece.formula != "0" for piece in answer.growth.whole.pieces):
        return ""  # nothing to draw
    drawn = pictures.drawn(lambda: scaling_plot.figure(answer, units, titled=False), ".svg").decode("utf-8")
    return f"<figure>{drawn[drawn.index('<svg') :]}</figure>"


def _modules(answer: Answer, units: Units) -> str:
    rows = table_rows(answer)
    if not rows:
        return ""
    head = '<th>module</th><th class="number">of all</th><th>grows as</th><th>formula, with the modules in it</th>'
    body = "".join(
        f'<tr><td>{_escaped(name)}</td><td class="number">{_escaped(part)}</td><td>{_escaped(growth)}</td>'
        f'<td class="formula">{_escaped(formula)}</td></tr>'
        for name, part, growth, formula in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _escaped(text: str) -> str:
    return escape(printable(text))
