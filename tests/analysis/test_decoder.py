"""What a config.json predicts is what its model does: parameters, matmul FLOPs and cache."""
# ruff: noqa: N806 (the symbols are those of formulas)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import attnprof
from attnprof.analysis.decoder import Decoder, Layer, Matrix
from attnprof.analysis.decoder_config import read
from attnprof.analysis.decoder_families import FAMILIES
from attnprof.analysis.decoder_step import ATTENTION, parts, total
from attnprof.analytic import predict
from attnprof.core.errors import AttnprofError

B, T, N = 2, 6, 4
#: Small sizes by the names of every family, so that swapping two of them changes a count.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "n_embd": 32,
    "word_embed_proj_dim": 32,
    "vocab_size": 50,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "rotary_dim": 4,
    "intermediate_size": 48,
    "ffn_dim": 40,
    "num_hidden_layers": 3,
    "n_layer": 3,
    "n_positions": 64,
    "max_position_embeddings": 64,
    "sliding_window": 4,
    "num_local_experts": 5,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
#: Config fields away from their usual values.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": None}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 4}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 3}),
    ("qwen2_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [1], "num_hidden_layers": 4}),
    ("qwen3_moe", {"mlp_only_layers": [0], "attention_bias": True}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("gpt2", {"n_inner": 40, "tie_word_embeddings": False}),
    ("gpt_neox", {"attention_bias": False}),
    ("opt", {"enable_bias": False}),
    ("phimoe", {"attention_bias": True, "lm_head_bias": True}),
    ("stablelm", {"use_qkv_bias": True}),
    ("starcoder2", {"use_bias": False, "sliding_window": 5}),
]


def config_of(model_type: str, changes: dict[str, Any]) -> Any:
    """A small config: the sizes that the family has a field for. Windows only where it has one as it is."""
    usual = hf.AutoConfig.for_model(model_type)
    given = {name: size for name, size in SIZES.items() if hasattr(usual, name)}
    if getattr(usual, "sliding_window", None) is None:
        given.pop("sliding_window", None)
    return type(usual)(**{**given, **changes})


#: Those that are always checked; the others share their fields.
OFTEN = ("gpt2", "llama", "mistral", "mixtral", "gemma2", "qwen2", "qwen2_moe", "qwen3", "gpt_oss")
CASES: list[Any] = [
    pytest.param(
        name, changes, marks=() if name in OFTEN else pytest.mark.slow, id=f"{name} {' '.join(changes)}".strip()
    )
    for name, changes in [*((name, {}) for name in FAMILIES), *VARIANTS]
]


@pytest.mark.parametrize(("model_type", "changes"), CASES)
def test_it_is_what_the_model_does(model_type: str, changes: dict[str, Any]) -> None:
    """Prefill of T tokens and decode steps, measured on fake tensors; bfloat16, which grouped matmuls need there."""
    config = config_of(model_type, changes)
    with attnprof.fake_tensors():
        model = hf.AutoModelForCausalLM.from_config(config).eval()
        ids = torch.zeros(B, T, dtype=torch.int64)
    predicted = read(config.to_dict())
    assert predicted.parameters == sum(p.numel() for p in model.parameters())
    plan = attnprof.Plan(dtype="bf16")
    measured = attnprof.run(model, (), {"input_ids": ids}, generate=N, fake=True, plan=plan).steps
    for i, step in enumerate(measured):
        predicted_step = total(parts(predicted, B, 1 if i else T, T + i, 2))
        assert predicted_step.flops == step.cost.matmul_flops
        assert predicted_step.bytes < step.cost.bytes  # which has what goes from op to op besides
        assert step.cache_bytes == B * predicted.cached_numbers(T + i) * 2


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
def test_a_config_file_as_it_is_saved(model_type: str, tmp_path: Any) -> None:
    """What a library saves leaves out what is usual for it."""
    config = config_of(model_type, {})
    config.save_pretrained(tmp_path)
    assert read(tmp_path) == read(str(tmp_path / "config.json")) == read(config.to_dict())


@pytest.mark.parametrize("model_type", ["cohere2", "gemma2", "gemma3_text", "gpt_oss", "mistral", "ministral", "olmo3"])
def test_windows_of_a_config_that_lists_no_layers(model_type: str) -> None:
    """Older files have no ``layer_types``: the usual pattern is that of the library."""
    config = config_of(model_type, {"num_hidden_layers": 13})
    fields = config.to_dict()
    listed = fields.pop("layer_types", ["sliding_attention"] * 13)
    counts = {layer.window: count for count, layer in read(fields).layers}
    assert counts.get(4, 0) == listed.count("sliding_attention")
    assert counts.get(None, 0) == listed.count("full_attention")
    assert read(fields) == read(config.to_dict())


# Against the other closed forms, and by hand


def test_a_layer_is_the_decoding_step_of_the_formulas() -> None:
    d, H, Hkv, dh, f, S = 24, 6, 2, 5, 40, 9
    n, m = H * dh, Hkv * dh
    projections = (Matrix(d, n), Matrix(d, m), Matrix(d, m), Matrix(n, d))
    layer = Layer(H, Hkv, dh, projections, (Matrix(d, f), Matrix(f, d)))
    model = Decoder("hand", d, 50, ((3, layer),), Matrix(d, 50), tied=False)
    for new in (1, 4, S):
        theory = predict("decode-layer", B=B, T=new, S=S, d=d, H=H, Hkv=Hkv, dh=dh, f=f, e=2)
        step = total(parts(model, B, new, S, 2))
        head = 2 * B * d * 50
        assert step.flops == 3 * theory.evaluate("matmul_flops", "forward") + head
        assert step.useful_flops == 3 * theory.evaluate("useful_matmul_flops", "forward") + head
        assert step.cache_bytes == 3 * theory.evaluate("kv_cache_bytes")
        assert step.weight_bytes == 2 * (3 * (d * (2 * n + 2 * m) + 2 * d * f) + d * 50)


def test_windows_pair_by_pair() -> None:
    """Every window, prompt and cache, against the pairs themselves: query i sees the last w keys up to its own."""
    for window in (None, 1, 2, 3, 7):
        layer = Layer(1, 1, 1, (), (), window=window)
        for S in range(1, 8):
            for new in range(1, S + 1):
                seen = {(i, j) for i in range(S - new, S) for j in range(i + 1) if window is None or j > i - window}
                assert layer.useful_pairs(new, S) == len(seen)
                assert layer.keys(new, S) == len({j for _, j in seen})
                after = {j for j in range(S) if window is None or j > S - window}  # what query S will see
                assert layer.kept(S) == len(after)


def test_bytes_part_by_part() -> None:
    """A layer without a feed-forward network, by hand: weights, keys and values, and what goes between layers."""
    d, V, e, S = 4, 7, 2, 5
    layer = Layer(2, 1, 3, (Matrix(d, 6, bias=True),), (), vectors=8)
    model = Decoder(
        "hand", d, V, ((1, layer),), Matrix(d, V), tied=True, vectors=4, positions=9, position_numbers=9 * d
    )
    for rows in (1, 3):
        found = {part.name: part for part in parts(model, B, rows, S, e)}
        stream = B * rows * d * e
        assert found["embedding"].weight_bytes == rows * d * e  # positions are those of all sequences
        assert found["embedding"].activation_bytes == 2 * stream
        assert found["projections"].weight_bytes == (d * 6 + 6 + 8) * e
        assert found[ATTENTION].cache_read_bytes == B * (S - rows) * 2 * 3 * e
        assert found[ATTENTION].cache_write_bytes == B * rows * 2 * 3 * e
        assert found["head"].weight_bytes == (d * V + 4) * e
        assert found["head"].activation_bytes == B * (d + V) * e
        assert found["projections"].activation_bytes + found[ATTENTION].activation_bytes == 2 * stream
    assert model.parameters == V * d + 9 * d + (d * 6 + 6 + 8) + 4


@pytest.mark.parametrize(("rows", "met"), [(1, 2), (2, 4), (3, 5), (100, 5)])
def test_experts_are_read_once_each(rows: int, met: int) -> None:
    """Of 5, each row is sent to 2; spread evenly, min(5, 2 rows) of them have one."""
    matrix = Matrix(3, 4, bias=True, experts=5, chosen=2)
    assert matrix.numbers_read(rows) == met * (3 * 4 + 4)
    assert matrix.flops(rows) == 2 * (2 * rows) * 3 * 4
    assert matrix.parameters == 5 * (3 * 4 + 4)


def test_the_document_names_every_family() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    listed = re.search(r"^`model_type` is one of ([^.]*)\.", text, re.MULTILINE)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == list(FAMILIES)


# Bad input

LLAMA = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9}
LLAMA |= {"intermediate_size": 48}

