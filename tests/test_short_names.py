"""A short name is one mechanism, wherever mechanisms are named: the zoo, theory, a comparison."""

from __future__ import annotations

import pytest

import attnprof
from attnprof import analytic, zoo
from attnprof.core.short_names import SHORT_NAMES, full_name


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_short_names_are_of_the_zoo_and_of_theory(short: str) -> None:
    assert short not in {*zoo.names(), *analytic.names()}
    assert zoo.find(short) is zoo.find(full_name(short))
    assert analytic.find(short) is analytic.find(full_name(short))


def test_other_names_are_as_they_are() -> None:
    assert full_name("gqa") == "gqa"


def test_one_short_name_everywhere() -> None:
    module = zoo.build("window", d=16, H=2, w=3)
    report = attnprof.run(module, zoo.inputs("window", B=1, T=8, d=16), strict_prediction=True)
    theory = attnprof.predict("window", B=1, T=8, d=16, H=2, w=3)
    assert theory.name == "local-window"
    assert report.total.matmul_flops == theory.evaluate("matmul_flops", "forward")
    assert attnprof.compare(["window"], {"T": [8]}, d=16, H=2).mechanisms == ("local-window",)
    attnprof.run(zoo.build("transformer", L=1, d=16, H=2, mixer="sdpa"), zoo.inputs("transformer", d=16))


@pytest.mark.parametrize("name", [None, 3, "", ("gqa",)])
def test_what_is_no_name(name: object) -> None:
    for ask in (zoo.build, attnprof.predict):
        with pytest.raises(attnprof.AttnprofError) as caught:
            ask(name)  # type: ignore[operator]
        assert str(caught.value) == f'a mechanism is a name such as "gqa", not {name!r}.'


def test_a_switch_is_on_or_off() -> None:
    for ask in (zoo.build, attnprof.predict):
        with pytest.raises(attnprof.AttnprofError) as caught:
            ask("mha", causal="yes")
        assert str(caught.value) == "causal must be True or False, not 'yes'."
