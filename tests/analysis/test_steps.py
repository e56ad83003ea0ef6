"""The cost of each step: of traces made by hand, and of real decoding against its closed forms.

Symbols: B batch, P prompt tokens, t keys that a token attends to (itself included), d width, Hkv key-value
heads of width dh, f feed-forward width, L layers, V vocabulary, e bytes per element.
"""
# ruff: noqa: N803, N806 (the symbols are those of the formulas)

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import attnprof
from attnprof.analysis.steps import REST
from attnprof.capture.kv_cache import cache_of
from attnprof.core.cost import Cost
from attnprof.core.memory import KVCache, MemoryTrace
from reports.traces import Hand, mm

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "decoding.py"))


# By hand


def by_hand() -> Hand:
    """Steps of one, three and no mm, then two that belong to no step."""
    hand = Hand().add("a")
    hand.ran("a", mm(1, 2, 3)).trace.steps.append(1)
    hand.ran("a", mm(1, 2, 3), times=2).ran(None, mm(2, 2, 2), "other").trace.steps += [4, 4]
    hand.ran("a", mm(5, 2, 3), times=2)
    return hand


def test_steps_add_up_to_the_total() -> None:
    report = by_hand().report()
    assert [step.label for step in report.steps] == ["step 1", "step 2", "step 3", REST]
    assert [step.cost.matmul_flops for step in report.steps] == [
        2 * 1 * 2 * 3,
        2 * (2 * 1 * 2 * 3) + 2 * 2 * 2 * 2,
        0,
        2 * (2 * 5 * 2 * 3),
    ]
    assert Cost.sum(step.cost for step in report.steps) == report.total
    for phase, cost in report.phases.items():
        assert Cost.sum(step.phases[phase] for step in report.steps if phase in step.phases) == cost
    assert report.steps[1].phases.keys() == {"forward", "other"}


def test_names_are_those_the_steps_were_given() -> None:
    hand = by_hand()
    hand.trace.step_labels |= {0: "prefill", 2: "decode 1"}
    assert [step.label for step in hand.report().steps] == ["prefill", "step 2", "decode 1", REST]


def test_a_run_that_marked_no_step_has_none() -> None:
    assert Hand().add("a").ran("a", mm(1, 2, 3)).report().steps == []


def test_the_first_optimizer_step_is_shown_with_the_others() -> None:
    hand = Hand().ran(None, mm(1, 2, 3), "optimizer_init").ran(None, mm(1, 2, 3), "optimizer")
    hand.trace.steps.append(2)
    assert hand.report().steps[0].phases == {"optimizer": 2 * hand.report().priced[0].cost}


def test_the_last_cache_of_a_step_is_what_it_leaves() -> None:
    hand = by_hand()
    first, second, third = KVCache(1, (10, 10), 1), KVCache(2, (14, 14), 2), KVCache(4, (20, 20), 3)
    hand.trace.memory = MemoryTrace(caches=[first, second, third])
    steps = hand.report().steps
    assert [step.cache for step in steps] == [first, third, None, None]
    assert [step.cache_bytes for step in steps] == [20, 40, None, None]
    assert [step.cache_growth for step in steps] == [20, 40 - 20, None, None]
    assert [step.tokens for step in steps] == [1, 3, None, None]


def test_a_step_without_a_cache_does_not_forget_the_one_before() -> None:
    hand = by_hand()
    hand.trace.memory = MemoryTrace(caches=[KVCache(1, (10,)), KVCache(6, (30,))])
    assert [step.cache_growth for step in hand.report().steps] == [10, None, None, 20]


# Training


def test_training_steps() -> None:
    model, rows = nn.Linear(8, 4), [2, 3]
    with attnprof.profile(model, recount_every=1) as prof:
        for n in rows:
            model(torch.zeros(n, 8)).sum().backward()
            prof.step()
    steps = prof.report().steps
    product = [2 * n * 8 * 4 for n in rows]
    assert [step.phases["forward"].matmul_flops for step in steps] == product
    assert [step.phases["backward"].matmul_flops for step in steps] == product  # dW; the input needs no gradient


# Decoding


def decoder(d: int, H: int, Hkv: int, L: int, V: int) -> nn.Module:
    torch.manual_seed(0)
    return EXAMPLE["Decoder"](width=d, heads=H, kv_heads=Hkv, layers=L, vocabulary=V, context=64)  # type: ignore[no-any-return]


def prompt(B: int, P: int, V: int) -> Tensor:
    return torch.randint(V, (B, P))


