"""Sizes on the command line, ``--batch 1,8 --seq 128,512``: what they are of, and what is made at them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from attnprof.analysis.sweep import Shape
from attnprof.cli import target
from attnprof.cli.lengths import parse_lengths
from attnprof.cli.users_code import their_own
from attnprof.core.errors import AttnprofError

if TYPE_CHECKING:
    from attnprof.cli.saved import Saved

Batch = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="The batch: of a Hugging Face configuration or an exported program, for B in --input 'x=float32[B,T,64]', "
        "and for an argument batch of TARGET. Several, as in '1,8,32', are a sweep: one run each, in one table.",
        show_default=False,
    ),
]
Seq = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Tokens of each text, frames or samples of each sound; for T in --input, and for an argument seq of "
        "TARGET. Several, as in '128,512,2048' or '128,256,...,8192', are a sweep.",
        show_default=False,
    ),
]
#: size -> the letter in --input that stands for it
_LETTERS = {"batch": "B", "seq": "T"}
_IN_BRACKETS = re.compile(r"\[([^\]]*)\]")
#: The most runs of one sweep.
_MOST = 1000
_T = TypeVar("_T")


def shapes(batch: str | None, seq: str | None) -> list[Shape]:
    """Every combination of the sizes that are given; one shape without sizes where none is."""
    batches: Sequence[int | None] = [None] if batch is None else parse_lengths(batch, "--batch")
    lengths: Sequence[int | None] = [None] if seq is None else parse_lengths(seq)
    if len(batches) * len(lengths) > _MOST:
        raise AttnprofError(f"{len(batches)} batches of {len(lengths)} lengths are too many: at most {_MOST:,} runs.")
    return [Shape(*sizes) for sizes in product(batches, lengths)]


def inputs_at(texts: Sequence[str], shape: Shape) -> list[str]:
    """``--input`` with the sizes of a shape in place of ``B`` and ``T``.

    Raises :class:`AttnprofError` for a letter whose size is not given.
    """
    found = []
    for text in texts:
        for size, letter in _LETTERS.items():
            number = getattr(shape, size)
            if number is None and re.search(rf"\b{letter}\b", " ".join(_IN_BRACKETS.findall(text))):
                raise AttnprofError(f"--input '{text}' has the size {letter}: say which with --{size} N.")
            if number is not None:
                put = partial(re.sub, rf"\b{letter}\b", str(number))
                text = _IN_BRACKETS.sub(lambda match, put=put: put(match[0]), text)  # type: ignore[misc]
        found.append(text)
    return found


def target_at(found: Callable[..., _T], shape: Shape) -> Callable[..., _T]:
    """A target that makes its model at a shape: called with ``batch`` and ``seq``, where it takes them."""
    taken = {size: getattr(shape, size) for size in _LETTERS if size in _parameters(found)}
    given = {size: number for size, number in taken.items() if number is not None}
    return partial(found, **given) if given else found


def check_used(found: Any, target: str, texts: Sequence[str], shape: Shape) -> None:
    """Raise where a size is given and nothing of a target in code, nor of its inputs, is of it."""
    inside = " ".join(part for text in texts for part in _IN_BRACKETS.findall(text))
    for size, letter in _LETTERS.items():
        used = size in _parameters(found) or re.search(rf"\b{letter}\b", inside)
        if getattr(shape, size) is not None and not used:
            raise AttnprofError(
                f"--{size} changes nothing of {target}: give its inputs a size {letter}, such as --input "
                f"'x=float32[B,T,64]', or {target.rpartition(':')[2]} an argument, {size}=1."
            )


class Targets:
    """What TARGET names, at any shape: a file of a model by ``opened``, or else code, which is imported once."""

    def __init__(self, text: str, inputs: Sequence[str], opened: Callable[..., Saved | None]) -> None:
        self._text, self._inputs, self._opened = text, inputs, opened
        self._found: Any = None

    def __call__(self, shape: Shape) -> Any:
        """The file or the callable at a shape; raises :class:`AttnprofError` where a size changes nothing."""
        found = self._opened(batch=shape.batch, seq=shape.seq)
        if found is not None:
            return found
        if self._found is None:
            with their_own(f"importing {self._text}"):
                self._found = target.find(self._text)
        check_used(self._found, self._text, self._inputs, shape)
        return target_at(self._found, shape)


def _parameters(found: Any) -> set[str]:
    from torch import nn

    if isinstance(found, nn.Module):
        return set()
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return set()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
