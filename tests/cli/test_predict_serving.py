"""``attnprof predict --config`` and ``predict flash-io --device``: tables that fit, data that is plain, mistakes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import attnprof
from attnprof.cli import main

d, L, V, S = 4096, 32, 32000, 4096
W = L * (4 * d * d + 3 * d * 11008) + V * d
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": d,
    "intermediate_size": 11008,
    "num_hidden_layers": L,
    "num_attention_heads": 32,
    "vocab_size": V,
    "torch_dtype": "float16",
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["predict", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, out, err = ran(capsys, *arguments)
    assert (code, err) == (0, "")
    return out


DECODE = ("--phase", "decode", "--batch", "1,16,64,256", "--kv", "4096")
DEVICE = ("--device", "a100-80gb-sxm", "--bandwidth", "2.0e12")  # a ridge of 312 / 2.0 = 156


def test_a_decode_table(config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The intensities of LLaMA-7B at 4096 tokens, their limit, and what the ridge takes instead."""
    monkeypatch.setenv("COLUMNS", "110")
    out = shown(capsys, "llama", "--config", config, *DECODE, *DEVICE)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[:1].isdigit()}
    assert [rows[batch][5] for batch in ("1", "16", "64", "256")] == ["1.00", "5.17", "6.53", "6.99"]
    assert [rows[batch][6] for batch in rows if batch.isdigit()][:4] == ["memory"] * 4
    text = " ".join(out.split())
    assert "its intensity tends to 7.15 FLOP/B, which is not above the ridge of 156," in text
    assert (
        "compute-bound from batch 157 on (with inputs and outputs moved for a 4,096 x 4,096 matrix, it takes 169"
        in text
    )
    assert "attention has 1.00 FLOP/B over its cache at any batch." in text
    assert f"KV cache {2 * 2 * L * d:,} B a token, 2.15 GB a sequence" in text  # 4096 tokens of 2 e L d bytes


