"""Attention between heads, in torch's layers and in those of transformers.

A kernel that fuses it computes the scores again in its backward, and all four gradients if it is asked for one;
which kernel ran is read from the names of the ops.
"""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.binding import Given, Input, Recorded, UnpredictableError, binds
from attnprof.analytic.blocks import Tensor
from attnprof.analytic.bound.writing import Sheet
from attnprof.analytic.prediction import Prediction

#: Parts of the names of ops that do attention in one kernel, and of ops that are products written out.
_FUSED = ("_flash_attention", "_efficient_attention", "_cudnn_attention", "_fused_attention", "flex_attention")
_WRITTEN_OUT = ("aten.bmm.", "aten.baddbmm.")


def is_fused(module: Recorded) -> bool:
    """Whether one kernel did attention; raises where some calls had one and some had none."""
    fused = any(part in op for op in module.ops for part in _FUSED)
    if fused and any(op.startswith(_WRITTEN_OUT) for op in module.ops):
        raise UnpredictableError("some of its calls ran a fused kernel and some did not")
    return fused


def between_heads(
    sheet: Sheet, module: Recorded, B: Expr, T: Expr, S: Expr, n: Expr, nv: Expr, needs: tuple[bool, bool, bool]
) -> Tensor:
    """softmax(q kᵀ) v: all heads together n wide, values nv; ``needs`` is who of q, k, v needs a gradient."""
    q, k, v = (sheet.tensor(name, B * T * n, need) for name, need in zip("qkv", needs, strict=True))
    if is_fused(module):
        return sheet.tape.fused_attention(q, k, v, 2 * B * T * S * n, B * T)
    scores = sheet.tape.product("scores", q, k, 2 * B * T * S * n, "scores", B * T * S)
    return sheet.tape.product("weighted_sum", scores, v, 2 * B * T * S * nv, "weighted sum", B * T * nv)


@binds("torch.nn.modules.activation", "MultiheadAttention")
def multihead_attention(module: Recorded, call: Given) -> Prediction:
    """Projections, attention between the heads, and a projection back, all by the module itself."""
    q, k, v = (call.input(i, name) for i, name in enumerate(("query", "key", "value")))
    first = bool(module.flag("batch_first"))
    sheet = Sheet("multihead-attention", call)
    B, T = _batch_and_length(q, first)
    _, S = _batch_and_length(k, first)
    wide = S + ("bias_k" in module.parameters) + module.flag("add_zero_attn")
    sizes = {"B": B, "T": T, "S": S, "d": module.size("embed_dim"), "dk": k.shape[-1], "dv": v.shape[-1]}
    at = {name: sheet.size(name, value) for name, value in sizes.items()}
    keys = at["S"] if wide == S else sheet.size("keys", wide)
    together = "in_proj_weight" in module.parameters
    rows = {"q": at["B"] * at["T"], "k": at["B"] * at["S"], "v": at["B"] * at["S"]}
    widths = {"q": at["d"], "k": at["dk"], "v": at["dv"]}
    needs = []
    for name, given in zip("qkv", (q, k, v), strict=True):
        trained = module.trains("in_proj_weight" if together else f"{name}_proj_weight")
        x = sheet.tensor(name, rows[name] * widths[name], given.needs_grad)
        sheet.linear(f"{name}_proj", x, rows[name], widths[name], at["d"], trained)
        biased = module.trains("in_proj_bias") or module.trains(f"bias_{name}")
        needs.append(given.needs_grad or trained or biased)
    attended = between_heads(sheet, module, at["B"], at["T"], keys, at["d"], at["d"], (needs[0], needs[1], needs[2]))
    sheet.linear("out_proj", attended, rows["q"], at["d"], at["d"], module.trains("out_proj.weight"))
    return sheet.prediction


def _batch_and_length(x: Input, batch_first: bool) -> tuple[int, int]:
    if len(x.shape) == 2:
        return 1, x.shape[0]
    if len(x.shape) != 3:
        raise UnpredictableError("its inputs are no sequences of vectors")
    return (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])


@binds("torch.nn.modules.transformer", "TransformerEncoderLayer")
def encoder_layer(module: Recorded, call: Given) -> Prediction | None:
    """Where torch runs the whole layer as one op, in inference; else it is the sum of its parts."""
    if not any("_transformer_encoder_layer_fwd" in op for op in module.ops):
        return None
    if module.called:
        raise UnpredictableError("some of its calls ran as one op and some did not")
    x = call.input(0, "src")
    if len(x.shape) != 3:
        raise UnpredictableError("its input is no plain batch of sequences")
    sheet = Sheet("transformer-encoder-layer", call)
    # One op only runs on [B, T, d].
    B, T = sheet.size("B", x.shape[0]), sheet.size("T", x.shape[1])
    d, f = sheet.size("d", x.shape[-1]), sheet.size("f", module.matrix("linear1.weight")[0])
    source = sheet.tensor("x", B * T * d, False)
    for name, n_in, n_out in (
        ("q_proj", d, d),
        ("k_proj", d, d),
        ("v_proj", d, d),
        ("out_proj", d, d),
        ("linear1", d, f),
        ("linear2", f, d),
    ):
        sheet.linear(name, source, B * T, n_in, n_out, False)
    between_heads(sheet, module, B, T, T, d, d, (False, False, False))
    return sheet.prediction
