"""Transformers of L layers: any mixer and any feed-forward network, checkpointed or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sympy import Expr, Integer, Min

from attnprof.analytic.blocks import INT64, Tape, Tensor
from attnprof.analytic.registry import Formula, Sizes, find, formula
from attnprof.analytic.symbols import e
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import one_of, positive


def _part(role: str, name: str) -> Formula:
    """The formula of this name, if it is one of x [B, T, d] -> [B, T, d]."""
    entry = find(name)
    if not entry.takes_x:
        raise AttnprofError(f"{role} cannot be {name!r}: it is called with something else than x [B, T, d].")
    return entry


def _check(parts: Collection[Formula], given: Mapping[str, Any]) -> None:
    """Raise for a symbol that no part has, or one whose value is of another kind."""
    for name, value in given.items():
        having = [part for part in parts if name in part.symbols]
        if not having:
            known = sorted({s for part in parts for s in part.symbols} - {"B", "T"})
            names = " and ".join(part.name for part in parts)
            raise AttnprofError(f"{names} have no symbol {name!r}, only {', '.join(known)}.")
        for part in having:
            if name in part.options:
                part.check(name, value)
            elif value is not None or not (name in part.nullable or name in part.optional):
                positive(**{name: value})


@formula("transformer")
def transformer(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    L: Expr,
    f: Expr | None = None,
    mixer: str = "mha",
    ffn: str = "ffn",
    checkpoint: str | None = None,
    **options: Any,
) -> Tensor:
    """L pre-norm blocks, each of a mixer and a feed-forward network, chosen by name; f is 4 d unless given.

    ``checkpoint="reentrant"`` keeps the input of each block only and runs all of it again; ``"non-reentrant"``
    stops when it has all that was saved, as a rule before the last product.
    """
    own = {"B", "T", "d", "L", "f", "e"}
    return stack(tape, sizes, x, B, T, d, L, 4 * d if f is None else f, own, mixer, ffn, checkpoint, **options)


def stack(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    L: Expr,
    f: Expr,
    own: Collection[str],
    mixer: str,
    ffn: str = "ffn",
    checkpoint: str | None = None,
    **options: Any,
) -> Tensor:
    """The blocks; ``own`` are the sizes that are no part's."""
    parts = _part("mixer", mixer), _part("ffn", ffn)
    _check(parts, {n: v for n, v in {**sizes.values, **options}.items() if n not in own})
    if checkpoint is not None:
        one_of(("reentrant", "non-reentrant"), checkpoint=checkpoint)
    if checkpoint == "reentrant" and not x.needs_grad:
        raise AttnprofError("checkpoint='reentrant' trains nothing when its input needs no gradient.")
    tape.missing |= parts[0].missing | parts[1].missing
    if ffn == "moe" and checkpoint == "non-reentrant":  # it stops at the rows of the last expert, whatever they are
        tape.missing |= {("vector", "recompute"), ("traffic", "recompute")}

    def block(x: Tensor) -> Tensor:
        normed = tape.layer_norm(x, B * T, d, "norm_1", "norm_1 output")
        with tape.scope("mixer"):
            mixed = parts[0].put(tape, sizes, normed, options, f=f)
        h = tape.add(x, mixed, "h", "residual_1")
        normed = tape.layer_norm(h, B * T, d, "norm_2", "norm_2 output")
        with tape.scope("ffn"):
            out = parts[1].put(tape, sizes, normed, options, f=f)
        return tape.add(h, out, "x", "residual_2")

    def layer(x: Tensor) -> Tensor:
        return block(x) if checkpoint is None else tape.checkpointed(x, block, checkpoint == "non-reentrant")

    with tape.scope("blocks"):
        return tape.repeat(L, x, layer)


def _rows_of(tape: Tape, table: Tensor, rows: Expr, d: Expr, out: str) -> Tensor:
    """Rows of a table by their numbers. Backward adds each gradient to its row of a new table: d additions."""
    made = tape.tensor(out, rows * d, table.needs_grad)
    tape.moved(out, Min(made.elements, table.elements) * e + rows * INT64, made.elements * e)
    if table.needs_grad:
        read = made.elements * e + rows * INT64
        tape.moved(out, read, table.elements * e, "backward", flops=made.elements)
    tape.arrive(table)
    return made


@formula("lm")
def language_model(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    d: Expr,
    L: Expr,
    V: Expr,
    N: Expr,
    f: Expr | None = None,
    tied: bool = True,
    mixer: str = "mha",
    **options: Any,
) -> Tensor:
    """Embeddings of V tokens and N positions, a transformer, a norm, and a head of V logits, tied to the embeddings.

    A mixer that can be causal is, unless told otherwise.
    """
    length, most = sizes.values.get("T", 1), sizes.values.get("N")
    if most is not None and length > most:
        raise AttnprofError(f"T can be at most N: a sequence of T={length} tokens is longer than N={most}.")
    options = {**({"causal": True} if "causal" in find(mixer).options else {}), **options}
    tokens, positions = tape.weight("tokens", V * d), tape.weight("positions", N * d)
    tape.keep_for(tokens, "ids", B * T, INT64)
    tape.keep_for(positions, "numbers of positions", T, INT64)
    tape.moved("numbers of positions", Integer(0), T * INT64)
    of_tokens = _rows_of(tape, tokens, B * T, d, "token embeddings")
    of_positions = _rows_of(tape, positions, T, d, "position embeddings")
    x = tape.add(of_tokens, of_positions, "x", "embeddings")
    if options.get("checkpoint") == "reentrant" and not x.needs_grad:
        x = tape.tensor("x", x.elements, True)  # else the blocks would get no gradients
    own = {"B", "T", "d", "L", "f", "e", "V", "N"}
    with tape.scope("transformer"):
        h = stack(tape, sizes, x, B, T, d, L, 4 * d if f is None else f, own, mixer, **options)
    normed = tape.layer_norm(h, B * T, d, "norm", "norm output")
    if not tied:
        return tape.linear("head", normed, B * T, d, V, "logits")
    return tape.product("head", normed, tokens, 2 * B * T * d * V, "logits", B * T * V, factors=("X", "W"))
