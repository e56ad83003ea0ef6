"""The zoo by name: what it is asked wrongly, and what every entry's docstring has to say."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from attnprof import zoo
from attnprof.core.errors import AttnprofError


@pytest.mark.parametrize(
    ("name", "symbols", "sentence"),
    [
        ("gqaa", {}, "no mechanism 'gqaa' in the zoo. Did you mean gqa, gqa-sdpa?"),
        ("gqa", {"q": 3}, "gqa has no symbol 'q'; it is built from d, H, Hkv, dh, causal."),
        ("gqa", {"d": 10, "H": 4}, "H must divide d: d=10 is no multiple of H=4."),
        ("gqa", {"d": 12, "H": 4, "Hkv": 3}, "Hkv must divide H: H=4 is no multiple of Hkv=3."),
        ("mha", {"d": -4}, "d must be a whole number above zero, not -4."),
        ("mha", {"d": 4.0}, "d must be a whole number above zero, not 4.0."),
        ("mha", {"causal": "yes"}, "causal must be True or False, not 'yes'."),
        ("moe", {"E": 2, "k": 3}, "k can be at most E: k=3 is more than E=2."),
        ("transformer", {"mixer": "nope"}, "no mechanism 'nope' in the zoo."),
        ("transformer", {"mixer": 3}, 'a mechanism is a name such as "gqa", not 3.'),
        (None, {}, 'a mechanism is a name such as "gqa", not None.'),
    ],
)
def test_one_sentence_per_mistake(name: Any, symbols: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        zoo.build(name, **symbols)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "symbols", "length", "sentence"),
    [
        ("block-window", {"w": 5}, 12, "w must divide T: T=12 is no multiple of w=5."),
        ("clustered", {"C": 5}, 12, "C must divide T: T=12 is no multiple of C=5."),
    ],
)
def test_lengths_that_do_not_divide(name: str, symbols: dict[str, int], length: int, sentence: str) -> None:
    module = zoo.build(name, d=8, H=2, **symbols)
    with pytest.raises(AttnprofError) as caught:
        module(*zoo.inputs(name, d=8, T=length))
    assert str(caught.value) == sentence


def test_inputs_of_symbols_that_do_not_exist() -> None:
    with pytest.raises(AttnprofError) as caught:
        zoo.inputs("mha", N=3)
    assert str(caught.value) == "mha has no symbol 'N'; its inputs are made from B, T, d, H, dh, causal."


@pytest.mark.parametrize("name", zoo.names())
def test_docstrings_have_shapes_cost_and_source(name: str) -> None:
    text = inspect.getdoc(zoo.find(name).kind) or ""
    assert re.search(r"\[[^]]+\].* -> ", text), "shapes"
    for word in ("forward", "parameters"):
        assert re.search(rf"^ *{word}\b", text, re.MULTILINE | re.IGNORECASE), word
    assert re.search(r"\b(19|20)\d\d\b|^As :class:", text, re.MULTILINE), "source"