MOE = {**LLAMA, "model_type": "qwen3_moe", "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
MOE |= {"moe_intermediate_size": 8}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"hidden_size": 3}, "the config names no model_type: it is one of arcee, cohere, "),
        ({"model_type": "lama"}, "no closed form of a lama: there are arcee, .* Did you mean llama"),
        ({"model_type": "bert"}, "no closed form of a bert: there are "),
        ({"model_type": ["llama"]}, r"no closed form of a \['llama'\]: there are "),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            "the config is of a gemma3, which is more than a decoder: give its text_config, a gemma3_text, as a ",
        ),
        (
            {"model_type": "llama", "vocab_size": 3},
            "the config, of a llama, has no hidden_size, num_hidden_layers, num",
        ),
        ({"model_type": "mistral", **{k: v for k, v in LLAMA.items() if k != "model_type"}}, "no num_key_value_heads"),
        ({**LLAMA, "hidden_size": 0}, "the config: hidden_size is a whole number above zero, not 0"),
        ({**LLAMA, "hidden_size": "32"}, "the config: hidden_size is a whole number above zero, not '32'"),
        ({**LLAMA, "hidden_size": True}, "hidden_size is a whole number above zero, not True"),
        ({**LLAMA, "num_attention_heads": 5}, "num_attention_heads must divide hidden_size: hidden_size=32 is no "),
        ({**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads"),
        ({**LLAMA, "model_type": "gemma2", "num_key_value_heads": 2, "layer_types": ["x", "y"]}, "a layer of 'x'"),
        ({**LLAMA, "model_type": "gemma2", "num_key_value_heads": 2, "layer_types": []}, "2 layers, and layer_types"),
        ({**LLAMA, "model_type": "stablelm", "qk_layernorm": True}, "has qk_layernorm=True: only False has a closed f"),
        ({**LLAMA, "num_hidden_layers": 10**12}, "has 1,000,000,000,000 layers: at most 10,000 are taken for real"),
        ({**LLAMA, "tie_word_embeddings": "no"}, "tie_word_embeddings is true or false, not 'no'"),
        ({**LLAMA, "attention_bias": 1}, "attention_bias is true or false, not 1"),
        ({**MOE, "mlp_only_layers": 3}, "mlp_only_layers is a list of layers, not 3"),
        ({**MOE, "num_experts_per_tok": 9}, "num_experts_per_tok can be at most num_experts"),
        ({**MOE, "num_experts": None}, "the config, of a qwen3_moe, has no num_experts"),
        ({**LLAMA, "hidden_size": 10**400}, "hidden_size is larger than any, 1e[+]12"),
        ([1], "a config is a mapping or the path of a config.json, not a list"),
    ],
)
def test_mistakes(config: Any, sentence: str) -> None:
    with pytest.raises(AttnprofError, match=sentence) as raised:
        read(config)
    assert str(raised.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "is not valid JSON"), ("[1]", "is no table of names and values"), ("\udcff", "is not valid JSON")],
)
def test_broken_files(text: str, sentence: str, tmp_path: Any) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AttnprofError, match=sentence):
        read(tmp_path)
    with pytest.raises(AttnprofError, match=r"cannot read the config .*nowhere.json: No such file"):
        read(tmp_path / "nowhere.json")


def test_a_name_beside_the_config() -> None:
    unnamed = {name: value for name, value in LLAMA.items() if name != "model_type"}
    assert read(unnamed, "llama") == read(LLAMA)
    with pytest.raises(AttnprofError, match=r"the config is of a llama, not of a mistral\."):
        read(LLAMA, "mistral")
