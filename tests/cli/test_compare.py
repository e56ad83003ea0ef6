"""``attnprof compare``: closed forms at every length, crossings, formats, sentences."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest
import torch

from attnprof import zoo
from attnprof.cli import main
from attnprof.cli.lengths import parse_lengths


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["compare", *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code or 0, err) == (0, "")  # no bar either: this is no terminal
    return out


def data(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(shown(capsys, *arguments, "--format", "json"))


def test_counts_are_the_closed_forms(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "mha", "sdpa", "performer:r=6", "orthogonal", "-d", "32", "-H", "4", "-B", "2",
                 "--seq", "8,24", "--backward")  # fmt: skip
    assert found["mechanisms"] == ["mha", "mha-sdpa", "performer:r=6", "orthogonal"]
    assert found["lengths"] == [8, 24]
    B, d, H, r = 2, 32, 4, 6
    for row in found["measured"]:
        N = row["N"]
        P, A = B * N * d * d, B * N * N * d
        forward, backward, recompute, saved = {
            "mha": (8 * P + 4 * A, 16 * P + 8 * A, 0, 5 * N * d + H * N * N),
            "mha-sdpa": (8 * P + 4 * A, 16 * P + 8 * A, 2 * A, 5 * N * d + H * N),
            "performer:r=6": (
                8 * P + 8 * B * N * r * d + 2 * B * N * r * H,
                16 * P + 12 * B * N * r * d + 4 * B * N * r * H,
                0,
                # x, q, k, v, weighted sum, heads merged; exponentials and features; normaliser; state, sum of features
                6 * N * d + 4 * H * N * r + H * N + d * r + H * r,
            ),
            "orthogonal": (8 * P + 4 * A, 12 * P + 8 * A, 0, 5 * N * d + H * N * N),
        }[row["mechanism"]]
        assert row["forward_matmul_flops"] == forward
        assert row["backward_matmul_flops"] == backward
        assert row["recompute_matmul_flops"] == recompute
        assert row["saved_bytes"] == 4 * B * saved
        assert row["parameters"] == 4 * d * d


def test_where_performer_becomes_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    """Less the projections, 8 r d + 2 r H against 4 N d a token: equal at N = 2 r + r H / (2 d) = 534.08."""
    r, d, H = 266, 768, 12
    first = (8 * r * d + 2 * r * H) // (4 * d) + 1
    assert first == 535
    found = data(capsys, "mha", f"performer:r={r}", "--seq", "128,1024")
    (crossing,) = [c for c in found["crossings"] if c["quantity"] == "forward_matmul_flops"]
    assert crossing == {
        "quantity": "forward_matmul_flops",
        "cheaper": "performer:r=266",
        "dearer": "mha",
        "N": first,
    }
    text = shown(capsys, "mha", f"performer:r={r}", "--seq", "128,1024")
    assert "becomes cheaper than mha at N=535 (measured; at N=534 it is not)." in " ".join(text.split())


def test_where_less_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    """5 N d + H N² elements against 5 N d + H N: fewer from N = 2 on, and at N = 1 as many."""
    found = data(capsys, "mha", "sdpa", "-d", "16", "-H", "2", "--seq", "1,64")["crossings"]
    saved = {"quantity": "saved_bytes", "cheaper": "mha-sdpa", "dearer": "mha", "N": 2}
    assert [c for c in found if c["quantity"] == "saved_bytes"] == [saved]


def test_mechanisms_cross_at_lengths_that_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of w take multiples of w. With N = w they are full attention; with N = 2 w, half of it."""
    found = data(capsys, "mha", "block-window:w=24", "-d", "8", "-H", "2", "--seq", "24,240")
    (forward,) = [c for c in found["crossings"] if c["quantity"] == "forward_matmul_flops"]
    assert (forward["cheaper"], forward["N"]) == ("block-window:w=24", 48)
    text = shown(capsys, "mha", "block-window:w=24", "-d", "8", "-H", "2", "--seq", "24,240")
    assert "cheaper than mha at N=48 (measured; at N=24 it is not)." in text


def test_traffic_is_that_of_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    """Elements of 4 bytes: projections 8 N d + 4 d², the heads merged 2 N d; per head twice in and out of the scores.

    In all 14 N d + 4 d² + 6 H N²: products 2 N d + N² and N² + 2 N d, scale and softmax 2 N² each.
    """
    N, d, H = 24, 32, 4
    (row,) = data(capsys, "mha", "-d", str(d), "-H", str(H), "--seq", str(N))["measured"]
    assert row["traffic_bytes"] == 4 * (14 * N * d + 4 * d * d + 6 * H * N * N)