def matmul(report: attnprof.Report) -> list[int]:
    return [step.phases["forward"].matmul_flops for step in report.steps]


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize(("B", "Hkv"), [(1, 4), (3, 4), (2, 2), (2, 1)], ids=["MHA", "MHA batch", "GQA", "MQA"])
def test_decode_steps_of_a_decoder(B: int, Hkv: int, fake: bool) -> None:
    """Per layer and token: q and out 4 d^2, k and v 4 d Hkv dh, a 4 d wide FFN 16 d^2, attention 4 t d."""
    d, H, L, V, P, N = 32, 4, 3, 50, 5, 6
    report = attnprof.run(decoder(d, H, Hkv, L, V), (prompt(B, P, V),), generate=N, fake=fake)
    layer = 20 * d**2 + 4 * d * Hkv * (d // H)
    if Hkv == H:
        assert layer == 24 * d**2
    head = 2 * d * V
    prefill = B * (L * (P * layer + 4 * P * P * d) + P * head)
    steps = [B * (L * (layer + 4 * t * d) + head) for t in range(P + 1, P + N)]
    assert matmul(report) == [prefill, *steps]
    assert report.unpriced == {}
    assert Cost.sum(step.cost for step in report.steps) == report.total


def test_from_nothing_a_cache_makes_the_cost_quadratic_in_the_tokens() -> None:
    """T steps: 24 d^2 T + 2 d T (T + 1) a layer, the sum of 24 d^2 + 4 t d."""
    d, L, V, T = 16, 2, 20, 12
    report = attnprof.run(decoder(d, 2, 2, L, V), (prompt(1, 1, V),), generate=T)
    assert report.total.matmul_flops == L * (24 * d**2 * T + 2 * d * T * (T + 1)) + T * 2 * d * V


class WithoutCache(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        return self.inner(ids)[0]  # type: ignore[no-any-return]


def test_without_a_cache_it_is_cubic() -> None:
    """Step t runs t tokens that see t keys: the sum of 24 d^2 t + 4 d t^2."""
    d, L, V, T = 16, 2, 20, 12
    report = attnprof.run(WithoutCache(decoder(d, 2, 2, L, V)), (prompt(1, 1, V),), generate=T)
    tokens = T * (T + 1) // 2  # of all steps together
    layer = 12 * d**2 * T * (T + 1) + 2 * d * T * (T + 1) * (2 * T + 1) // 3
    assert report.total.matmul_flops == L * layer + tokens * 2 * d * V
    assert "no cache" in report.notes[0]


@pytest.mark.parametrize("Hkv", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_of_a_decoder(Hkv: int, dtype: torch.dtype) -> None:
    """2 B L S Hkv dh e bytes after S tokens."""
    B, d, H, L, V, P = 2, 32, 4, 3, 50, 5
    model, ids = decoder(d, H, Hkv, L, V).to(dtype), prompt(B, P, V)
    cache: Any = None
    for S, tokens in ((P, ids), (P + 1, ids[:, :1]), (P + 2, ids[:, :1])):
        output = model(tokens, cache)
        found = cache_of(model, (tokens, cache), {}, output)
        assert found == ((2 * B * S * Hkv * (d // H) * dtype.itemsize,) * L, S)
        cache = output[1]


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("Hkv", [4, 2, 1])
def test_the_cache_grows_by_one_token_a_step(Hkv: int, fake: bool) -> None:
    """After a prompt of P and i more tokens it holds P + i: the last token made is not read any more."""
    B, d, H, L, V, P, N = 2, 32, 4, 3, 50, 5, 4
    report = attnprof.run(decoder(d, H, Hkv, L, V), (prompt(B, P, V),), generate=N, fake=fake)
    token = 2 * B * Hkv * (d // H) * 4  # of one layer
    held = range(P, P + N)
    assert [step.tokens for step in report.steps] == list(held)
    assert [step.cache.layer_bytes for step in report.steps if step.cache] == [(S * token,) * L for S in held]
    assert [step.cache_growth for step in report.steps] == [P * L * token] + [L * token] * (N - 1)


def test_gpt2() -> None:
    """c_attn 6 d^2, c_proj 2 d^2, an FFN of 4 d f; the head reads only the last token, as generate asks for."""
    B, d, f, L, V, P, N = 2, 32, 48, 2, 50, 5, 5
    config = hf.GPT2Config(n_embd=d, n_head=4, n_layer=L, n_inner=f, vocab_size=V, n_positions=64, eos_token_id=None)
    report = attnprof.run(hf.GPT2LMHeadModel(config), (), {"input_ids": prompt(B, P, V)}, generate=N)
    layer, head = 8 * d**2 + 4 * d * f, 2 * d * V
    steps = [B * (L * (layer + 4 * t * d) + head) for t in range(P + 1, P + N)]
    assert matmul(report) == [B * (L * (P * layer + 4 * P * P * d) + head), *steps]
    assert [step.cache_bytes for step in report.steps] == [2 * B * L * S * d * 4 for S in range(P, P + N)]


@pytest.mark.parametrize("Hkv", [4, 2, 1])
def test_llama(Hkv: int) -> None:
    """q and o 4 d H dh, k and v 4 d Hkv dh, gate, up and down 6 d f, attention 4 t H dh."""
    B, d, H, dh, f, L, V, P, N = 2, 32, 4, 6, 40, 2, 50, 5, 5
    config = hf.LlamaConfig(
        hidden_size=d, num_attention_heads=H, num_key_value_heads=Hkv, head_dim=dh, num_hidden_layers=L,
        intermediate_size=f, vocab_size=V,
    )  # fmt: skip
    report = attnprof.run(hf.LlamaForCausalLM(config), (), {"input_ids": prompt(B, P, V)}, generate=N)
    layer, head = 4 * d * H * dh + 4 * d * Hkv * dh + 6 * d * f, 2 * d * V
    steps = [B * (L * (layer + 4 * t * H * dh) + head) for t in range(P + 1, P + N)]
    assert matmul(report) == [B * (L * (P * layer + 4 * P * P * H * dh) + head), *steps]
    assert [step.cache_bytes for step in report.steps] == [2 * B * L * S * Hkv * dh * 4 for S in range(P, P + N)]


def test_a_recurrent_model_pays_the_same_for_every_token() -> None:
    config = hf.MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, vocab_size=50)
    report = attnprof.run(hf.MambaForCausalLM(config), (), {"input_ids": prompt(1, 5, 50)}, generate=6)
    assert len({step.cost for step in report.steps[1:]}) == 1
    assert [step.cache_growth for step in report.steps[1:]] == [0] * 5


def test_saved_and_loaded(tmp_path: Path) -> None:
    report = attnprof.run(decoder(16, 2, 2, 1, 20), (prompt(1, 3, 20),), generate=3)
    report.save(tmp_path / "run.json")
    loaded = attnprof.load(tmp_path / "run.json")
    assert loaded.steps == report.steps
    assert [step.label for step in loaded.steps] == ["prefill", "decode 1", "decode 2"]
