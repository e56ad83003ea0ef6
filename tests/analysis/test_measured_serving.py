"""Generation that was run, on a device: sums over steps of a kind, and what one decode step says of other batches."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import attnprof
from attnprof.analysis.measured_serving import Batch, kinds, last_decode
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.roofline import Attainable
from attnprof.core.units import Units
from attnprof.reports.serving import decode_sentence, lines

D, V, T, N = 16, 40, 7, 5


class Decoder(nn.Module):
    """One layer of attention; the cache is the keys and values of the tokens before."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.q, self.k, self.v = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.head = nn.Linear(D, V)

    def forward(self, ids: Tensor, cache: Any = None) -> Any:
        x = self.embedding(ids)
        k, v = self.k(x), self.v(x)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 1), torch.cat([cache[1], v], 1)
        return self.head(torch.softmax(self.q(x) @ k.mT, -1) @ v), (k, v)


def generated(batch: int, tokens: int = N) -> attnprof.Report:
    torch.manual_seed(0)
    return attnprof.run(Decoder().eval(), (torch.randint(V, (batch, T)),), generate=tokens)


def spec(peak: int, bandwidth: int) -> DeviceSpec:
    quoted = Provenance("quoted", ("a test",))
    peaks = (Peak("matmul", "float32", peak, quoted), Peak("vector", "float32", peak, quoted))
    return DeviceSpec("made-up", "made up", "", peaks=peaks, bandwidth_bytes_per_s=bandwidth, memory_bytes=2**40)


DEVICE = spec(10**9, 10**9)


@pytest.mark.parametrize("batch", [1, 3])
def test_kinds_add_up_to_the_steps(batch: int) -> None:
    report = generated(batch)
    prefill, decode = kinds(report, report.roofline_on(DEVICE))
    assert (prefill.name, prefill.steps, prefill.tokens) == ("prefill", 1, batch * T)
    assert (decode.name, decode.steps, decode.tokens) == ("decode", N - 1, batch * (N - 1))
    assert prefill.cost == report.steps[0].cost
    assert prefill.cost + decode.cost == report.total
    assert prefill.cache_bytes == 4 * batch * T * 2 * D
    assert decode.cache_bytes == 4 * batch * (T + N - 1) * 2 * D
    points = report.roofline_on(DEVICE).steps
    assert decode.attainable == sum((point.total.attainable for point in points[1:]), Attainable())
    assert decode.tokens_per_s == batch * (N - 1) / decode.attainable.seconds


@pytest.mark.parametrize("batch", [1, 3])
def test_weights_of_the_last_decode_step(batch: int) -> None:
    """Three D x D matrices and the head with its bias; of the embedding only rows are read."""
    report = generated(batch)
    found = last_decode(report)
    assert isinstance(found, Batch)
    assert found.weight_bytes == 4 * (3 * D * D + V * D + V)
    assert (found.size, found.flops, found.bytes) == (batch, report.steps[-1].cost.flops, report.steps[-1].cost.bytes)


def test_other_batches_are_as_measured() -> None:
    """All but the weights grows with the batch: what follows from one batch is what is measured at another.

    With several sequences matmuls copy q, k and v together first, which one sequence need not: from two on.
    """
    found = {batch: last_decode(generated(batch)) for batch in (2, 3, 8)}
    two = found[2]
    assert isinstance(two, Batch)
    for size, other in found.items():
        assert isinstance(other, Batch)
        assert other.flops == two.flops * size // 2
        assert other.bytes == two.weight_bytes + two.bytes_per_sequence * size


def test_when_it_turns_compute_bound() -> None:
    """The first batch B with f B > r (w + c B), tried one by one."""
    step = Batch(size=2, flops=200, bytes=1060, weight_bytes=1000)
    assert (step.bytes_per_sequence, step.limit) == (30, Fraction(100, 30))
    for ridge in (Fraction(1, 10), Fraction(1), Fraction(3)):
        first = next(b for b in range(1, 10_000) if 100 * b > ridge * (1000 + 30 * b))
        assert step.turns_at(ridge) == first
    assert step.turns_at(Fraction(100, 30)) is None
    weights_alone = Batch(1, 10, 1000, 1000)
    assert weights_alone.limit is None
    assert weights_alone.turns_at(Fraction(2)) == 201


