"""Every model type of transformers with its default configuration: it is counted, or a sentence says why not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.saved import hugging_face, hugging_face_inputs

TYPES = sorted(MODEL_MAPPING_NAMES)
PARTS = 12
#: Of each part at least this share runs. The others need packages that are not installed, look at values, take inputs
#: of a structure of their own, or have default configurations that no model can be built from.
LEAST = 0.5
#: Counts of layers, which default configurations have up to a hundred of: two are as telling.
LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"),
    *("num_encoder_layers", "num_decoder_layers"),
)


def shallow(table: dict[str, Any]) -> dict[str, Any]:
    """A configuration with two layers, where nothing in it lists its layers one by one."""
    for name, value in table.items():
        if isinstance(value, dict):
            shallow(value)
        elif name in LAYERS and isinstance(value, int) and value > 4 and not table.get("layer_types"):
            table[name] = 2
    return table


def outcome(kind: str, folder: Path) -> str:
    """Nothing where the model was counted, or else the sentence."""
    path = folder / "config.json"
    table = shallow(CONFIG_MAPPING[kind]().to_dict()) | {"model_type": kind}
    path.write_text(json.dumps(table, default=str))
    try:
        loaded = hugging_face.build(path, batch=2)
        report = attnprof.run(loaded, memory=False)
    except AttnprofError as error:
        return str(error)
    assert report.unpriced == {}, kind
    assert report.total.flops > 0, kind
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_type_is_counted_or_says_why_not(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face_inputs, "USUAL_SEQ", 16)  # recurrences that run token by token take long
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kinds = TYPES[part::PARTS]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sentences = {kind: outcome(kind, tmp_path) for kind in kinds}
    finally:
        torch.set_num_threads(threads)
    for kind, sentence in sentences.items():
        assert "\n" not in sentence, kind
        assert sentence == "" or sentence.endswith((".", "?", "!")), (kind, sentence)
    assert sum(sentence == "" for sentence in sentences.values()) >= LEAST * len(kinds), sentences


@pytest.mark.parametrize("kind", ["clip", "mpnet", "resnet", "xlnet"])
def test_a_sample_of_them_is_counted(kind: str, tmp_path: Path) -> None:
    assert outcome(kind, tmp_path) == ""


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    sentence = outcome("dinat", tmp_path)
    assert sentence.startswith("DinatModel needs more than is installed: ")
    assert "natten" in sentence
