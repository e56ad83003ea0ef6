"""``attnprof predict``: formulas and numbers on the command line, and one sentence for every mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from attnprof import analytic
from attnprof.cli import main


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["predict", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Every line, with one space between words."""
    code, out, err = ran(capsys, *arguments)
    assert (code, err) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines()]


GQA = ("gqa", "--B", "1", "--T", "4096", "--d", "4096", "--H", "32", "--Hkv", "8")


def test_numbers_of_a_forward(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *GQA, "--units", "exact")
    square, pairs = 4096**3, 4096**3  # T d² and T² d
    assert f"q_proj {2 * square:,} 2·B·T·d²" in lines
    assert f"k_proj {2 * square // 4:,} 2·B·Hkv·T·d²/H" in lines
    assert f"scores {2 * pairs:,} 2·B·T²·d" in lines
    total = 4 * square + 4 * square // 4 + 4 * pairs
    assert f"total {total:,} 4·B·T²·d + 4·B·T·d² + 4·B·Hkv·T·d²/H" in lines
    assert "O(B·T²·d + B·T·d²)" in lines
    assert "matmul FLOPs, forward FLOP" in lines
    assert not [line for line in lines if "backward" in line or "saved" in line]


def test_backward_and_frozen_weights(capsys: pytest.CaptureFixture[str]) -> None:
    names = [line.split()[0] for line in shown(capsys, *GQA, "--backward") if line]
    assert {"q_proj.dX", "q_proj.dW", "scores.dq", "weighted_sum.dv"} <= set(names)
    frozen = [line.split()[0] for line in shown(capsys, *GQA, "--frozen", "q_proj", "--frozen=k_proj") if line]
    assert "q_proj.dX" in frozen
    assert not {"q_proj.dW", "k_proj.dW"} & set(frozen)
    first = [line.split()[0] for line in shown(capsys, *GQA, "--no-input-grad") if line]
    assert "q_proj.dW" in first
    assert "q_proj.dX" not in first


def test_recomputation_is_shown_beside_the_backward(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "mha-sdpa", "--backward")
    assert "matmul FLOPs, recompute" in lines


def test_formulas_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "mha")
    assert "total 4·B·T²·d + 8·B·T·d²" in lines
    assert lines[-1] == "symbols: B, T, d, H; with a usual value: dh; options: causal=False"


def test_some_values(capsys: pytest.CaptureFixture[str]) -> None:
    """What has all its symbols gets a value, in its own table; the rest stays in symbols."""
    lines = shown(capsys, "mha", "--d=768", "--H=12")
    assert "q_proj 0.590 d²" in lines  # 768² = 589,824, in M
    assert "q_proj 2·B·T·d²" in lines


@pytest.mark.parametrize("flag", ["--causal", "--causal=true", "--causal=True"])
def test_flags(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "mha", flag, "--B", "1", "--T", "4", "--d", "2", "--H", "1")
    useful = 8 * 4 * 2**2 + 4 * (4 * 5 // 2) * 2
    assert any(line.startswith(f"of it useful {useful} ") for line in lines)


def test_options_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    names = {line.split()[0] for line in shown(capsys, "mla", "--dq", "none") if line}
    assert "q_up" in names
    assert "q_down" not in names
    names = {line.split()[0] for line in shown(capsys, "transformer", "--mixer", "linear", "--ffn=swiglu") if line}
    assert {"blocks.mixer.state", "blocks.ffn.gate"} <= names


def test_states_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "ffn", "--d", "2", "--f", "3", "--states", "amp", "--bias=false")
    assert any(line.startswith(f"moments and copies {12 * 2 * 2 * 3} ") for line in lines)


def test_latex(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "mha", "--latex")
    assert (code, err) == (0, "")
    assert r"\text{total} &= 4 B T^{2} d + 8 B T d^{2}" in out
    assert out.startswith("% matmul FLOPs, forward\n\\begin{align*}\n")


def test_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = shown(capsys)
    assert {line.split()[0] for line in lines if line} >= set(analytic.names())


@pytest.mark.parametrize("width", [20, 40, 80, 110])
def test_the_list_fits(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = ran(capsys)
    assert max(map(len, out.splitlines())) <= max(width, 40)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gqaa",), "no formula 'gqaa'. Did you mean gqa, gqa-sdpa? `attnprof predict` lists all."),
        (("gqa", "mha"), "one mechanism at a time: 'gqa', and not 'mha' as well."),
        (("--B", "3"), "--B of what? `attnprof predict` lists the mechanisms."),
        (("gqa", "--B", "0"), "B must be a whole number above zero, not 0."),
        (("gqa", "--B", "-1"), "B must be a whole number above zero, not -1."),
        (("gqa", "--B", "1.5"), "B must be a whole number above zero, not 1.5."),
        (("gqa", "--B", "many"), "B must be a whole number above zero, not 'many'."),
        (("gqa", "--B"), "B has no value: --B 128."),
        (("gqa", "--Q", "3"), "gqa has no symbol 'Q'; it has B, T, d, H, Hkv, dh, causal."),
        (("gqa", "--d", "10", "--H", "3"), "H must divide d: d=10 is no multiple of H=3."),
        (("mha", "--frozen", "w"), "mha has no weight 'w'; it has q_proj, k_proj, v_proj, out_proj."),
        (("mha", "--states", "fp8"), "--states must be one of uniform, amp, not 'fp8'."),
        (("GQA",), "no formula 'GQA'. Did you mean gqa, mqa? `attnprof predict` lists all."),
        (("gqa", "--T", "4", "--T=5"), "--T is given twice."),
        (("block-window", "--T", "100", "--w", "8"), "w must divide T: T=100 is no multiple of w=8."),
        (("clustered", "--T", "100", "--C", "8"), "C must divide T: T=100 is no multiple of C=8."),
        (("mha", "--units", "miles"), 'no units "miles": use exact, macs, binary, decimal.'),
    ],
)
def test_mistakes(arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, *arguments) == (2, "", f"attnprof: {sentence}\n")


def test_it_needs_no_torch() -> None:
    code = (
        "import sys\nfrom attnprof.cli import main\n"
        "try:\n    main(['predict', 'mha'])\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