def test_a_longest_length_is_the_sequence_s(capsys: pytest.CaptureFixture[str]) -> None:
    """Learned scores and positions are for N tokens; none asked for means as many as there are."""
    d, H, V = 16, 2, 256
    found = data(capsys, "synthesizer-random", "lm:L=1", "lm:L=1,N=512", "-d", str(d), "-H", str(H), "--seq", "8,300")
    parameters = {(row["mechanism"], row["N"]): row["parameters"] for row in found["measured"]}
    for N in (8, 300):
        model = 12 * d * d + 9 * d + V * d + 2 * d
        assert parameters["synthesizer-random", N] == H * N * N + 2 * d * d
        assert parameters["lm:L=1", N] == model + N * d
        assert parameters["lm:L=1,N=512", N] == model + 512 * d


def test_every_mechanism_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, *zoo.names(), "-d", "16", "-H", "2", "--seq", "16", "--backward")
    rows = {row["mechanism"]: row for row in found["measured"]}
    assert sorted(rows) == zoo.names()
    assert all(row["traffic_bytes"] > 0 and row["parameters"] > 0 for row in rows.values())
    # A cache of 16 tokens, the new one among them: four projections of one token and two products with 16 keys.
    assert rows["decode-attention"]["forward_matmul_flops"] == 8 * 16 * 16 + 4 * 16 * 16
    assert rows["decode-naive"]["forward_matmul_flops"] > rows["decode-cached"]["forward_matmul_flops"]


def test_a_module_that_looks_at_values_runs_on_real_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "ffn", "moe:E=4,k=3", "-d", "8", "--seq", "16", "-s", "f=32")
    assert found["notes"] == ["moe:E=4,k=3 ran on real tensors: it has to look at values."]
    N, d, f = 16, 8, 32
    assert found["measured"][0]["forward_matmul_flops"] == 4 * N * d * f
    assert found["measured"][1]["forward_matmul_flops"] == 3 * 4 * N * d * f + 2 * N * d * 4  # experts, router


def test_the_parts_of_a_transformer_have_the_heads_that_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["-d", "16", "-H", "8", "--seq", "8", "-s", "L=1", "-s", "w=4"]
    found = data(capsys, "mha", "ffn", "transformer", "lm", "transformer:mixer=sliding-window,ffn=swiglu", *at)
    by_name = {row["mechanism"]: row for row in found["measured"]}
    N, d, H, f = 8, 16, 8, 64
    # Both norms keep their input, and mean and deviation of each row; the norms' outputs are what mixer and ffn keep.
    parts = by_name["mha"]["saved_bytes"] + 4 * (N * d + 2 * N * f - N * f)
    assert by_name["mha"]["saved_bytes"] == 4 * (5 * N * d + H * N * N)
    assert by_name["transformer"]["saved_bytes"] == parts + 4 * (2 * N * d + 2 * 2 * N)
    for name in ("transformer:mixer=depthwise-conv", "transformer:mixer=nothing"):
        with pytest.raises(SystemExit) as left:
            main(["compare", name, *at[:-4]])
        err = capsys.readouterr().err
        assert (left.value.code or 0, "nothing" in err) == ((0, False) if "conv" in name else (2, True))


def test_dtype_halves_what_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["mha", "-d", "16", "-H", "2", "--seq", "8"]
    full, half = (data(capsys, *at, *more)["measured"][0]["saved_bytes"] for more in ([], ["--dtype", "bf16"]))
    assert full == 2 * half


def test_csv_has_the_integers(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["mha", "gqa:Hkv=1", "-d", "16", "-H", "2", "--seq", "8,16"]
    rows = list(csv.DictReader(io.StringIO(shown(capsys, *at, "--format", "csv"))))
    as_json = data(capsys, *at)["measured"]
    assert [{k: str(v) for k, v in row.items()} for row in as_json] == rows


def test_latex_is_a_booktabs_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "mha", "transformer:mixer=mha-sdpa", "-d16", "-H4", "--seq", "8,16", "--format", "latex",
                 "--units", "exact")  # fmt: skip
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert lines[:3] == [r"\begin{tabular}{lrr}", r"\toprule", r"$N$ & 8 & 16 \\"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines if line.startswith("mha & ")]
    assert rows[0] == rf"mha & {8 * 8 * 16**2 + 4 * 8**2 * 16:,} & {8 * 16 * 16**2 + 4 * 16**2 * 16:,} \\"
    assert all(line.count("&") == 2 for line in lines if "&" in line)
    assert rows[-1] == rf"mha & {4 * 16**2:,} & {4 * 16**2:,} \\"  # parameters, at every length


def test_markdown_has_a_table_for_each_quantity(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "mha", "sdpa", "-d", "16", "-H", "2", "--seq", "8,16", "--backward", "--format", "markdown")
    titles = [line.strip("*").split(",")[0] for line in text.splitlines() if line.startswith("**")]
    assert titles == ["forward", "backward", "recompute", "traffic", "saved for the backward", "parameters"]
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert [len(block.splitlines()) for block in tables] == [4] * len(titles)


