"""Blocks of transformers (the library): what attention and experts do beside the layers in them."""

from __future__ import annotations

from math import prod

from attnprof.analytic.binding import Given, Input, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.attention import between_heads
from attnprof.analytic.bound.writing import Sheet, rows
from attnprof.analytic.prediction import Prediction

_MODELS = "transformers.models"
#: Projections of q, k and v -> class -> model. A projection of all three is named three times.
_CLASSES = {
    ("q_proj", "k_proj", "v_proj"): {
        "BartAttention": "bart",
        "BlenderbotAttention": "blenderbot",
        "CLIPAttention": "clip",
        "CohereAttention": "cohere",
        "Cohere2Attention": "cohere2",
        "DeiTAttention": "deit",
        "Dinov2Attention": "dinov2",
        "GemmaAttention": "gemma",
        "Gemma2Attention": "gemma2",
        "Gemma3Attention": "gemma3",
        "GlmAttention": "glm",
        "Glm4Attention": "glm4",
        "GPTNeoSelfAttention": "gpt_neo",
        "GPTJAttention": "gptj",
        "GraniteAttention": "granite",
        "HeliumAttention": "helium",
        "HubertAttention": "hubert",
        "LlamaAttention": "llama",
        "M2M100Attention": "m2m_100",
        "MarianAttention": "marian",
        "MBartAttention": "mbart",
        "MinistralAttention": "ministral",
        "MistralAttention": "mistral",
        "MixtralAttention": "mixtral",
        "NemotronAttention": "nemotron",
        "OlmoAttention": "olmo",
        "Olmo2Attention": "olmo2",
        "OlmoeAttention": "olmoe",
        "OPTAttention": "opt",
        "OwlViTAttention": "owlvit",
        "PegasusAttention": "pegasus",
        "PhiAttention": "phi",
        "PhimoeAttention": "phimoe",
        "PixtralAttention": "pixtral",
        "Qwen2Attention": "qwen2",
        "Qwen2MoeAttention": "qwen2_moe",
        "Qwen3Attention": "qwen3",
        "Qwen3MoeAttention": "qwen3_moe",
        "SiglipAttention": "siglip",
        "SmolLM3Attention": "smollm3",
        "StableLmAttention": "stablelm",
        "Starcoder2Attention": "starcoder2",
        "ViTAttention": "vit",
        "ViTMAEAttention": "vit_mae",
        "Wav2Vec2Attention": "wav2vec2",
        "WhisperAttention": "whisper",
        "XGLMAttention": "xglm",
    },
    ("query", "key", "value"): {
        "AlbertAttention": "albert",
        "BertCrossAttention": "bert",
        "BertSelfAttention": "bert",
        "CamembertSelfAttention": "camembert",
        "ElectraSelfAttention": "electra",
        "ErnieSelfAttention": "ernie",
        "EsmSelfAttention": "esm",
        "LayoutLMSelfAttention": "layoutlm",
        "MegatronBertSelfAttention": "megatron_bert",
        "RemBertSelfAttention": "rembert",
        "RobertaSelfAttention": "roberta",
        "VideoMAESelfAttention": "videomae",
        "ViltSelfAttention": "vilt",
        "VisualBertSelfAttention": "visual_bert",
        "XLMRobertaSelfAttention": "xlm_roberta",
        "XLMRobertaXLSelfAttention": "xlm_roberta_xl",
    },
    ("q", "k", "v"): {
        "MPNetSelfAttention": "mpnet",
        "MT5Attention": "mt5",
        "T5Attention": "t5",
        "UMT5Attention": "umt5",
    },
    ("q_lin", "k_lin", "v_lin"): {
        "DistilBertSelfAttention": "distilbert",
    },
    ("c_attn", "c_attn", "c_attn"): {
        "GPT2Attention": "gpt2",
    },
}
_PROJECTIONS = {name: projections for projections, classes in _CLASSES.items() for name in classes}
#: The names under which another sequence is given, for keys and values.
_ELSEWHERE = ("key_value_states", "encoder_hidden_states")
#: Part of the names of ops that several tokens without a mask reach after the empty slots of a static cache were cut.
_CROPS = "_scaled_dot_product"


def attention(module: Recorded, call: Given) -> Prediction:
    """softmax(q kᵀ) v between the heads; the projections are layers of their own."""
    q_proj, k_proj, v_proj = _PROJECTIONS[module.class_name]
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


for _classes in _CLASSES.values():
    for _class_name, _model in _classes.items():
        binds(f"{_MODELS}.{_model}.modeling_{_model}", _class_name, own=True)(attention)


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
