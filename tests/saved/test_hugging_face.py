"""Models from Hugging Face configurations: those that transformers builds, counted alike; nothing fetched or run."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from huggingface_hub import constants
from transformers.utils import logging as hf_logging

import attnprof
from attnprof.api import Report
from attnprof.core.errors import AttnprofError
from attnprof.saved import hugging_face
from attnprof.saved.hugging_face_config import read
from attnprof.saved.hugging_face_tasks import TASKS
from attnprof.saved.loaded import Loaded

#: Small, and of sizes that differ.
DECODER = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**DECODER, "intermediate_size": 48}
VISION = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 40,
    "conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 4], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip

CONFIGS: dict[str, hf.PreTrainedConfig] = {
    "gpt2": hf.GPT2Config(
        n_embd=32, n_head=4, n_layer=2, vocab_size=96, n_positions=64, bos_token_id=0, eos_token_id=0
    ),
    "llama": hf.LlamaConfig(**DECODER, num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64),
    "mixtral": hf.MixtralConfig(**DECODER, num_key_value_heads=2, intermediate_size=48, num_local_experts=4),
    "bert": hf.BertConfig(**ENCODER, max_position_embeddings=64),
    "t5": hf.T5Config(vocab_size=96, d_model=32, num_heads=4, d_kv=8, num_layers=2, num_decoder_layers=1, d_ff=48),
    "bart": hf.BartConfig(
        vocab_size=96, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=64,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    ),
    "vit": hf.ViTConfig(**VISION, intermediate_size=48, num_channels=1, num_labels=5),
    "yolos": hf.YolosConfig(**VISION | {"image_size": [16, 24]}, intermediate_size=48, num_detection_tokens=6),
    "segformer": hf.SegformerConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_attention_heads=[1, 2], num_encoder_blocks=2, sr_ratios=[2, 1],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
    ),
    "wav2vec2": hf.Wav2Vec2Config(**SPEECH),
    "whisper": hf.WhisperConfig(
        vocab_size=96, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=20,
        max_target_positions=30, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    ),
    "clip": hf.CLIPConfig(
        text_config={**ENCODER, "max_position_embeddings": 16, "eos_token_id": 95},
        vision_config={**VISION, "intermediate_size": 40}, projection_dim=24,
    ),
    "llava": hf.LlavaConfig(
        text_config={**DECODER, "model_type": "llama", "intermediate_size": 48},
        vision_config={**VISION, "model_type": "clip_vision_model", "intermediate_size": 40}, image_token_index=95,
    ),
}  # fmt: skip

B, T = 2, 12
IDS, BOTH = {"input_ids": (B, T)}, {"input_ids": (B, T), "decoder_input_ids": (B, T)}
#: A configuration, a task, the class that it is, and the shapes of what it is called with.
BUILT = [
    ("gpt2", "text-generation", hf.GPT2LMHeadModel, IDS),
    ("gpt2", "text-classification", hf.GPT2ForSequenceClassification, IDS),
    ("llama", "text-generation", hf.LlamaForCausalLM, IDS),
    ("llama", "feature-extraction", hf.LlamaModel, IDS),
    ("mixtral", "causal-lm", hf.MixtralForCausalLM, IDS),
    ("bert", "fill-mask", hf.BertForMaskedLM, IDS),
    ("bert", "token-classification", hf.BertForTokenClassification, IDS),
    ("bert", "question-answering", hf.BertForQuestionAnswering, IDS),
    ("bert", "multiple-choice", hf.BertForMultipleChoice, {"input_ids": (B, 2, T)}),
    ("t5", "translation", hf.T5ForConditionalGeneration, BOTH),
    ("bart", "text2text-generation", hf.BartForConditionalGeneration, BOTH),
    ("vit", "image-classification", hf.ViTForImageClassification, {"pixel_values": (B, 1, 16, 16)}),
    ("yolos", "object-detection", hf.YolosForObjectDetection, {"pixel_values": (B, 3, 16, 24)}),
    ("segformer", "image-segmentation", hf.SegformerForSemanticSegmentation, {"pixel_values": (B, 3, 224, 224)}),
    ("wav2vec2", "audio-classification", hf.Wav2Vec2ForSequenceClassification, {"input_values": (B, 16_000)}),
    ("wav2vec2", "automatic-speech-recognition", hf.Wav2Vec2ForCTC, {"input_values": (B, 16_000)}),
    (
        "whisper", "automatic-speech-recognition", hf.WhisperForConditionalGeneration,
        {"input_features": (B, 8, 2 * 20), "decoder_input_ids": (B, T)},
    ),
    (
        "clip", "zero-shot-image-classification", hf.CLIPModel,
        {"input_ids": (B, T), "pixel_values": (B, 3, 16, 16)},
    ),
    ("llava", "image-text-to-text", hf.LlavaForConditionalGeneration, IDS),
]  # fmt: skip
TEXTLESS = {"pixel_values", "input_values"}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written(folder: Path, config: hf.PreTrainedConfig, **more: Any) -> Path:
    """The config.json that transformers would save."""
    path = folder / "config.json"
    path.write_text(json.dumps(config.to_dict() | {"model_type": config.model_type} | more), encoding="utf-8")
    return path


def built(path: Path, task: str | None = None, **sizes: Any) -> Loaded:
    return hugging_face.build(path, task=task, **sizes)


def said(path: Path, **options: Any) -> str:
    with pytest.raises(AttnprofError) as raised:
        hugging_face.build(path, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def counts(report: Report) -> dict[str, Any]:
    """All that a report counts, but where memory was peaking."""
    assert report.memory is not None
    return {
        "phases": report.phases,
        "modules": report.by_module(),
        "operators": report.by_operator(),
        "saved": report.memory.saved_by_module(),
        "parameters": report.root.params,
    }


#: Those that every run of the tests builds.
ALWAYS = (
    "gpt2-text-generation", "mixtral-causal-lm", "bert-multiple-choice", "t5-translation",
    "clip-zero-shot-image-classification",
    "vit-image-classification", "wav2vec2-automatic-speech-recognition", "whisper-automatic-speech-recognition",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "task", "kind", "shapes"),
    [
        pytest.param(*case, id=name, marks=[] if name in ALWAYS else pytest.mark.slow)
        for case in BUILT
        if (name := f"{case[0]}-{case[1]}")
    ],
)
def test_is_counted_as_the_model_that_transformers_builds(
    name: str, task: str, kind: type[torch.nn.Module], shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    path = written(tmp_path, CONFIGS[name])
    sizes = {"batch": B} | ({} if shapes.keys() <= TEXTLESS else {"seq": T})
    real = built(path, task, real=True, **sizes)
    assert type(real.model) is kind
    assert {k: tuple(v.shape) for k, v in real.kwargs.items() if isinstance(v, torch.Tensor)} == shapes

    config = type(CONFIGS[name]).from_dict(json.loads(path.read_text()))
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 0  # a classifier of several texts needs one
    direct = kind(config).eval()
    same = attnprof.run(direct, kwargs=real.kwargs, backward=True)
    assert counts(attnprof.run(real, backward=True)) == counts(same)

    fake = built(path, task, **sizes)
    assert fake.fake
    with_data = [n for n, p in fake.model.named_parameters() if not p.is_meta]  # in memory
    assert all(n.endswith("masked_spec_embed") for n in with_data)  # one vector, which is made by torch.Tensor(n)
    found = attnprof.run(fake, backward=True)
    assert found.unpriced == {}
    assert {p: c.matmul_flops for p, c in found.phases.items()} == {p: c.matmul_flops for p, c in same.phases.items()}
    assert found.root.params == same.root.params


def test_closed_form_of_a_decoder(tmp_path: Path) -> None:
    d, heads, kv, f, layers, vocabulary = 32, 4, 2, 48, 2, 96
    m = kv * d // heads
    each = B * T * 2 * (2 * d * d + 2 * d * m + 3 * d * f) + 4 * B * heads * T * T * (d // heads)
    report = attnprof.run(built(written(tmp_path, CONFIGS["llama"]), "text-generation", batch=B, seq=T))
    assert report.total.matmul_flops == layers * each + B * T * 2 * d * vocabulary


def test_a_large_model_takes_no_memory(tmp_path: Path) -> None:
    config = hf.LlamaConfig(
        hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128_256, dtype="bfloat16",
    )  # fmt: skip
    loaded = built(written(tmp_path, config, architectures=["LlamaForCausalLM"]), seq=4096)
    each = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28_672 + 2 * 8192
    assert sum(p.numel() for p in loaded.model.parameters()) == 80 * each + 2 * 128_256 * 8192 + 8192
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_the_class_is_the_tasks_or_the_files_or_the_bare_model(tmp_path: Path) -> None:
    named = written(tmp_path, CONFIGS["bert"], architectures=["BertForTokenClassification"])
    assert type(built(named).model) is hf.BertForTokenClassification
    assert type(built(named, "fill-mask").model) is hf.BertForMaskedLM
    bare = built(written(tmp_path, CONFIGS["bert"], architectures=None))
    assert type(bare.model) is hf.BertModel
    assert "names no architectures; --task is one of feature-extraction, text-generation, fill-mask" in bare.notes[0]
    assert type(built(tmp_path).model) is hf.BertModel  # the folder


def test_the_decoder_of_a_model_of_images_and_text(tmp_path: Path) -> None:
    loaded = built(written(tmp_path, CONFIGS["llava"], architectures=["LlamaForCausalLM"]), seq=T)
    assert type(loaded.model) is hf.LlamaForCausalLM
    assert loaded.model.config.hidden_size == 32


def test_nothing_is_fetched_and_nothing_stays_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    before = dict(os.environ), constants.HF_HUB_OFFLINE, hf_logging.get_verbosity(), torch.random.get_rng_state()
    path = written(
        tmp_path, CONFIGS["gpt2"], architectures=["GPT2LMHeadModel"], _name_or_path="someone/something",
        attn_implementation="kernels-community/flash-attn", _attn_implementation="kernels-community/flash-attn",
        auto_map={"AutoModelForCausalLM": "someone/something--modeling.Model"},
    )  # fmt: skip
    loaded = built(path, seq=T, real=True)
    attnprof.run(loaded)
    assert any("It was not run: this is transformers' own" in note for note in loaded.notes)
    with pytest.raises(AttnprofError):
        attnprof.run(loaded, kwargs={"input_ids": torch.zeros(1, 99, dtype=torch.long)})
    after = dict(os.environ), constants.HF_HUB_OFFLINE, hf_logging.get_verbosity(), torch.random.get_rng_state()
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])


def test_the_weights_and_inputs_of_a_real_run_are_the_seeds(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIGS["gpt2"], architectures=["GPT2LMHeadModel"])
    one, same, other = (built(path, seq=T, real=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.kwargs["input_ids"], same.kwargs["input_ids"])
    assert torch.equal(one.model.lm_head.weight, same.model.lm_head.weight)
    assert not torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)


def test_code_of_a_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "conf.Config"}}))
    (tmp_path / "conf.py").write_text("raise SystemExit('it ran')")
    assert "the code that it names itself (auto_map) is not run" in said(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[1]", "is no table of names and values"),
        ("{}", "names no model_type"),
        ('{"model_type": 3}', "names no model_type"),
        ('{"model_type": "gpt3"}', "does not know. Did you mean gptj, gpt2"),
        ('{"model_type": "gpt2", "n_layer": 1000000000}', "n_layer=1,000,000,000: from 0 to 10,000"),
        ('{"model_type": "gpt2", "num_labels": 1000000000}', "num_labels=1,000,000,000: from 0 to 1,000,000"),
        ('{"model_type": "gpt2", "n_layer": -1}', "n_layer=-1: from 0 to 10,000"),
        ('{"model_type": "gpt2", "n_embd": "wide"}', "is no configuration of a gpt2"),
        ('{"model_type": "gpt2", "n_head": 7}', "cannot be built as a GPT2Model"),
        ('{"model_type": "gpt2", "architectures": ["os.system"]}', "which transformers"),
        ('{"model_type": "gpt2", "architectures": ["pipeline"]}', "which transformers"),
        ('{"model_type": "gpt2", "architectures": ["BertModel"]}', "a gpt2 is not configured like one"),
        ("[" * 100_000, "is not valid JSON"),
        ("\x00\xff", "is not valid JSON"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    assert message in said(path)


def test_a_missing_file_and_a_folder_without_one(tmp_path: Path) -> None:
    assert "No such file" in said(tmp_path / "config.json")
    assert "No such file" in said(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "text-generaton"}, 'no task "text-generaton". Did you mean text-generation'),
        ({"task": "image-classification"}, "a gpt2 has no model for image-classification in transformers; it has"),
        ({"batch": 0}, "--batch must be a whole number above zero, not 0"),
        ({"seq": -3}, "--seq must be a whole number above zero, not -3"),
        ({"seq": 64, "task": "vision"}, 'no task "vision"'),
        ({"seq": 65}, "GPT2Model has learned positions for 64 tokens at most"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in said(written(tmp_path, CONFIGS["gpt2"]), **options)


def test_a_length_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    message = "--seq changes nothing of ViTModel, which takes pixel_values: leave it out."
    assert said(written(tmp_path, CONFIGS["vit"]), seq=5) == message


def test_more_tokens_than_rotary_positions_are_said(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIGS["llama"])
    assert (
        "65 tokens are more than the 64 that the model is made for (max_position_embeddings)."
        in built(path, seq=65).notes
    )
    assert not any("made for" in note for note in built(path, seq=64).notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
        ({"load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({"something": 1}, "in a way it does not name"),
        ("gptq", "in a way it does not name"),
    ],
)
def test_what_is_modelled_of_quantised_weights_is_said(settings: Any, words: str, tmp_path: Path) -> None:
    plain = built(written(tmp_path, CONFIGS["llama"], dtype="bfloat16"), seq=T)
    loaded = built(written(tmp_path, CONFIGS["llama"], dtype="bfloat16", quantization_config=settings), seq=T)
    note = next(note for note in loaded.notes if "quantised" in note)
    assert note.startswith(
        f"The weights are quantised ({words}). What is modelled is the same model unquantised, in bfloat16"
    )
    assert attnprof.run(loaded).phases == attnprof.run(plain).phases


def test_what_a_text_alone_leaves_out_is_said(tmp_path: Path) -> None:
    sentence = "Called with text alone: images, their encoder and their tokens are not in the counts."
    assert sentence in built(written(tmp_path, CONFIGS["llava"]), "image-text-to-text", seq=T).notes
    assert not any("text alone" in note for note in built(written(tmp_path, CONFIGS["clip"]), seq=T).notes)


def test_what_says_how_to_run_and_not_what_is_left_out(tmp_path: Path) -> None:
    plain = built(written(tmp_path, CONFIGS["llama"], architectures=["LlamaForCausalLM"]), seq=T)
    path = written(
        tmp_path, CONFIGS["llama"], architectures="LlamaForCausalLM", dtype="auto", return_dict=False, torchscript=True
    )
    assert attnprof.run(built(path, seq=T)).phases == attnprof.run(plain).phases


def test_images_are_as_large_as_the_processor_makes_them(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIGS["segformer"])
    for size in ({"height": 64, "width": 96}, {"shortest_edge": 32}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))
        expected = (size.get("height", 32), size.get("width", 32))
        assert built(path, "image-segmentation").kwargs["pixel_values"].shape == (1, 3, *expected)
    assert read(path).image == (32, 32)


def test_a_call_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    loaded = built(written(tmp_path, CONFIGS["vit"]), real=True)
    with pytest.raises(
        AttnprofError, match=r"ViTModel cannot be called with .*\(pixel_values \[1, 1, 9, 9\]\)"
    ) as raised:
        attnprof.run(loaded, kwargs={"pixel_values": torch.zeros(1, 1, 9, 9)})
    assert "\n" not in str(raised.value)


def test_a_model_that_looks_at_values_says_how_it_can_be_run(tmp_path: Path) -> None:
    config = hf.LongformerConfig(**ENCODER, attention_window=[4, 4], max_position_embeddings=64)
    path = written(tmp_path, config)
    with pytest.raises(AttnprofError, match=r"looks at values of its tensors .*--real builds it with random weights"):
        attnprof.run(built(path, seq=8))
    assert attnprof.run(built(path, seq=8, real=True)).total.matmul_flops > 0


def test_every_task_has_a_model_somewhere() -> None:
    from transformers.models.auto import modeling_auto

    assert all(len(getattr(modeling_auto, f"{table}_MAPPING")) for tables in TASKS.values() for table in tables)