@pytest.mark.parametrize("width", ["30", "50", "80", "200"])
def test_the_table_fits_and_shows_every_length(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    out = shown(
        capsys, "mha", "dilated-window:w=2,causal=true,dilation=3", "-d", "16", "-H", "2", "--seq", "1,2,...,64"
    )
    assert max(map(len, out.splitlines())) <= max(40, int(width))
    forward = out.split("\n\n")[1]
    lengths = [int(n) for line in forward.splitlines() if line.split()[0] == "N" for n in line.split()[1:]]
    assert lengths == [1, 2, 4, 8, 16, 32, 64]
    parameters = out.split("\n\n")[4].splitlines()
    assert [parameters[1].split(), parameters[2].split()] == [["N", "any"], ["mha", str(4 * 16**2)]]


def test_the_longest(capsys: pytest.CaptureFixture[str]) -> None:
    """Integers have no end: 8 T d² + 4 T² d for T = 10^8."""
    T, d = 10**8, 64
    (row,) = data(capsys, "mha", "-d", str(d), "-H", "4", "--seq", str(T))["measured"]
    assert row["forward_matmul_flops"] == 8 * T * d * d + 4 * T * T * d


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("8", [8]),
        ("16,8, 8", [8, 16]),
        ("128,256,...,1024", [128, 256, 512, 1024]),
        ("128,256,…,768", [128, 256, 384, 512, 640, 768]),  # 768 is no doubling of 128
        ("3,5,...,11", [3, 5, 7, 9, 11]),
        ("1,2,...,8,10,20,...,40", [1, 2, 4, 8, 10, 20, 40]),
    ],
)
def test_lengths(text: str, lengths: list[int]) -> None:
    assert parse_lengths(text) == lengths


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    out = shown(capsys, "mha", "-d", "16", "-H", "2", "--seq", "8,16")
    assert "mha N=16" in stderr.getvalue()
    assert stderr.getvalue().endswith("\r")  # wiped at the end
    assert "\r" not in out


def test_the_model_s_seed_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    first = shown(capsys, "moe", "-d", "8", "--seq", "4")
    torch.manual_seed(2)
    assert shown(capsys, "moe", "-d", "8", "--seq", "4") == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mah"], ["'mah'", "mha"]),
        (["mha", "--d-model", "768", "--heads", "7"], ["H must divide d", "768", "7"]),
        (["mha", "--d-model", "0"], ["--d-model", "0"]),
        (["mha", "--heads", "-3"], ["--heads", "-3"]),
        (["mha", "--batch", "0"], ["--batch", "0"]),
        (["mha", "--seq", "12,-5"], ["'-5'"]),
        (["mha", "--seq", "1.5"], ["'1.5'"]),
        (["mha", "--seq", ""], ["''"]),
        (["mha", "--seq", "128,...,512"], ["...", "two numbers"]),
        (["mha", "--seq", "128,256,...,1000"], ["128,256", "1000"]),
        (["mha", "--seq", "256,128,...,1024"], ["256,128", "1024"]),
        (["mha:q=3"], ["'q'", "dh"]),
        (["performer:r=0"], ["r must", "0"]),
        (["performer:r=1.5"], ["r must", "1.5"]),
        (["performer:r="], ["NAME=VALUE"]),
        (["performer:eps=small"], ["eps", "'small'", "number"]),
        (["mha:causal=5"], ["causal", "true or false", "5"]),
        (["mha", "-s", "causal=yes"], ["causal", "true or false", "'yes'"]),
        (["mha:d=7.5"], ["d must", "7.5"]),
        (["transformer:mixer=mah"], ["'mah'", "mha"]),
        (["block-window:w=16", "--seq", "64,72"], ["block-window:w=16", "multiples of 16", "N=72"]),
        (["mha", "clustered", "--seq", "20"], ["clustered", "multiples of 8", "N=20"]),
        (["transformer:mixer=block-window,w=5", "--seq", "8"], ["multiples of 5", "N=8"]),
        (["synthesizer-dense:N=64", "--seq", "128"], ["N=64", "T=128"]),
        (["mha", "--seq", "8,999999999999"], ["999999999999", "at most"]),
        (["performer:"], ["NAME=VALUE"]),
        (["mha", "-s", "w=4"], ["'w'", "mha"]),
        (["mha", "-s", "w"], ["NAME=VALUE"]),
        (["mha", "-s", "d=4"], ["--d-model 4"]),
        (["sdpa", "mha-sdpa"], ["mha-sdpa", "twice"]),
        (["moe:E=2,k=3"], ["k can be at most E"]),
        (["mha", "--format", "html"], ["--format", "latex", "'html'"]),
        (["mha", "--units", "feet"], ["feet"]),
        (["mha", "--dtype", "fp7"], ["fp7"]),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
