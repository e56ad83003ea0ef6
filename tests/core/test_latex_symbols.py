"""Names of symbols compile in LaTeX's mathematics, whatever they are."""

from __future__ import annotations

import pytest

from attnprof.core.latex_symbols import between_factors, symbol_in_latex

NAMES = {
    "T": "T",
    "d_model": r"\mathrm{d\_model}",
    "int_": r"\mathrm{int\_}",  # a subscript of nothing is an error of LaTeX
    "_d__x": r"\mathrm{\_d\_\_x}",  # and so is one below another
    "_": r"\_",
    "\u03b3": r"{\gamma}",
    "Λ": r"{\Lambda}",
    "\u0391": r"\mathrm{\backslash{}u0391}",  # a capital alpha has no command
    "ά": r"\mathrm{\backslash{}u03ac}",
    "λ_2": r"\mathrm{{\lambda}\_2}",
    "\u03bf": r"\mathrm{\backslash{}u03bf}",  # an omicron has no command
    "长": r"\mathrm{\backslash{}u957f}",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_symbol_in_ascii(name: str) -> None:
    assert symbol_in_latex(name) == NAMES[name]
    assert symbol_in_latex(name).isascii()


def test_factors_of_several_letters_stand_apart() -> None:
    assert between_factors(["T", "d"]) is None
    assert between_factors(["T", "d_model"]) == between_factors(["长"]) == r"\,"
