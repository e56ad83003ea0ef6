"""Blocks of transformers (the library): what attention and experts do beside the layers in them."""

from __future__ import annotations

from math import prod

from attnprof.analytic.binding import Given, Input, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.attention import between_heads
from attnprof.analytic.bound.writing import Sheet, rows
from attnprof.analytic.prediction import Prediction

_MODELS = "transformers.models"
#: Class -> (model, projections of q, k and v). A projection of all three is named three times.
_ATTENTION = {
    "GPT2Attention": ("gpt2.modeling_gpt2", ("c_attn", "c_attn", "c_attn")),
    "LlamaAttention": ("llama.modeling_llama", ("q_proj", "k_proj", "v_proj")),
    "MistralAttention": ("mistral.modeling_mistral", ("q_proj", "k_proj", "v_proj")),
    "Qwen2Attention": ("qwen2.modeling_qwen2", ("q_proj", "k_proj", "v_proj")),
    "Qwen3Attention": ("qwen3.modeling_qwen3", ("q_proj", "k_proj", "v_proj")),
    "MixtralAttention": ("mixtral.modeling_mixtral", ("q_proj", "k_proj", "v_proj")),
    "BertSelfAttention": ("bert.modeling_bert", ("query", "key", "value")),
    "BertCrossAttention": ("bert.modeling_bert", ("query", "key", "value")),
    "T5Attention": ("t5.modeling_t5", ("q", "k", "v")),
    "ViTAttention": ("vit.modeling_vit", ("q_proj", "k_proj", "v_proj")),
    "ViTSelfAttention": ("vit.modeling_vit", ("query", "key", "value")),
    "WhisperAttention": ("whisper.modeling_whisper", ("q_proj", "k_proj", "v_proj")),
}
#: The names under which another sequence is given, for keys and values.
_ELSEWHERE = ("key_value_states", "encoder_hidden_states")


def attention(module: Recorded, call: Given) -> Prediction:
    """softmax(q kᵀ) v between the heads; the projections are layers of their own."""
    q_proj, k_proj, v_proj = _ATTENTION[module.class_name][1]
    x = call.input(0, "hidden_states")
    other = next((given for given in call.inputs if given.name in _ELSEWHERE), None)
    if len(x.shape) != 3:
        raise UnpredictableError("its input is no batch of sequences")
    if other is not None and q_proj == k_proj:
        q_proj = "q_attn"
    weight = module.matrix(f"{q_proj}.weight")
    width = weight[1] // 3 if q_proj == k_proj else weight[1] if q_proj == "q_attn" else weight[0]
    sheet = Sheet("attention between heads", call)
    B, T = sheet.size("B", x.shape[0]), sheet.size("T", x.shape[1])
    S, n = sheet.size("S", _keys(module, call, x.shape[1], other)), sheet.size("n", width)
    memory = x if other is None else other
    needs = tuple(
        given.needs_grad or module.trains(part) for given, part in ((x, q_proj), (memory, k_proj), (memory, v_proj))
    )
    between_heads(sheet, module, B, T, S, n, n, (needs[0], needs[1], needs[2]))
    return sheet.prediction


for _class_name, (_home, _) in _ATTENTION.items():
    binds(f"{_MODELS}.{_home}", _class_name, own=True)(attention)


def _keys(module: Recorded, call: Given, T: int, other: Input | None) -> int:
    """How many keys there are. A cache is no tensor: the mask shows its length, where there is one."""
    if other is not None:
        return other.shape[1]
    masks = [given for given in call.inputs if "mask" in given.name or (not given.name and len(given.shape) == 4)]
    for mask in masks:
        if len(mask.shape) == 4:
            return mask.shape[-1]
    if T == 1 and (module.flag("is_causal") or module.flag("is_decoder")):
        raise UnpredictableError("it was called with one token, and nothing says how many are in its cache")
    return T


@binds(f"{_MODELS}.mixtral.modeling_mixtral", "MixtralTopKRouter", own=True)
def router(module: Recorded, call: Given) -> Prediction:
    """A matrix from each token to the experts."""
    x = call.input(0, "hidden_states")
    experts, width = module.matrix("weight")
    sheet = Sheet("router", call)
    N, d, E = sheet.size("N", prod(x.shape) // width), sheet.size("d", width), sheet.size("E", experts)
    sheet.linear("router", sheet.tensor("x", N * d, x.needs_grad), N, d, E, module.trains("weight"))
    return sheet.prediction


@binds(f"{_MODELS}.mixtral.modeling_mixtral", "MixtralExperts", own=True)
def experts(module: Recorded, call: Given) -> Prediction:
    """Each token through k experts, whichever they are: a gated network of three matrices."""
    x, chosen = call.input(0, "hidden_states"), call.input(1, "top_k_index")
    width = module.size("hidden_dim")
    sheet = Sheet("experts", call)
    N, k = sheet.size("N", rows(x)), sheet.size("k", chosen.shape[-1])
    d, f = sheet.size("d", width), sheet.size("f", module.size("intermediate_dim"))
    trained = module.trains("gate_up_proj"), module.trains("down_proj")
    hidden = sheet.linear("gate_up", sheet.tensor("x", N * d, x.needs_grad), N * k, d, 2 * f, trained[0])
    sheet.linear("down", sheet.tensor("hidden", N * k * f, hidden.needs_grad), N * k, f, d, trained[1])
    return sheet.prediction
