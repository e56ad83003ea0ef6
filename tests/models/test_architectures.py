"""Which models of transformers theory accounts for in full, and the list of them in docs/comparison.md.

The list is that of a run of every model type, shrunk; ``UPDATE_DOCS=1 pytest -m slow`` of this file writes it anew.
"""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest
import torch
import transformers as hf
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import attnprof
from attnprof.analysis.comparison import Compared
from models import shrinking
from models.test_sweep import MODEL_TYPES

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
LIST = re.compile(r"(<!-- models -->\n)(.*?)(<!-- end of models -->)", re.DOTALL)
#: Those that every run checks: of each way to project queries, keys and values, and of experts.
FAMILIES = (
    "bloom",
    "deepseek_v2",
    "deepseek_v3",
    "deit",
    "falcon",
    "gpt_bigcode",
    "gpt_neox",
    "modernbert",
    "mpt",
    "phi3",
    "qwen2_moe",
    "siglip_vision_model",
)


def compared(model_type: str) -> Compared:
    """Forward and backward of a small model of this type."""
    torch.manual_seed(0)
    model = shrinking.build(model_type)
    return attnprof.run(model, kwargs=shrinking.inputs(model), backward=True).theory


def is_predicted(theory: Compared) -> bool:
    return not theory.reasons and set(theory.predicted) == set(theory.modules)


def listed() -> list[str]:
    """The model types on the page."""
    found = LIST.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return re.findall(r"`([^`]+)`", found[2].partition("\n\n")[2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_families(model_type: str) -> None:
    theory = compared(model_type)
    assert is_predicted(theory)
    theory.require_exact()
    assert model_type in listed()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["bloom", "deepseek_v3", "falcon", "gpt_neox", "phi3", "qwen3_moe"])
def test_families_decode(model_type: str) -> None:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(shrinking.small_config(hf.CONFIG_MAPPING[model_type])).eval()
    theory = attnprof.run(model, kwargs={"input_ids": torch.randint(4, 60, (2, 5))}, generate=4).theory
    assert is_predicted(theory)
    theory.require_exact()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["gpt_neox", "mixtral"])
def test_families_with_checkpoints(model_type: str) -> None:
    """Layers run again until all that they saved is there: the last product of each does not."""
    torch.manual_seed(0)
    model = shrinking.build(model_type).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
    theory = attnprof.run(model, kwargs=shrinking.inputs(model), backward=True).theory
    assert is_predicted(theory)
    theory.require_exact()
    assert [c for c in theory.comparisons if (c.module, c.phase) == ("", "recompute")]


def test_the_list_names_types_of_the_sweep() -> None:
    assert set(listed()) < set(MODEL_TYPES)
    assert listed() == sorted(listed())


#: Causal models that do not generate as shrinking.py builds them: one needs a length of its own, one another class.
NOT_GENERATING = ("cpmant", "reformer")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model_type", sorted({*MODEL_TYPES} & {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - {*NOT_GENERATING})
)
def test_no_formula_contradicts_a_generation(model_type: str) -> None:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(shrinking.small_config(hf.CONFIG_MAPPING[model_type])).eval()
    theory = attnprof.run(model, kwargs={"input_ids": torch.randint(4, 60, (2, 12))}, generate=5).theory
    assert [c for c in theory.comparisons if c.deviation] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_model_type() -> None:
    """Nothing that has a formula contradicts it, and the page lists what is accounted for in full."""
    found, wrong = [], []
    for model_type in MODEL_TYPES:
        theory = compared(model_type)
        wrong += [(model_type, c) for c in theory.comparisons if c.deviation]
        if is_predicted(theory) and not any(c.residual for c in theory.comparisons):
            found.append(model_type)
    assert wrong == []
    text = PAGE.read_text(encoding="utf-8")
    real = LIST.sub(lambda m: m[1] + shown(found) + m[3], text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(real, encoding="utf-8")
        text = real
    assert text == real


def shown(found: list[str]) -> str:
    """How many, and which."""
    head = f"{len(found)} of {len(MODEL_TYPES)} model types are predicted in full, forward and backward:"
    names = textwrap.fill(", ".join(f"`{name}`" for name in sorted(found)), 118, break_on_hyphens=False)
    return f"{head}\n\n{names}\n"
