"""``attnprof scale``: formulas by hand, claims, what other sizes need, files, and a sentence for every mistake."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from attnprof.cli import main

#: Builders of sizes: two products and a sum of squares; a window; one that fails; one whose counts depend on values.
BUILDERS = """
import torch
from torch import nn


class Scores(nn.Module):
    def forward(self, x):
        return (x @ x.transpose(-1, -2)) @ x


class Net(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.inner = Scores()
        self.out = nn.Linear(d, d, bias=False)

    def forward(self, x):
        return self.out(self.inner(x))


def build(N=64, d=32):
    return Net(d), (torch.randn(1, N, d, requires_grad=True),)


class Narrow(nn.Module):
    def forward(self, x):
        return x @ x[:, -8:].transpose(-1, -2)


def narrow(T=64, d=8):
    return Narrow(), (torch.randn(1, T, d),)


def broken(T=64):
    raise ValueError("T is never right")


def leaves(T=64):
    raise SystemExit(3)


def forgets(T=64):
    return "no module"


class Steps(nn.Module):
    def forward(self, x):
        for token in x:
            x = token * 2
        return x


def steps(T=64):
    return Steps(), (torch.randn(T, 4),)


not_callable = 3
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``models.py``, the working directory of the test."""
    (tmp_path / "models.py").write_text(BUILDERS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def left(*arguments: str) -> int:
    """The exit code of ``attnprof scale``."""
    with pytest.raises(SystemExit) as ended:
        main(["scale", *arguments])
    return int(ended.value.code or 0)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    found = left(*arguments)
    out, err = capsys.readouterr()
    assert (found, err) == (code, "")  # no bar either: this is no terminal
    return out


def data(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(shown(capsys, *arguments, "--format", "json"))


@pytest.mark.usefixtures("models")
def test_the_formula_and_whose_terms_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Forward: x xᵀ and its product with x are 2 N² d each, the projection 2 N d²."""
    found = data(capsys, "models.py:build", "--vary", "N=8..512", "--vary", "d=4..64")
    assert [piece["formula"] for piece in found["whole"]["pieces"]] == ["4·N²·d + 2·N·d²"]
    assert found["whole"]["growth"] == "N²·d + N·d²"
    assert found["whole"]["at_largest"] == 4 * 512**2 * 64 + 2 * 512 * 64**2
    in_n, in_d = found["overtaking"]
    assert (in_n["symbol"], in_n["terms"], in_n["from"]) == ("N", "4·N²·d", "d/2")  # 4 N² d > 2 N d²
    assert [(m["module"], m["share"]) for m in in_n["modules"]] == [("inner", 1.0)]
    assert (in_d["symbol"], in_d["terms"], in_d["from"]) == ("d", "2·N·d²", "2·N")
    assert [(m["module"], m["share"]) for m in in_d["modules"]] == [("out", 1.0)]
    parts = {m["module"]: [p["formula"] for p in m["pieces"]] for m in found["modules"]}
    assert parts == {"inner": ["4·N²·d"], "out": ["2·N·d²"]}
    for point in found["points"]:
        length, width = point["sizes"]["N"], point["sizes"]["d"]
        assert point["count"] == 4 * length**2 * width + 2 * length * width**2


@pytest.mark.usefixtures("models")
def test_what_does_not_vary_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "models.py:build", "--vary", "N=8..512", "--fixed", "d=16")
    assert [piece["formula"] for piece in found["whole"]["pieces"]] == [f"{4 * 16}·N² + {2 * 16**2}·N"]
    assert (found["overtaking"][0]["from"], found["whole"]["growth"]) == ("8", "N²")


