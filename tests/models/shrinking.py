"""Any ``transformers`` model type as a tiny model with an input it accepts.

A configuration keeps its class's defaults except for the sizes, which are looked up by field name below;
the configurations inside it (text, vision, audio) are shrunk the same way. Inputs follow from the
signature of ``forward`` and the sizes chosen.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WIDTH, HEADS, LAYERS, TOKENS, IMAGE, PATCH, VOCABULARY = 32, 4, 2, 12, 32, 8, 128
BATCH = 2

#: Fields and the small value they take. A field that a configuration does not have is not set.
_FIELDS: tuple[tuple[str, int | float], ...] = (
    (
        """hidden_size n_embd d_model dim embed_dim embedding_size hidden_dim encoder_hidden_size
        decoder_hidden_size word_embed_proj_dim emb_dim cross_attention_hidden_size encoder_hidden_dim
        out_hidden_size projector_hidden_size text_hidden_size lru_width decoder_width projection_dim
        d_embed hidden_size_per_layer_input output_dim backbone_hidden_size fpn_hidden_size
        fusion_hidden_size mask_feature_size feature_size conv_hidden_size hidden_size_global
        memory_attention_hidden_size memory_encoder_hidden_size classifier_proj_size vq_hidden_size
        image_text_hidden_size dim_model latent_dim proj_codevector_dim codevector_dim vision_embed_dim
        compression_hidden_size attention_hidden_size embedding_dim output_channels""",
        WIDTH,
    ),
    (
        """intermediate_size n_inner ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff d_inner mlp_dim dim_ff
        ffn_hidden_size dim_feedforward encoder_intermediate_size decoder_intermediate_size feedforward_dim
        shared_intermediate_size encoder_feedforward_dim dense_intermediate_size intermediate_size_mlp
        speech_encoder_intermediate_size t2u_encoder_ffn_dim t2u_decoder_ffn_dim
        memory_attention_feed_forward_hidden_size""",
        2 * WIDTH,
    ),
    ("moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank", WIDTH),
    (
        """max_position_embeddings n_positions n_ctx max_source_positions max_target_positions seq_length max_seq_len
        block_size max_text_len""",
        64,
    ),
    (
        """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        decoder_num_attention_heads encoder_num_attention_heads attention_heads linear_num_value_heads
        decoder_num_heads t2u_encoder_attention_heads t2u_decoder_attention_heads speech_encoder_attention_heads
        num_encoder_attention_heads num_decoder_attention_heads index_n_heads""",
        HEADS,
    ),
    (
        """num_key_value_heads n_head_kv linear_num_key_heads encoder_num_key_value_heads
        decoder_num_key_value_heads num_kv_heads""",
        HEADS // 2,
    ),
    (
        """head_dim d_kv dim_head d_head attention_head_size linear_key_head_dim linear_value_head_dim
        qk_rope_head_dim qk_nope_head_dim v_head_dim index_head_dim rotary_dim""",
        WIDTH // HEADS,
    ),
    ("num_experts num_local_experts n_routed_experts moe_num_experts", 4),
    ("num_experts_per_tok moe_k moe_topk num_experts_per_token", 2),
    ("n_group topk_group", 1),
    (
        """num_hidden_layers n_layer n_layers num_layers layers encoder_layers decoder_layers num_decoder_layers
        num_encoder_layers depth decoder_num_hidden_layers encoder_num_hidden_layers num_blocks
        speech_encoder_layers t2u_encoder_layers t2u_decoder_layers decoder_depth""",
        LAYERS,
    ),
    ("sliding_window sliding_window_size attention_window local_attention index_topk", 8),
    ("mask_time_length mask_feature_length", 2),
    (
        "vocab_size entity_vocab_size vocab_size_per_layer_input input_vocab_size output_vocab_size t2u_vocab_size",
        VOCABULARY,
    ),
    ("codebook_size num_codevectors_per_group", 16),
    ("image_size img_size", IMAGE),
    ("patch_size", PATCH),
    ("window_size num_frames frames_per_clip", 4),
    # layers dropped at random would make two runs of a model differ
    ("layerdrop encoder_layerdrop decoder_layerdrop drop_path_rate", 0.0),
)
SMALL = {name: value for names, value in _FIELDS for name in names.split()}


#: What single configuration classes need besides, by model type: sizes that must fit each other.
ADJUSTED: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "donut-swin": {"image_size": 64, "patch_size": 4, "window_size": 2},
    "esm": {"vocab_size": 64, "pad_token_id": 1, "mask_token_id": 63},
    "falcon_h1": {"mamba_chunk_size": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "grounding-dino": {"num_queries": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "mm-grounding-dino": {"num_queries": 4},
    "nemotron_h": {"chunk_size": 8},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_shape": [3, 4], "axial_pos_embds_dim": [8, 24], "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 2,
    },
    "swin": {"image_size": 64, "patch_size": 4, "window_size": 2},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip
for _name in ("bailing_hybrid", "kimi_linear", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"):
    ADJUSTED[_name] = {"layer_types": ["linear_attention", "full_attention"]}
for _name in (
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "glm4v_text", "glm4v_moe_text", "glm_ocr_text"),
    *("glm_image_text", "paddleocr_vl_text", "ernie4_5_vl_moe_text", "cosmos3_edge_text"),
):
    # the three parts of a position (time, height, width) share the head's rotated pairs
    ADJUSTED[_name] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}


def small_config(kind: type[PretrainedConfig]) -> PretrainedConfig:
    """A configuration of this class with small sizes, those of its inner configurations too."""
    fields = inspect.signature(kind.__init__).parameters
    staged = "depths" in fields  # widths and heads of every stage are one list: they stay as they are
    chosen: dict[str, Any] = {}
    tokens = iter(range(VOCABULARY - 1, 0, -1))
    for name, field in fields.items():
        default = field.default
        if name.endswith(("_token_id", "_token_index")) and isinstance(default, int) and default >= VOCABULARY // 2:
            chosen[name] = next(tokens)
        elif name not in SMALL or (staged and name in ("embed_dim", "hidden_size", "window_size")):
            continue
        elif isinstance(default, list | tuple) and name == "image_size":
            chosen[name] = [IMAGE, IMAGE]
        elif default is None or (isinstance(default, int | float) and default > SMALL[name]):
            chosen[name] = SMALL[name]
    if "kv_lora_rank" in chosen and "num_key_value_heads" in chosen:  # latent attention: a key for every query head
        chosen["num_key_value_heads"] = chosen["num_attention_heads"]
    for name in getattr(kind, "sub_configs", None) or {}:
        inner = getattr(kind(), name, None) if name in fields else None
        if inner is not None:
            chosen[name] = small_config(type(inner)).to_dict()
    return kind(**chosen | ADJUSTED.get(kind.model_type, {}))


def build(model_type: str) -> nn.Module:
    """The bare model of this type, small, with random weights."""
    return AutoModel.from_config(small_config(CONFIG_MAPPING[model_type]))


def inputs(model: nn.Module) -> dict[str, Tensor]:
    """Keyword arguments that ``forward`` accepts: the required ones, and one input for every encoder there is."""
    wanted = inspect.signature(model.forward).parameters
    main = "input_ids" if "input_ids" in wanted else model.main_input_name
    two_towers = not any(name.endswith(("image_token_id", "image_token_index")) for name in vars(model.config))
    given = {}
    for name, parameter in wanted.items():
        required = parameter.default is inspect.Parameter.empty
        if name == main or required or name in ALWAYS or (name == "pixel_values" and two_towers):
            value = _value(name, model.config)
            if value is not None:
                given[name] = value
    return given


#: Optional in the signature, yet no model that has them runs without.
ALWAYS = ("decoder_input_ids", "bbox")


def _value(name: str, config: PretrainedConfig) -> Tensor | None:
    if name in ("input_ids", "decoder_input_ids"):
        return torch.randint(4, 60, (BATCH, TOKENS))
    if name == "bbox":
        return torch.tensor([1, 2, 5, 9]).expand(BATCH, TOKENS, 4)
    channels = _find(config, "num_channels", "in_channels", default=3)
    if name in ("pixel_values", "pixel_values_videos"):
        size = _find(config, "image_size", "crop_size", default=IMAGE)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        frames = _find(config, "num_frames", "frames_per_clip", default=0)
        video = frames and not isinstance(frames, list) and config.model_type in VIDEO
        return torch.randn(BATCH, *([frames] if video else []), channels, height, width)
    if name == "hidden_states":  # of vision towers: one row per patch
        pixels = _find(config, "temporal_patch_size", default=1) * _find(config, "patch_size", default=PATCH) ** 2
        return torch.randn(16, channels * pixels)
    if name in ("grid_thw", "image_grid_thw"):
        return torch.tensor([[1, 4, 4]])
    if name == "input_features":
        mels = _find(config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", default=80)
        length = 2 * _find(config, "max_source_positions", default=64)
        return torch.randn(BATCH, *((length, mels) if config.model_type in FRAMES_FIRST else (mels, length)))
    if name == "past_values":
        length, series = _find(config, "context_length", default=64), _find(config, "num_input_channels", default=1)
        return torch.randn(BATCH, length, series)
    if name == "input_values":
        return torch.randn(BATCH, *([1] if config.model_type in WAVES_WITH_CHANNEL else []), 2000)
    return None


#: Types whose inputs have one dimension more than others', or two of them the other way round.
VIDEO = ("timesformer", "videomae", "vivit", "vjepa2", "xclip", "videoprism", "videoprism_vision_model")
FRAMES_FIRST = (
    *("speech_to_text", "wav2vec2-bert", "seamless_m4t", "seamless_m4t_v2", "univnet", "canary", "cohere_asr"),
    *("parakeet_ctc", "parakeet_encoder", "parakeet_rnnt", "parakeet_tdt", "xcodec2", "neucodec"),
    *("nemotron_asr_streaming", "nemotron_asr_streaming_encoder", "nemotron3_5_asr"),
)
WAVES_WITH_CHANNEL = ("dac", "encodec", "mimi", "xcodec", "vibevoice_acoustic_tokenizer")


def _find(config: PretrainedConfig, *names: str, default: Any) -> Any:
    """The first of these fields that the configuration, or one inside it, has."""
    for name in names:
        for c in _configs(config):
            found = getattr(c, name, None)
            if found is not None:
                return found
    return default


def _configs(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    yield config
    for name in getattr(config, "sub_configs", None) or {}:
        inner = getattr(config, name, None)
        if isinstance(inner, PretrainedConfig):
            yield from _configs(inner)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of a model's output, opened."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (t for v in value.values() for t in tensors(v))
    elif isinstance(value, list | tuple):
        yield from (t for v in value for t in tensors(v))