def test_measured_weights_and_flops_are_those_of_the_config() -> None:
    """A Llama on fake tensors: the weights its last step reads are those predicted from its config."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    config = hf.LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    with attnprof.fake_tensors():
        model = hf.LlamaForCausalLM(config).eval()
        ids = torch.zeros(3, T, dtype=torch.int64)
    report = attnprof.run(model, (), {"input_ids": ids}, generate=N, fake=True)
    found = last_decode(report)
    assert isinstance(found, Batch)
    (row,) = attnprof.serving(config.to_dict(), batch=3, kv=T + N - 1, dtype="fp32").rows
    assert found.weight_bytes == row.step.weight_bytes
    assert report.steps[-1].cost.matmul_flops == row.flops


def test_llama_7b_is_what_its_config_predicts() -> None:
    """16 prompts of 4095 tokens and a step more, on fake tensors; ops alone take longer than the parts predicted."""
    path = Path(__file__).parents[2] / "examples" / "llama_7b_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    config = hf.LlamaConfig(**{n: v for n, v in fields.items() if n not in ("model_type", "architectures")})
    with attnprof.fake_tensors():
        model = hf.LlamaForCausalLM(config).eval()
        ids = torch.zeros(16, 4095, dtype=torch.int64)
    plan = attnprof.Plan(dtype="fp16")
    report = attnprof.run(model, (), {"input_ids": ids}, generate=2, fake=True, plan=plan)
    device = attnprof.device("a100-80gb-sxm")
    prefill = attnprof.serving(path, phase="prefill", batch=16, kv=4095, device=device)
    decode = attnprof.serving(path, phase="decode", batch=16, kv=4096, device=device)
    points = report.roofline_on(device).steps
    for served, step, point in zip((prefill, decode), report.steps, points, strict=True):
        (row,) = served.rows
        assert row.flops == step.cost.matmul_flops
        assert row.kv_cache_bytes == step.cache_bytes
        assert row.bytes < step.cost.bytes
        assert row.attainable is not None
        assert row.overlapped_s is not None
        assert row.overlapped_s <= row.attainable.seconds < point.total.attainable.seconds
    found = last_decode(report)
    assert isinstance(found, Batch)
    assert found.weight_bytes == decode.rows[0].step.weight_bytes


def test_routed_experts_are_not_guessed_at() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    config = hf.MixtralConfig(**sizes, num_hidden_layers=1, num_local_experts=4, vocab_size=50)
    model = hf.MixtralForCausalLM(config).eval()
    report = attnprof.run(model, (), {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}, generate=2)
    assert last_decode(report) == "how many experts a step reads depends on its batch"


def test_what_cannot_be_derived() -> None:
    assert last_decode(generated(1, tokens=1)) == "there is no decode step"
    model = nn.Linear(2, 2)
    with attnprof.profile(model, recount_every=1) as prof:
        model(torch.ones(1, 2))
        prof.step("decode 1")
    assert last_decode(prof.report()) == "the inputs do not say how many sequences there are"
    assert kinds(prof.report(), prof.report().roofline_on(DEVICE))[0].tokens is None


# As text


@pytest.mark.parametrize("width", [40, 60, 110])
def test_lines_fit(width: int) -> None:
    report = generated(3)
    text = lines(report, attnprof.device("h100-sxm"), Units(), width)
    assert max(map(len, text)) <= width
    assert "prefill" in text[2]
    assert "decode x4" in text[3]


def test_no_lines_without_a_generation() -> None:
    report = attnprof.run(nn.Linear(2, 2), (torch.ones(1, 2),))
    assert lines(report, DEVICE, Units(), 110) == []


def test_sentences() -> None:
    step = Batch(size=2, flops=200, bytes=1060, weight_bytes=1000)
    start = "The last decode step, at batch 2, reads 1000 B of weights and moves 30.0 B a sequence"
    assert decode_sentence(step, DEVICE, 10**9, Units()) == (
        f"{start}: if only the weights are shared, decode is compute-bound from about batch 15 on; its intensity tends "
        "to 3.33 FLOP/B, the ridge is at 1.00."
    )
    assert decode_sentence(step, DEVICE, 4 * 10**9, Units()) == (
        f"{start}: if only the weights are shared, decode is compute-bound at no batch, as its intensity tends to "
        "3.33 FLOP/B, which is not above the ridge of 4.00."
    )
    assert decode_sentence(step, DEVICE, None, Units()) == f"{start}."
    assert decode_sentence("of rain", DEVICE, 1, Units()).endswith("is not known: of rain.")


@pytest.mark.parametrize("by", ["module", "step"])
def test_they_stand_below_the_steps(by: str) -> None:
    report = generated(2)
    report.devices = (DEVICE, attnprof.device("h100-sxm"))
    shown = report.to_table(by=by, width=110)
    assert shown.index("decode [1-4]: each step") < shown.index("made-up ", shown.index("cache: "))
    assert shown.count("The last decode step, at batch 2") == 2
    assert "The last decode step" not in report.to_table(by="step", phase="forward")
    assert "The last decode step" not in report.to_table(by="op")


def test_a_saved_run_says_the_same(tmp_path: Path) -> None:
    report = generated(2)
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert lines(again, DEVICE, Units(), 110) == lines(report, DEVICE, Units(), 110)