@pytest.mark.usefixtures("models")
def test_claims_and_what_they_name(capsys: pytest.CaptureFixture[str]) -> None:
    """d is named and does not vary: it varies too, around its default."""
    found = data(capsys, "models.py:build", "--vary", "N=8..512", "--claim", "O(n d²)", "--claim", "4N²d + 2Nd²",
                 "--claim", "2N²d + Nd^2", "--claim", "4N²d")  # fmt: skip
    growth, same, macs, short = found["claims"]
    share = (4 * 512**2 * 32) / (4 * 512**2 * 32 + 2 * 512 * 32**2)
    assert (growth["holds"], growth["missing"], growth["share"]) == (False, "4·N²·d", share)
    assert [m["module"] for m in growth["modules"]] == ["inner"]
    assert growth["names"] == {"n": "N"}
    assert growth["examples"][-1]["sizes"] == {"N": 512, "d": 32}
    assert (same["holds"], same["missing"]) == (True, "")
    assert (macs["holds"], macs["times"]) == (False, "2")
    assert "multiply-adds" in macs["why"]
    assert (short["holds"], short["missing"], short["surplus"]) == (False, "2·N·d²", "")
    assert [m["module"] for m in short["modules"]] == ["out"]
    assert any("d varies too" in note for note in found["notes"])


@pytest.mark.usefixtures("models")
def test_a_verdict_is_read_at_a_glance(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "models.py:build", "--vary", "N=8..512", "--claim", "O(N*d^2)")
    assert re.search(r"^claimed +O\(N·d²\)$", out, re.MULTILINE)
    assert re.search(r"^verdict +FALSE: grows as N² while d stays, where the claim grows as N\.", out, re.MULTILINE)
    assert "The missing term is 4·N²·d (in inner)." in out
    share = 100 * (4 * 512**2 * 32) / (4 * 512**2 * 32 + 2 * 512 * 32**2)
    assert f"At N=512, d=32 that is {share:.1f}% of the forward matmul FLOPs." in out


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("claim", "code"), [("O(N³d²)", 0), ("O(N)", 1)])
def test_a_claim_can_be_required(claim: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, "models.py:build", "--vary", "N=8..64", "--claim", claim, "--require", code=code)


@pytest.mark.usefixtures("models")
def test_phases(capsys: pytest.CaptureFixture[str]) -> None:
    """The input needs a gradient: two products behind each one of the forward."""
    found = data(capsys, "models.py:build", "--vary", "N=8..64", "--vary", "d=4..32", "--phase", "backward")
    assert [piece["formula"] for piece in found["whole"]["pieces"]] == ["8·N²·d + 4·N·d²"]


@pytest.mark.usefixtures("models")
def test_other_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """From the formulas, exactly; counted there too, since it takes no memory; eight devices take an eighth."""
    at = ["models.py:build", "--vary", "N=8..64", "--at", "N=1M", "--device", "h100-sxm"]
    one = data(capsys, *at)["extrapolations"][0]
    eight = data(capsys, *at, "--count", "8")["extrapolations"][0]
    length, width = 10**6, 32
    assert one["amounts"]["matmul"] == 4 * length**2 * width + 2 * length * width**2
    assert one["amounts"]["flops"] == one["amounts"]["matmul"] + one["amounts"]["vector"]
    assert (one["beyond"], one["counted"], one["is_bound"]) == (["N"], True, False)
    # Traffic of the scores, written and read, at 3.35 TB/s is longer than their arithmetic: no op takes less.
    assert one["seconds"] >= 2 * 4 * length**2 / 3.35e12
    assert eight["seconds"] == one["seconds"] / 8
    out = " ".join(shown(capsys, *at, "--count", "8").split())
    assert (
        "made and checked for N = 8 to 64. The model was counted at these very sizes too, and comes to the same" in out
    )
    assert "at best on 8 x h100-sxm in float32" in out


@pytest.mark.usefixtures("models")
def test_sizes_with_too_many_ops_have_a_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """A loop over a million tokens is not run: its traffic alone is the time, 4 elements of 4 bytes in and out each."""
    found = data(
        capsys, "models.py:steps", "--vary", "T=8..64", "--of", "bytes", "--at", "T=1M", "--device", "h100-sxm"
    )
    (needed,) = found["extrapolations"]
    assert needed["amounts"]["bytes"] == 10**6 * 2 * 4 * 4
    assert (needed["counted"], needed["is_bound"]) == (None, True)
    assert needed["seconds"] == pytest.approx(10**6 * 2 * 4 * 4 / 3.35e12)  # one division in floating point
    assert any("number of op calls grows" in note for note in needed["notes"])