@pytest.mark.parametrize("width", [40, 60, 80, 110, 160])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_tables_fit(
    width: int, phase: str, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for more in ((), ("--device", "a100-80gb-sxm,h100-sxm"), ("--units", "exact,binary", "--device", "h100-sxm")):
        out = shown(capsys, "--config", config, "--phase", phase, "--batch", "1,8,1024", "--kv", "4096", *more)
        assert max(map(len, out.splitlines())) <= width
        assert "FLOP/B" in out
    out = shown(capsys, "flash-io", "--T", "512,8192", "--dh", "128", "--device", "a100-80gb-sxm,mi300x")
    assert max(map(len, out.splitlines())) <= width
    assert "gain" in out


def test_csv_is_plain_numbers(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--config", config, *DECODE, "--device", "h100-sxm,a100-80gb-sxm", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["device"], row["batch"]) for row in rows[3:5]] == [("h100-sxm", "256"), ("a100-sxm-80gb", "1")]
    norms = (2 * L + 1) * d
    for row in rows:
        B = int(row["batch"])  # noqa: N806
        assert int(row["matmul_flops"]) == 2 * W * B + 4 * B * L * S * d
        assert int(row["bytes"]) == 2 * (W + norms) + 2 * 2 * B * L * S * d
        assert int(row["kv_cache_bytes"]) == 2 * 2 * B * L * S * d
        assert row["bound"] == "memory"
    bare = list(csv.DictReader(io.StringIO(shown(capsys, "--config", config, *DECODE, "--format", "csv"))))
    assert {bare[0][name] for name in ("device", "bound", "attainable_s", "tokens_per_s", "fits")} == {""}


def test_json_has_everything(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "--config", config, *DECODE, *DEVICE, "--format", "json"))
    assert found["format"] == "attnprof serving"
    assert Fraction(found["intensity_limit"]["exactly"]) == 1 + Fraction(W, 2 * L * S * d)
    (device,) = found["devices"]
    assert device["compute_bound_from_batch"] is None
    assert (device["matmuls_compute_bound_from_batch"], device["square_matmul_compute_bound_from_rows"]) == (157, 169)
    for row in found["rows"]:
        assert sum(part["matmul_flops"] for part in row["parts"]) == row["matmul_flops"]
        assert sum(part["weight_bytes"] + part["cache_bytes"] for part in row["parts"]) == row["bytes"]


def test_markdown(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--config", config, *DECODE, "--device", "h100-sxm", "--format", "markdown")
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert len({line.count("|") for line in table}) == 1
    assert "**h100-sxm · " in out
    assert "- Decode is compute-bound at no batch" in out


def test_prefill(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--config", config, "--phase", "prefill", "--kv", "4096", "--device", "h100-sxm")
    text = " ".join(shown(capsys, *arguments).split())
    assert "4,096 new tokens of each sequence, 4,096 in its cache" in text
    assert "Prefill is compute-bound from batch 1 on" in text
    assert "Without masked pairs, batch 1:" in text
    text = " ".join(shown(capsys, *arguments, "--prompt", "128").split())
    assert "128 new tokens of each sequence, 4,096 in its cache" in text


def test_what_does_not_fit(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--config", config, "--phase", "decode", "--kv", "4096", "--device", "rtx-4080")
    assert "1 sequence fits beside 13.5 GB of weights, with 4,096 tokens each." in " ".join(out.split())
    out = shown(capsys, "--config", config, "--phase", "decode", "--kv", "1", "--dtype", "fp32", "--device", "rtx-4080")
    assert "No sequence fits beside 27.0 GB of weights, with 1 token each." in " ".join(out.split())


def test_traffic_of_attention(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """96 KiB of on-chip memory at widths of 64 and 128: a gain of 3.86, and none."""
    monkeypatch.setenv("COLUMNS", "110")
    M = 96 * 2**10 // 2  # noqa: N806
    for dh, gain in ((64, "3.86"), (128, "0.990")):
        out = shown(capsys, "flash-io", "--T", "8192", "--dh", str(dh), "--M", str(M), "--device", "a100-80gb-sxm")
        (row,) = [line.split() for line in out.splitlines() if line.startswith("a100-sxm-80gb  ")]
        assert row[1:4] == ["8,192", f"{M:,}", str(-(-M // (4 * dh)))]
        assert row[7] == gain
        assert ("moves no less than written-out scores do" in " ".join(out.split())) == (dh == 128)


def test_traffic_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("flash", "--T", "512,8192", "--dh", "64", "--H", "3", "--device", "a100-80gb-sxm", "--dtype", "fp16")
    rows = json.loads(shown(capsys, *arguments, "--format", "json"))["rows"]
    assert [row["T"] for row in rows] == [512, 8192]
    for row in rows:
        assert row["explicit_bytes"] == 3 * 2 * (4 * row["T"] ** 2 + 4 * row["T"] * 64)
    assert rows[0]["tiled_bytes"] is None  # all keys on chip at once, nearly: 164 KiB against 64 KiB of them
    as_csv = list(csv.DictReader(io.StringIO(shown(capsys, *arguments, "--format", "csv"))))
    assert [int(row["explicit_bytes"]) for row in as_csv] == [row["explicit_bytes"] for row in rows]
    assert "| a100-sxm-80gb | 8,192 |" in shown(capsys, *arguments, "--format", "markdown")


CONFIG = object()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mistral", CONFIG, *DECODE), " is of a llama, not of a mistral."),
        ((CONFIG, "--kv", "8"), "--config needs a phase: --phase prefill or --phase decode."),
        ((CONFIG, "--kv", "8", "--phase", "both"), "--phase must be one of prefill, decode, not 'both'."),
        ((CONFIG, "--phase", "decode"), "a decode step depends on how many tokens are in the cache: --kv 4096."),
        ((CONFIG, "--phase", "decode", "--kv", "0"), "kv must be a whole number above zero, not 0."),
        ((CONFIG, *DECODE, "--prompt", "3"), "a decode step has one new token: --prompt is for --phase prefill."),
        (
            (CONFIG, *DECODE[:2], "--kv", "8", "--batch", "1,x"),
            "--batch is whole numbers above zero with commas between",
        ),
        ((CONFIG, *DECODE, "--device", "h100"), '"h100" is several devices: h100-nvl, h100-pcie or h100-sxm.'),
        ((CONFIG, *DECODE, "--peak", "bf16=1e12"), "--peak needs a device: name one, such as --device h100-sxm."),
        ((CONFIG, *DECODE, "--format", "latex"), "--format must be one of table, markdown, csv, json, not 'latex'."),
        ((CONFIG, *DECODE, "--T", "3"), "--config says all sizes: leave out --T."),
        ((CONFIG, *DECODE, "--latex"), "--latex is for a mechanism, not for a model's --config."),
        (("llama",), "llama is a model: say its sizes by --config config.json, and --phase prefill or decode."),
        (("mha", "--kv", "0"), "--kv goes with --config: which model is to be served?"),
        (("mha", "--device", "h100-sxm"), "--device is for a model's --config, or for flash-io."),
        ((CONFIG, *DECODE, "--batch", ""), "--batch is whole numbers above zero with commas between"),
        ((CONFIG, *DECODE, "--no-input-grad"), "--no-input-grad is for a mechanism, not for a model's --config."),
        (("flash-io", "--dtype", "bf16"), "--dtype goes with --config, or with flash-io and --device."),
        (("flash-io", "--device", "h100-sxm"), "traffic on a device depends on T: --T 8192."),
        (("flash-io", "--T", "9", "--device", "h100-sxm"), "traffic on a device depends on dh: --dh 128."),
        (("flash-io", "--T", "9", "--dh", "0", "--device", "h100-sxm"), "dh must be a whole number above zero, not 0."),
        (("flash-io", "--T", "a", "--dh", "8", "--device", "h100-sxm"), "--T is whole numbers above zero with commas"),
        (
            ("flash", "--T", "9", "--dh", "8", "--Br", "3", "--device", "h100-sxm"),
            "traffic on a device has no symbol 'Br'",
        ),
    ],
)
def test_mistakes(arguments: tuple[Any, ...], sentence: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for a in arguments for word in (("--config", config) if a is CONFIG else (a,))]
    code, out, err = ran(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("attnprof: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_config_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "--config", str(tmp_path / "none.json"), *DECODE)
    assert (code, err) == (
        2,
        f"attnprof: cannot read the config {tmp_path / 'none.json'}: No such file or directory.\n",
    )


def test_it_needs_no_torch(config: str) -> None:
    code = (
        "import sys\nfrom attnprof.cli import main\n"
        f"for words in ({['--config', config, *DECODE, *DEVICE]!r}, "
        "['flash-io', '--T', '8192', '--dh', '64', '--device', 'h100-sxm']):\n"
        "    try:\n        main(['predict', *words])\n    except SystemExit as left:\n        assert not left.code\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_says_the_same(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "--config", config, *DECODE, "--device", "h100-sxm", "--format", "json"))
    served = attnprof.serving(config, phase="decode", batch=[1, 16, 64, 256], kv=4096, device="h100-sxm")
    assert [row["tokens_per_s"] for row in found["rows"]] == [row.tokens_per_s for row in served.rows]
