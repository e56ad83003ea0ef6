"""Predictions as values: totals, integers, sums, growth, text, and one sentence for every mistake."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sympy import Integer, Ne, Symbol

import attnprof
from attnprof import analytic
from attnprof.analytic import Prediction, Term, predict
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units

B, T, d, L = (Symbol(name, integer=True, positive=True) for name in ("B", "T", "d", "L"))


FORWARD = Term("sum", "forward", "vector_flops", d)
THIRDS = Prediction("mine", (Term("sum", "forward", "matmul_flops", Symbol("T", integer=True, positive=True) / 3),))


def test_terms_have_names_phases_and_quantities() -> None:
    theory = predict("mha")
    forward = {t.name: t.expression for t in theory.terms if (t.quantity, t.phase) == ("matmul_flops", "forward")}
    assert forward == {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), 2 * B * T * d**2),
        **dict.fromkeys(("scores", "weighted_sum"), 2 * B * T**2 * d),
    }
    assert theory.phases("matmul_flops") == ("forward", "backward")
    assert predict("mha-sdpa").phases("matmul_flops") == ("forward", "backward", "recompute")


def test_the_same_from_the_package() -> None:
    assert attnprof.predict("mha", B=1) == predict("mha", B=1)
    assert attnprof.Prediction is Prediction


def test_values_are_exact() -> None:
    """10^30 and more, to the last digit."""
    big = 10**9 + 7
    assert predict("mha", B=1, T=big, d=big, H=1).evaluate("matmul_flops", "forward") == 12 * big**3
    assert isinstance(predict("ffn", B=1, T=2, d=3, f=4).evaluate(), int)


def test_values_may_come_later_or_be_others() -> None:
    theory = predict("ffn", d=3, f=4)
    assert theory.evaluate(phase="forward", B=1, T=2) == 4 * 2 * 3 * 4
    assert theory.at(B=1, T=2).evaluate(phase="forward") == 4 * 2 * 3 * 4
    assert theory.evaluate(phase="forward", B=1, T=2, d=5) == 4 * 2 * 5 * 4


def test_a_model_is_the_sum_of_its_parts() -> None:
    """L blocks of a mixer and a network are the transformer but for its norms, which multiply no matrices."""
    parts = L * (predict("gqa").below("mixer") + predict("swiglu").below("ffn"))
    model = predict("transformer", mixer="gqa", ffn="swiglu", f=7)
    for phase in ("forward", "backward"):
        assert (parts.total("matmul_flops", phase) - model.total("matmul_flops", phase)).expand() == 0
    norms = 4 * d
    assert (model.total("parameters") - parts.total("parameters") - L * norms).expand() == 0
    assert {t.name for t in parts.terms} >= {"mixer.q_proj", "ffn.gate"}


def test_terms_of_one_name_become_one() -> None:
    twice = predict("mha", causal=True) + predict("mha", causal=True)
    assert len(twice.terms) == len(predict("mha", causal=True).terms)
    for quantity in ("matmul_flops", "useful_matmul_flops"):
        assert twice.total(quantity) == 2 * predict("mha", causal=True).total(quantity)
        assert twice.total(quantity) == (2 * predict("mha", causal=True)).total(quantity)


def test_sums_keep_values_apart() -> None:
    one, other = predict("ffn", d=2, f=3), predict("ffn", d=4, f=3)
    with pytest.raises(AttnprofError, match=r"^ffn has d=2 and ffn has d=4: put the values in .*\.$"):
        one + other
    both = one.substituted() + other.substituted()
    assert both.evaluate(phase="forward", B=1, T=1) == 4 * 3 * (2 + 4)


def test_useful_is_everything_where_there_is_no_pattern() -> None:
    theory = predict("ffn")
    assert theory.total("useful_matmul_flops") == theory.total("matmul_flops")
    causal = predict("mha", causal=True)
    saved = causal.total("matmul_flops", "forward") - causal.total("useful_matmul_flops", "forward")
    assert (saved - 4 * B * d * T * (T - 1) / 2).expand() == 0


@pytest.mark.parametrize(
    ("name", "symbols", "growth"),
    [
        ("mha", None, "O(B*T**2*d + B*T*d**2)"),
        ("mha", "T", "O(T**2)"),
        ("mha", ("T", "d"), "O(T**2*d + T*d**2)"),
        ("gqa", None, "O(B*T**2*d + B*T*d**2)"),  # Hkv <= H
        ("linear", "T", "O(T)"),
        ("local-window", None, "O(B*T*d**2 + B*T*d*w)"),
        ("sliding-window", None, "O(B*T*d**2 + B*T*d*w)"),  # w <= T
        ("longformer", None, "O(B*T*d**2 + B*T*d*g + B*T*d*w)"),
        ("local-atrous", None, "O(B*T**2*d/k + B*T*d**2 + B*T*d*k)"),
        ("linear-causal", None, "O(B*T*d**2 + B*T*chunk*d)"),  # chunk <= T, H <= d
        ("moe", None, "O(B*T*d*f*k + B*T*E*d)"),
        ("clustered", "T", "O(T**2)"),
        ("flash", "T", "O(T**2)"),
        ("decode-naive", "T", "O(T**3)"),
        ("decode-cached", "T", "O(T**2)"),
        ("diagonal-rnn", None, "O(0)"),  # it multiplies no matrices
    ],
)
def test_growth(name: str, symbols: Any, growth: str) -> None:
    """The leading monomials, whatever the order in which they are written."""
    assert _monomials(
        predict(name, causal=True).big_o(symbols, phase="forward")
        if name == "flash"
        else (predict(name).big_o(symbols, phase="forward"))
    ) == _monomials(growth)


def _monomials(growth: str) -> set[frozenset[str]]:
    return {frozenset(monomial.replace("/", "*1/").split("*")) for monomial in growth[2:-1].split(" + ")}


def test_growth_of_traffic() -> None:
    """Theta(T² dh² / M), and what has to be read in any case."""
    found = predict("flash-io").big_o(None, "read_bytes", "forward")
    assert _monomials(found) == _monomials("O(B*H*T**2*dh**2*e/M + B*H*T*dh*e)")


def test_growth_of_scans() -> None:
    """Vector work: T log T for all positions in every round, T for the one that does not repeat itself."""
    hillis, brent = (predict(f"diagonal-rnn-{name}") for name in ("hillis-steele", "brent-kung"))
    assert hillis.big_o("T", "vector_flops", "forward") == "O(T*log(T))"
    assert brent.big_o("T", "vector_flops", "forward") == "O(T)"


def test_text_in_symbols_and_in_numbers() -> None:
    symbolic = predict("mha").text(["matmul_flops"])
    assert ["q_proj", "2·B·T·d²"] in [line.split() for line in symbolic.splitlines()]
    assert "O(B·T²·d + B·T·d²)" in symbolic
    numbers = predict("mha", B=1, T=512, d=768, H=12).text(["matmul_flops"], units=Units(exact=True))
    assert f"{8 * 512 * 768**2 + 4 * 512**2 * 768:,}" in numbers
    assert str(predict("ffn")) == predict("ffn").text()


@pytest.mark.parametrize("name", analytic.names())
@pytest.mark.parametrize("width", [40, 80])
def test_text_fits(name: str, width: int) -> None:
    """But for what cannot be broken: names, and products without a space."""
    theory = predict(name)
    lines = theory.text(width=width).splitlines()
    names = 2 + max(len(t.name) for t in theory.terms)
    products = 4 + max(len(word) for line in lines for word in line.split())
    assert max(map(len, lines)) <= max(width, names, products)


@pytest.mark.parametrize("name", analytic.names())
def test_latex_is_balanced(name: str) -> None:
    text = predict(name).latex()
    assert (
        text.count(r"\begin{align*}")
        == text.count(r"\end{align*}")
        == len({(t.quantity, t.phase) for t in predict(name).terms})
    )
    assert text.count("{") == text.count("}")
    assert not any(ord(c) > 127 for c in text)


def test_latex_of_a_paper() -> None:
    text = predict("mha").latex(["matmul_flops"])
    assert r"  \text{total} &= 4 B T^{2} d + 8 B T d^{2}" in text
    assert text.count(r"  &\in \mathcal{O}\left(B T^{2} d + B T d^{2}\right)") == 2  # forward and backward


def test_latex_has_symbols_as_papers_write_them() -> None:
    """What autograd keeps is of no phase; letters beside one another would be a product."""
    text = predict("gqa", dh=None).latex()
    assert "H_{kv}" in text
    assert "Hkv" not in text
    assert "% parameters\n" in text
    assert r"\mathrm{dilation}" in predict("dilated-window").latex(["saved_bytes", "matmul_flops"])
    assert r"\text{of it useful} &= " in predict("mha", causal=True).latex(["matmul_flops"])


def test_latex_of_names_that_users_give() -> None:
    term = Term("50% of q_k & {more} #1 $x^2~\\", "forward", "matmul_flops", d)
    text = Prediction("mine", (term,)).latex()
    name = r"50\% of q\_k \& \{more\} \#1 \$x\textasciicircum{}2\textasciitilde{}\textbackslash{}"
    assert rf"\text{{{name}}} &= d \\" in text


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: predict("gqaa"), "no formula 'gqaa'. Did you mean gqa, gqa-sdpa? `attnprof predict` lists all."),
        (lambda: predict("ffn", H=2), "ffn has no symbol 'H'; it has B, T, d, f, activation, bias."),
        (lambda: predict("mha", d=10, H=3), "H must divide d: d=10 is no multiple of H=3."),
        (lambda: predict("gqa", H=4, Hkv=3), "Hkv must divide H: H=4 is no multiple of Hkv=3."),
        (lambda: predict("moe", E=2, k=3), "k can be at most E: k=3 is more than E=2."),
        (lambda: predict("mha", T=0), "T must be a whole number above zero, not 0."),
        (lambda: predict("mha", T=1.5), "T must be a whole number above zero, not 1.5."),
        (lambda: predict("mha", causal=1), "causal must be True or False, not 1."),
        (lambda: predict("ffn", activation="tanh"), "activation must be one of relu, gelu, not 'tanh'."),
        (lambda: predict("mha", frozen="qproj"), "mha has no weight 'qproj'; it has q_proj, k_proj, v_proj, out_proj."),
        (lambda: predict("mha", input_grad=("y",)), "mha has no input 'y'; it has x."),
        (lambda: predict("mha").total("flops"), "no quantity 'flops': there are matmul_flops"),
        (lambda: predict("mha").total(phase="back"), "no phase 'back': there are forward, backward"),
        (lambda: predict("mha").evaluate(), "mha needs B: give it a value, as in B=128."),
        (lambda: predict("mha", d=3, dh=2).evaluate("saved_bytes", B=1, T=1), "mha needs H: give it a value"),
        (lambda: Term("mine", "fwd", "matmul_flops", d), "phase must be one of forward, backward"),  # type: ignore[arg-type]
        (lambda: Term("mine", "forward", "flops", d), "quantity must be one of matmul_flops"),  # type: ignore[arg-type]
        (
            lambda: Term("mine", "forward", "matmul_flops", 1.5),
            "the expression of mine must be of sympy or a whole number, not 1.5.",
        ),
        (lambda: THIRDS.evaluate(T=4), "mine does not come to a whole number at T=4: T/3 is 4/3."),
        (lambda: predict("gqa").evaluate("parameters", d=2, H=3, Hkv=1), "H must divide d: d=2 is no multiple of H=3."),
        (lambda: predict("moe").at(E=2, k=3), "k can be at most E: k=3 is more than E=2."),
        (lambda: predict("block-window", T=10, w=4), "w must divide T: T=10 is no multiple of w=4."),
        (lambda: predict("block-window", w=4).at(T=10), "w must divide T: T=10 is no multiple of w=4."),
        (lambda: predict("clustered", T=10, C=4), "C must divide T: T=10 is no multiple of C=4."),
        (
            lambda: predict("transformer", mixer="block-window", w=4, T=10),
            "w must divide T: T=10 is no multiple of w=4.",
        ),
        (
            lambda: (predict("block-window", w=4) + predict("ffn")).at(T=10),
            "w must divide T: T=10 is no multiple of w=4.",
        ),
        (
            lambda: Prediction("mine", (FORWARD,)).total("vector_flops", "backward"),
            "mine has no closed form of vector_flops in the backward, only of the forward.",
        ),
        (
            lambda: Prediction("mine", (FORWARD,)).total("read_bytes"),
            "mine has no closed form of read_bytes in the forward.",
        ),
        (lambda: predict("depthwise-conv", k=4), "k must be odd for as many taps on each side, not 4; or causal=True."),
        (lambda: predict("mla", dr=3), "dr must be even, since positions turn pairs of numbers: dr=3."),
        (
            lambda: predict("decode-layer", T=3, S=2),
            "S counts all tokens, the T new ones too: S=2 must be at least T=3.",
        ),
        (lambda: predict("lm", T=3, N=2), "T can be at most N: a sequence of T=3 tokens is longer than N=2."),
        (
            lambda: predict("synthesizer-dense", T=3, N=2),
            "this synthesizer has weights for N=2 tokens, not for the T=3",
        ),
        (lambda: predict("transformer", mixer="cross-attention"), "mixer cannot be 'cross-attention'"),
        (lambda: predict("transformer", w=3), "mha and ffn have no symbol 'w', only H, activation, bias, causal"),
        (lambda: predict("transformer", causal=3), "causal must be True or False, not 3."),
        (lambda: predict("transformer", H="four"), "H must be a whole number above zero, not 'four'."),
        (lambda: predict("transformer", checkpoint="all"), "checkpoint must be one of reentrant, non-reentrant"),
        (
            lambda: predict("transformer", checkpoint="reentrant", input_grad=False),
            "checkpoint='reentrant' trains nothing when its input needs no gradient.",
        ),
    ],
)
def test_one_sentence_per_mistake(call: Any, sentence: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        call()
    message = str(raised.value)
    assert message.startswith(sentence)
    assert "\n" not in message


def test_whole_numbers_are_expressions() -> None:
    term = Term("mine", "forward", "matmul_flops", 6, useful=4)
    assert Prediction("mine", (term,)).evaluate() == 6
    assert Prediction("mine", (term, term)).evaluate("useful_matmul_flops") == 4 + 4
    assert "total" in Prediction("mine", (term,)).latex()


def test_patterns_freeze_many_weights() -> None:
    trained = {
        t.name
        for t in predict("transformer", frozen=("blocks.mixer.*", "norm_1")).terms
        if t.quantity == "trainable_parameters"
    }
    assert trained == {"blocks.norm_2", "blocks.ffn.up", "blocks.ffn.down"}


def test_names_of_inputs_that_need_a_gradient() -> None:
    """Cross-attention's memory is often another model's output, and fixed."""
    of_x = predict("cross-attention", input_grad=("x",))
    assert {t.name for t in of_x.terms if t.phase == "backward" and t.name.endswith("dX")} == {
        "q_proj.dX",
        "out_proj.dX",
    }


def test_a_prediction_is_a_value() -> None:
    term = Term("q_proj", "forward", "matmul_flops", Integer(2))
    assert Prediction("a", (term,)) == Prediction("a", (term,))
    with pytest.raises(AttributeError):
        term.name = "k_proj"  # type: ignore[misc]


def test_what_is_not_known_is_not_zero() -> None:
    """Contractions are always stated; of the rest, what has terms, or is said to be complete without any."""
    mine = Prediction("mine", (FORWARD,), complete=frozenset({("traffic", "forward")}))
    assert mine.work("matmul", "backward") == ()
    assert mine.work("vector", "forward") == (FORWARD,)
    assert mine.work("vector", "backward") is None
    assert mine.work("traffic", "forward") == ()
    assert mine.work("traffic", "backward") is None
    assert (mine + Prediction("other", ())).work("vector", "forward") is None
    assert mine.only("backward").work("traffic", "forward") is None


def test_a_closed_form_holds_for_some_sizes() -> None:
    mine = Prediction("mine", (FORWARD,), holds={"vector": Ne(T, 1)})
    for theory, known in (
        (mine, True),
        (mine.at(T=2), True),
        (mine.at(T=1), False),
        (mine.at(T=1).substituted(), False),
    ):
        assert (theory.work("vector", "forward") is not None) is known
        assert theory.work("matmul", "forward") == ()


def test_theory_needs_no_torch() -> None:
    code = "import sys, attnprof; attnprof.predict('transformer', mixer='mla').text(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_of_some_kinds_of_work_alone() -> None:
    whole = predict("mha", B=2, T=5, d=8, H=2)
    part = whole.of("matmul")
    assert part.work("matmul", "backward") == whole.work("matmul", "backward")
    assert whole.work("vector", "forward")
    assert part.work("vector", "forward") is None
    assert part.work("traffic", "forward") is None
    assert part.evaluate("parameters") == whole.evaluate("parameters") == 4 * 8 * 8
    with pytest.raises(AttnprofError, match=r"no kind of work 'matmull'.* matmul"):
        whole.of("matmull")  # type: ignore[arg-type]