@pytest.mark.usefixtures("models")
def test_pieces_say_where_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """The last 8 tokens, or all where there are fewer: 2 T min(T, 8) d."""
    found = data(capsys, "models.py:narrow", "--vary", "T=2..64")
    for point in found["points"]:
        assert point["count"] == 2 * point["sizes"]["T"] * min(point["sizes"]["T"], 8) * 8
    assert found["whole"]["growth"] == "T"
    claim = data(capsys, "models.py:narrow", "--vary", "T=2..64", "--claim", "16 T min(T, 8)")["claims"][0]
    assert claim["holds"]


@pytest.mark.usefixtures("models")
def test_mechanisms_of_the_zoo_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "mha", "--vary", "T=8..256", "--vary", "d=16..128:16", "--claim", "8Td²+4T²d")
    assert found["claims"][0]["holds"]
    assert found["name"] == "mha"
    assert data(capsys, "performer:r=8", "--vary", "T=8..256", "--claim", "O(T)")["claims"][0]["holds"]


@pytest.mark.usefixtures("models")
def test_what_is_known_of_sizes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Attention keeps 5 T d + H T² numbers: of H alone that is more than T² d, of H that is at most d it is not."""
    at = ["mha", "--vary", "T=8..128", "--vary", "H=2,4,8,16,32,64", "--of", "saved", "--claim", "O(T²d)"]
    (alone,) = data(capsys, *at)["claims"]
    assert (alone["holds"], alone["missing"]) == (False, "4·H·T²")
    (known,) = data(capsys, *at, "--assume", "H<=d")["claims"]
    assert known["holds"]
    assert known["why"].endswith("where H ≤ d.")


@pytest.mark.usefixtures("models")
def test_forms(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["models.py:build", "--vary", "N=8..64", "--fixed", "d=16", "--by", "module"]
    rows = list(csv.DictReader(io.StringIO(shown(capsys, *at, "--format", "csv"))))
    assert all(int(row["matmul"]) == 64 * int(row["N"]) ** 2 + 512 * int(row["N"]) for row in rows)
    latex = shown(capsys, *at, "--format", "latex")
    assert r"\text{forward matmul FLOPs} &= 64 N^{2} + 512 N" in latex
    assert latex.count(r"\begin{align*}") == latex.count(r"\end{align*}") == 1
    markdown = shown(capsys, *at, "--format", "markdown")
    assert "measured: 64·N² + 512·N" in markdown
    assert re.search(r"^\| `inner` +\| ", markdown, re.MULTILINE)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("width", ["30", "60"])
def test_it_fits(width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    out = shown(capsys, "models.py:build", "--vary", "N=8..64", "--by", "module", "--claim", "O(N*d^2)", "--at", "N=1M")
    assert max(map(len, out.splitlines())) <= max(40, int(width))


def test_files(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["models.py:build", "--vary", "N=8..64", "--claim", "O(N)"]
    shown(capsys, *at, "--plot", "curves.svg", "--html", "page.html")
    first = (models / "curves.svg").read_bytes()
    shown(capsys, *at, "--plot", "curves.svg", "--html", "page.html")  # ours are replaced
    assert (models / "curves.svg").read_bytes() == first
    page = (models / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "8·N" not in page or page.count("<svg") == 1
    (models / "mine.html").write_text("mine", encoding="utf-8")
    assert left(*at, "--html", "mine.html") == 2
    assert "attnprof did not write it" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["models.py:build", "--vary", "x=8..64"], "build takes no argument 'x'; it takes N, d."),
        (["models.py:build", "--vary", "N=8"], "N has one size, 8"),
        (["models.py:build", "--vary", "N=8..8"], "a range goes up, and has more than one size."),
        (["models.py:build", "--vary", "N=64..8"], "a range goes up"),
        (["models.py:build", "--vary", "N=a..8"], "a size is a whole number above zero, such as 4096, 4k, 4Ki or 1M"),
        (["models.py:build", "--vary", "N=0..8"], "a size is a whole number above zero"),
        (["models.py:build", "--vary", "N=1.5..8"], "a size is a whole number above zero"),
        (["models.py:build", "--vary", "N"], "--vary 'N' does not parse: write NAME=FIRST..LAST"),
        (["models.py:build", "--vary", "N=8..64", "--vary", "N=2,4"], "--vary 'N=2,4': N varies already."),
        (["models.py:build", "--vary", "N=8..64", "--fixed", "N=4"], "N is fixed and varies: give it once."),
        (["models.py:build", "--vary", "N=8..64", "--fixed", "z=4"], "build takes no argument 'z'"),
        (["models.py:broken", "--vary", "T=8..64"], "ValueError: T is never right."),
        (["models.py:leaves", "--vary", "T=8..64"], "the model called sys.exit(3)."),
        (["models.py:forgets", "--vary", "T=8..64"], "must return a module, (module, args) or (module, args, kwargs)"),
        (["models.py:nothing", "--vary", "T=8..64"], 'models.py has no "nothing".'),
        (["models.py:not_callable", "--vary", "T=8..64"], "is an int, which cannot be called"),
        (["gqqa", "--vary", "T=8..64"], "no mechanism 'gqqa'. Did you mean gqa"),
        (["gqa", "--vary", "z=8..64"], "gqa has no symbol 'z'"),
        (["models.py:build", "--vary", "N=8..64", "--claim", "O(N"], "claim 'O(N' does not parse: it ends where )"),
        (["models.py:build", "--vary", "N=8..64", "--claim", "O(q)"], "there is no symbol 'q'; there are N, d."),
        (["models.py:build", "--vary", "N=8..64", "--claim", "9^9^9^9"], "has an exponent larger than 32."),
        (["models.py:build", "--vary", "N=8..64", "--assume", "N<=d"], "--assume goes with --claim"),
        (["models.py:build", "--vary", "N=8..64", "--claim", "O(N)", "--assume", "N<d"], "write one such as H<=d."),
        (["models.py:build", "--vary", "N=8..64", "--of", "flop"], "--of must be one of flops, matmul"),
        (["models.py:build", "--vary", "N=8..64", "--phase", "back"], "--phase must be one of forward"),
        (["models.py:build", "--vary", "N=8..64", "--by", "op"], "--by must be one of module"),
        (["models.py:build", "--vary", "N=8..64", "--format", "xml"], "--format must be one of table"),
        (["models.py:build", "--vary", "N=8..64", "--device", "h100-sxm"], "--device goes with --at"),
        (["models.py:build", "--vary", "N=8..64", "--count", "8"], "--count goes with --at"),
        (["models.py:build", "--vary", "N=8..64", "--at", "N=1M", "--count", "8"], "--count is of a device"),
        (["models.py:build", "--vary", "N=8..64", "--at", "N=1M", "--device", "h99"], "h99"),
        (["models.py:build", "--vary", "N=8..64", "--at", "M=1"], "M does not vary."),
        (["models.py:build", "--vary", "N=8..64", "--vary", "d=8..64", "--at", "N=1M"], "d varies too; give it a size"),
        (["models.py:build", "--vary", "N=8..64", "--at", "N"], "--at 'N' does not parse"),
        (["models.py:build", "--vary", "N=8..64", "--plot", "x.gif"], "a plot is a .png, .svg or .pdf file"),
        (["models.py:build", "--vary", "N=8..64", "--html", "x.txt"], "a page is an .html file"),
        (["models.py:build", "--vary", "N=8..64", "--html", "no/x.html"], "the folder no does not exist"),
        (["models.py:build"], "--vary"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert left(*arguments) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.usefixtures("models")
def test_sizes_that_break_the_model_say_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert left("models.py:broken", "--vary", "T=8..64") == 2
    assert re.search(r"the model fails at T=\d+.*ValueError: T is never right", capsys.readouterr().err)


@pytest.mark.usefixtures("models")
def test_an_interruption_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attnprof.api.scaling.scaling", interrupted)
    assert left("models.py:build", "--vary", "N=8..64", "--html", "page.html") == 130
    assert capsys.readouterr().out == ""
    assert not (models / "page.html").exists()
