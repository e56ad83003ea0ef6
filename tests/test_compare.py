"""``attnprof.compare``: the study of the command line, as a value."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import attnprof
from attnprof.analysis.study import Crossing
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError

D, H = 16, 2


def study(*names: str, lengths: tuple[int, ...] = (8, 24), **options: Any) -> attnprof.Study:
    return attnprof.compare(names or ("mha", "mha-sdpa"), {"T": lengths}, **{"d": D, "H": H, **options})


def device(matmul: int, vector: int, bandwidth: int) -> DeviceSpec:
    """One with these rates and float32 alone."""
    source = Provenance("unsourced")
    peaks = (Peak("matmul", "float32", matmul, source), Peak("vector", "float32", vector, source))
    return DeviceSpec("toy", "Toy", "nobody", bandwidth_bytes_per_s=bandwidth, peaks=peaks)


def test_counts_and_crossings() -> None:
    """8 N d² + 4 N² d; what is saved, 5 N d + H N² elements against 5 N d + H N, is less from N = 2 on."""
    found = study(lengths=(1, 24))
    assert (found.mechanisms, found.lengths) == (("mha", "mha-sdpa"), (1, 24))
    for name in found.mechanisms:
        assert found.row(name, "forward") == [8 * n * D * D + 4 * n * n * D for n in (1, 24)]
        assert found.row(name, "backward") == [0, 0]
    assert Crossing("saved", "mha-sdpa", "mha", 2) in found.crossings


def test_backward_dtype_and_symbols() -> None:
    half = study("gqa:Hkv=1", "window", backward=True, dtype="bf16", w=3)
    full = study("gqa:Hkv=1", "window", backward=True, w=3)
    assert half.row("gqa:Hkv=1", "backward") == [2 * flops for flops in half.row("gqa:Hkv=1", "forward")]
    assert [2 * saved for saved in half.row("gqa:Hkv=1", "saved")] == full.row("gqa:Hkv=1", "saved")
    assert full.settings["w"] == "3"


def test_the_forms_are_those_of_the_command_line() -> None:
    found = study()
    assert str(found) == found.to_table()
    assert f"{8 * 8 * D * D + 4 * 8 * 8 * D:,}" in found.to_table(units="exact", width=60)
    assert max(map(len, found.to_table(width=60).splitlines())) <= 60
    assert found.to_markdown().count("| `mha` ") == len(found.shown())
    assert r"\toprule" in found.to_latex()
    data = json.loads(found.to_json())
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [{k: str(v) for k, v in row.items()} for row in data["measured"]] == rows


def test_time_on_a_device() -> None:
    """So slow a memory that only bytes count: traffic over bandwidth; so slow an engine that only FLOPs do."""
    by_memory = device(10**30, 10**30, 1000)
    by_matmul = device(1000, 10**30, 10**30)
    slow = study(device=[by_memory], lengths=(8, 24))
    for name in slow.mechanisms:
        assert slow.times(name, "toy") == [traffic / 1000 for traffic in slow.row(name, "bytes")]
    busy = study(device=by_matmul)
    # A matmul takes its FLOPs / 1000 seconds; every other op together less than 1e-20.
    assert busy.times("mha", "toy") == [flops / 1000 for flops in busy.row("mha", "forward")]
    assert "at best on toy" in slow.to_table()
    assert "at best on toy" in slow.to_markdown()
    assert "at best on toy" in slow.to_latex()
    data = json.loads(slow.to_json())
    assert data["measured"][0]["attainable_s"] == {"toy": slow.times("mha", "toy")[0]}
    rows = csv.DictReader(io.StringIO(slow.to_csv()))
    assert next(rows)["attainable_s_toy"] == str(slow.times("mha", "toy")[0])


def test_times_cross_where_traffic_does_on_a_slow_memory() -> None:
    found = study("mha", "performer:r=4", lengths=(8, 512), device=device(10**30, 10**30, 1000))
    (traffic,) = [c for c in found.crossings if c.quantity == "bytes"]
    (time,) = [c for c in found.crossings if c.quantity == "attainable"]
    assert (time.cheaper, time.dearer, time.length) == (traffic.cheaper, traffic.dearer, traffic.length)
    assert time.device == "toy"
    assert f"at best on toy: performer:r=4 becomes cheaper than mha at N={time.length}" in " ".join(str(found).split())
    assert {"quantity": "attainable_s", "device": "toy"}.items() <= json.loads(found.to_json())["crossings"][-1].items()


def test_what_a_device_has_no_peak_for_is_said() -> None:
    found = study(dtype="fp64", device=device(1, 1, 1))
    assert found.notes == tuple(
        f"toy has no known {engine} peak for float64: this arithmetic takes no time here."
        for engine in ("matmul", "vector")
    )
    assert found.notes[0] in " ".join(str(found).split())


def test_what_a_device_has_no_bandwidth_for_is_said() -> None:
    found = study(device=replace(device(1, 1, 1), bandwidth_bytes_per_s=None))
    assert found.notes == ("toy has no known bandwidth: traffic takes no time here.",)


def test_a_device_s_name_cannot_steer_what_shows_it() -> None:
    hostile = "a\nb\u202e<script>|x$"
    found = study(dtype="fp64", device=replace(device(1, 1, 1), id=hostile))
    for shown in (found.to_table(), found.to_latex(), found.to_markdown()):
        assert "\u202e" not in shown
        assert "a\nb" not in shown
    assert "<script>" not in found.to_markdown()
    assert json.loads(found.to_json())["measured"][0]["attainable_s"].keys() == {hostile}


def test_nothing_of_the_caller_changes() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    study("moe", "mha", f=8)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("names", "lengths", "options", "words"),
    [
        ("mha", {"T": [8]}, {}, ["list of names", "'mha'"]),
        ([], {"T": [8]}, {}, ["names is empty"]),
        (None, {"T": [8]}, {}, ["list of names", "None is no name"]),
        (["mha", 3], {"T": [8]}, {}, ["list of names", "3 is no name"]),
        (["mah"], {"T": [8]}, {}, ["'mah'", "mha"]),
        (["mha"], {"d": [8]}, {}, ['"T"', "'d'"]),
        (["mha"], {"T": [8], "d": [16]}, {}, ['"T"']),
        (["mha"], [8], {}, ['"T"', "[8]"]),
        (["mha"], {"T": []}, {}, ["T has none"]),
        (["mha"], {"T": [8, -1]}, {}, ["T must be", "-1"]),
        (["mha"], {"T": [8.5]}, {}, ["T must be", "8.5"]),
        (["mha"], {"T": [10**9]}, {}, ["at most", str(10**9)]),
        (["mha"], {"T": [8]}, {"d": 0}, ["d must be", "0"]),
        (["mha"], {"T": [8]}, {"w": 3}, ["w: none of mha", "'w'"]),
        (["mha"], {"T": [8]}, {"H": 3}, ["H must divide d", "3"]),
        (["mha"], {"T": [8]}, {"device": "h100-sxn"}, ["h100-sxn", "h100-sxm"]),
        (["mha"], {"T": [8]}, {"dtype": "fp7"}, ["fp7"]),
    ],
)
def test_bad_input_is_one_sentence(names: Any, lengths: Any, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.compare(names, lengths, **{"d": D, **options})
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message
