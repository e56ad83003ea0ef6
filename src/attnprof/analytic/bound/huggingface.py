"""Blocks of transformers (the library): what attention and experts do beside the layers in them."""

from __future__ import annotations

from math import prod

from attnprof.analytic.binding import Given, Input, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.attention import between_heads, is_fused
from attnprof.analytic.bound.huggingface_classes import EXPERTS, LATENT, PROJECTED, ROUTERS, TOGETHER, classes
from attnprof.analytic.bound.layers import linear
from attnprof.analytic.bound.writing import Sheet, rows
from attnprof.analytic.prediction import Prediction

_PROJECTIONS = {found: names for names, text in PROJECTED.items() for found in classes(text)}
_OF_ALL = {found: names for names, text in TOGETHER.items() for found in classes(text)}
_LATENT_QUERIES, _LATENT_KEYS = ("q_proj", "q_a_proj", "q_b_proj"), ("kv_a_proj_with_mqa", "kv_b_proj")
#: The names under which another sequence is given, for keys and values.
_ELSEWHERE = ("key_value_states", "encoder_hidden_states")
#: Part of the names of ops that several tokens without a mask reach after the empty slots of a static cache were cut.
_CROPS = "_scaled_dot_product"


def attention(module: Recorded, call: Given) -> Prediction:
    """softmax(q kᵀ) v between the heads; the projections are layers of their own."""
    x = call.input(0, "hidden_states")
    other = next((given for given in call.inputs if given.name in _ELSEWHERE), None)
    if len(x.shape) != 3:
        raise UnpredictableError("its input is no batch of sequences")
    (q_proj, k_proj, v_proj), width = _projections(module, other is not None)
    sheet = Sheet("attention between heads", call)
    B, T = sheet.size("B", x.shape[0]), sheet.size("T", x.shape[1])
    S, n = sheet.size("S", _keys(module, call, x.shape[1], other)), sheet.size("n", width)
    memory = x if other is None else other
    needs = tuple(
        given.needs_grad or module.trains(part) for given, part in ((x, q_proj), (memory, k_proj), (memory, v_proj))
    )
    between_heads(sheet, module, B, T, S, n, n, (needs[0], needs[1], needs[2]))
    return sheet.prediction


for _home, _class_name in (*_PROJECTIONS, *_OF_ALL):
    binds(_home, _class_name, own=True)(attention)


def latent_attention(module: Recorded, call: Given) -> Prediction:
    """The same with keys and values made of a latent vector, and values of another width than keys (DeepSeek's)."""
    x = call.input(0, "hidden_states")
    if len(x.shape) != 3:
        raise UnpredictableError("its input is no batch of sequences")
    heads = module.size("num_heads")
    width, value_width = heads * module.size("qk_head_dim"), heads * module.size("v_head_dim")
    if width != value_width and is_fused(module):
        raise UnpredictableError("one kernel did attention with values of another width than keys")
    sheet = Sheet("attention between heads", call)
    B, T = sheet.size("B", x.shape[0]), sheet.size("T", x.shape[1])
    S, n = sheet.size("S", _keys(module, call, x.shape[1], None)), sheet.size("n", width)
    nv = sheet.size("nv", value_width)
    q, kv = (x.needs_grad or any(map(module.trains, names)) for names in (_LATENT_QUERIES, _LATENT_KEYS))
    between_heads(sheet, module, B, T, S, n, nv, (q, kv, kv))
    return sheet.prediction


for _home, _class_name in classes(LATENT):
    binds(_home, _class_name, own=True)(latent_attention)


def _projections(module: Recorded, elsewhere: bool) -> tuple[tuple[str, str, str], int]:
    """The projections of queries, keys and values, and how wide all heads are together."""
    key = module.home, module.class_name
    if key in _OF_ALL:
        together, out = _OF_ALL[key]
        return (together,) * 3, module.matrix(f"{out}.weight")[1]
    q_proj, k_proj, v_proj = _PROJECTIONS[key]
    if q_proj != k_proj:
        return (q_proj, k_proj, v_proj), module.matrix(f"{q_proj}.weight")[0]
    if elsewhere:  # GPT-2's matrices are [in, out]
        return ("q_attn", k_proj, v_proj), module.matrix("q_attn.weight")[1]
    return (q_proj, k_proj, v_proj), module.matrix(f"{q_proj}.weight")[1] // 3


def _keys(module: Recorded, call: Given, T: int, other: Input | None) -> int:
    """How many keys there are: those of another sequence, those that the mask is for, or those in the cache."""
    if other is not None:
        return other.shape[1]
    masks = [given for given in call.inputs if "mask" in given.name or (not given.name and len(given.shape) == 4)]
    for mask in masks:
        if len(mask.shape) == 4:
            return mask.shape[-1]
    if call.cached is None:
        return T
    if T > 1 and any(_CROPS in op for op in module.ops):
        return T
    if not call.cached.shape:
        raise UnpredictableError("it was given a cache, and nothing says how many tokens are in it")
    kept = call.cached.shape[-2]
    # Of a window, the new tokens see as many of those before as are kept.
    return kept if call.seen is None else min(call.seen - T, kept) + T


def router(module: Recorded, call: Given) -> Prediction:
    """A matrix from each token to the experts."""
    x = call.input(0, "hidden_states")
    experts, width = module.matrix("weight")
    sheet = Sheet("router", call)
    N, d, E = sheet.size("N", prod(x.shape) // width), sheet.size("d", width), sheet.size("E", experts)
    sheet.linear("router", sheet.tensor("x", N * d, x.needs_grad), N, d, E, module.trains("weight"))
    return sheet.prediction


def experts(module: Recorded, call: Given) -> Prediction:
    """Each token through k experts, whichever they are: a gated network of three matrices."""
    x, chosen = call.input(0, "hidden_states"), call.input(1, "top_k_index")
    width = module.size("hidden_dim")
    sheet = Sheet("experts", call)
    N, k = sheet.size("N", rows(x)), sheet.size("k", chosen.shape[-1])
    d, f = sheet.size("d", width), sheet.size("f", module.size("intermediate_dim"))
    trained = module.trains("gate_up_proj"), module.trains("down_proj")
    hidden = sheet.linear("gate_up", sheet.tensor("x", N * d, x.needs_grad), N * k, d, 2 * f, trained[0])
    down = sheet.linear("down", sheet.tensor("hidden", N * k * f, hidden.needs_grad), N * k, f, d, trained[1])
    sheet.tape.multiply(down, sheet.tensor("weights of the experts", N * k, True), "weighted")
    return sheet.prediction


for _text, _write in ((EXPERTS, experts), (ROUTERS, router)):
    for _home, _class_name in classes(_text):
        binds(_home, _class_name, own=True)(_write)
binds("transformers.models.falcon.modeling_falcon", "FalconLinear")(linear)
