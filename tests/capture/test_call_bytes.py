"""The bytes that go into module calls and come out: float32 tensors of ROWS x WIDTH, SIZE bytes each."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from attnprof.core import trace_json
from attnprof.core.trace import ModuleRecord

ROWS, WIDTH = 5, 7
SIZE = ROWS * WIDTH * 4


def rows(requires_grad: bool = False) -> Tensor:
    return torch.ones(ROWS, WIDTH, requires_grad=requires_grad)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@dataclass
class Output:
    first: Tensor
    second: Any = None


@dataclass
class Kept:
    keys: Tensor
    values: Tensor


def record(net: nn.Module, *args: Any, **kwargs: Any) -> ModuleRecord:
    with attnprof.profile(net) as prof:
        net(*args, **kwargs)
    return prof.trace.modules[0]


def forward(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int | None:
    return record(Applied(function), *args, **kwargs).call_bytes["forward"]


def first(*args: Any, **kwargs: Any) -> Tensor:
    """A new tensor."""
    return rows()


# What is given


def test_one_tensor_in_and_one_out() -> None:
    assert forward(first, rows()) == 2 * SIZE
    assert forward(first, x=rows()) == 2 * SIZE
    assert forward(first, rows(), 3, flag=True, name="a", none=None, dtype=torch.float16) == 2 * SIZE


def test_a_dtype_has_its_own_width() -> None:
    assert forward(first, rows().half(), torch.ones(3, dtype=torch.int64)) == SIZE // 2 + 3 * 8 + SIZE


def test_tensors_in_structures() -> None:
    x, y, z = rows(), rows(), rows()
    assert forward(first, (x, y)) == 3 * SIZE
    assert forward(first, [x, (y, [z, None])]) == 4 * SIZE
    assert forward(first, {"a": x, "b": {"c": y}}) == 3 * SIZE
    assert forward(first, UserDict(a=x)) == 2 * SIZE
    assert forward(first, Output(x, (y,)), more=[z]) == 4 * SIZE


def test_all_of_a_long_list() -> None:
    assert forward(first, [rows() for _ in range(20)]) == 21 * SIZE
    assert forward(first, list(range(900)), rows()) == 2 * SIZE
    for long in ([rows()] * 2000, list(range(2000)), [list(range(100))] * 100):
        assert forward(first, long) is None  # looking at so many would take its time at every call


def test_what_is_nested_too_deep_is_not_looked_into() -> None:
    value: Any = rows()
    for _ in range(6):
        value = [value]
    assert forward(first, value) == 2 * SIZE
    assert forward(first, [[value]]) is None


def test_the_same_tensor_counts_once() -> None:
    x = rows()
    assert forward(first, x, x, x) == 2 * SIZE
    assert forward(first, x, other=(x, [x])) == 2 * SIZE
    assert forward(first, {"a": x, "b": x}) == 2 * SIZE
    assert forward(first, x, x.clone()) == 3 * SIZE


def test_expanded_dimensions_count_once_beside_other_tensors() -> None:
    mask = torch.ones(1, WIDTH).expand(ROWS, WIDTH)
    assert forward(first, rows(), mask) == 2 * SIZE + WIDTH * 4


@pytest.mark.parametrize(
    "value", [object(), {"a": object()}, (rows(), [object()]), torch.ones(3, 3).to_sparse(), nn.ParameterList([rows()])]
)
def test_what_may_hold_tensors_and_was_not_looked_into(value: Any) -> None:
    expected = 2 * SIZE if isinstance(value, nn.Module) else None  # a module's parameters are no input
    assert forward(first, rows(), value) == expected


def test_ragged_tensors_are_not_known() -> None:
    for layout in (torch.strided, torch.jagged):
        ragged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=layout)
        assert forward(first, ragged) is None
        assert forward(first, rows(), {"a": ragged}) is None


def test_a_subclass_knows_itself_how_much_it_holds() -> None:
    class Mine(torch.Tensor):
        pass

    assert forward(first, rows().as_subclass(Mine)) is None


# What is returned


@pytest.mark.parametrize(
    ("output", "tensors"),
    [
        (None, 0),
        (3, 0),
        ((rows(), None), 1),
        ((rows(), (rows(), [rows()])), 3),
        ({"a": rows()}, 1),
        (Output(rows(), rows()), 2),
        (hf.modeling_outputs.BaseModelOutput(rows(), (rows(), rows())), 3),
    ],
)
def test_outputs(output: Any, tensors: int) -> None:
    assert forward(lambda x: output, rows()) == SIZE + tensors * SIZE


def test_an_output_that_may_hold_tensors() -> None:
    assert forward(lambda x: (x, object()), rows()) is None


def test_a_tensor_that_is_passed_on_goes_in_and_comes_out() -> None:
    assert forward(lambda x: x, rows()) == 2 * SIZE


# Backward, and calls again


def test_a_backward_reads_inputs_and_output_gradients_and_writes_those_of_inputs() -> None:
    def both(x: Tensor, y: Tensor) -> Tensor:
        return x * y

    for grads, wanted in (((True, True), 2), ((True, False), 1)):
        net = Applied(both)
        x, y = map(rows, grads)
        with attnprof.profile(net) as prof:
            net(x, y).sum().backward()
            net(x, y)
        moved = prof.trace.modules[0].call_bytes
        assert moved == {"forward": 2 * 3 * SIZE, "backward": (2 + 1 + wanted) * SIZE}


def test_the_gradient_of_a_tensor_that_is_given_twice_is_one() -> None:
    x = rows(True)
    net = Applied(lambda x, y: x * y)
    with attnprof.profile(net) as prof:
        net(x, x).sum().backward()
    assert prof.trace.modules[0].call_bytes == {"forward": 2 * SIZE, "backward": (1 + 1 + 1) * SIZE}


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_repeated_call(reentrant: bool) -> None:
    """Not reentrant, it stops when all is saved: nothing is returned."""
    net = nn.Linear(WIDTH, WIDTH)
    with attnprof.profile(net) as prof:
        checkpoint(net, rows(True), use_reentrant=reentrant).sum().backward()
    again = 2 * SIZE if reentrant else SIZE
    assert prof.trace.modules[0].call_bytes == {"forward": 2 * SIZE, "recompute": again, "backward": 3 * SIZE}


def test_a_call_that_raised_is_not_known() -> None:
    net = nn.Linear(3, 3)
    with attnprof.profile(net) as prof:
        net(torch.ones(2, 3))
        with suppress(RuntimeError):
            net(torch.ones(2, 4))
    assert prof.trace.modules[0].call_bytes == {"forward": None}


def test_kinds_of_calls_are_as_they_were() -> None:
    """What is hidden shows in no other number."""
    x = rows()
    found = record(Applied(lambda x, y, z: (x, y)), x, x, {"a": x})
    assert list(found.calls) == [(f"float32[{ROWS},{WIDTH}]",) * 2]
    (kind,) = found.call_kinds
    assert (kind.tensors, kind.gradients) == ((f"float32[{ROWS},{WIDTH}]",) * 2, (False, False))


# Caches


def test_a_layer_of_attention_moves_its_own_keys_and_values() -> None:
    """B x T tokens after P in the cache: Hkv x dh numbers each for keys and for values, in every layer."""
    B, P, T, layers, heads, width = 2, 6, 3, 2, 2, 8  # noqa: N806
    config = hf.LlamaConfig(
        hidden_size=2 * heads * width,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2 * heads,
        num_key_value_heads=heads,
        head_dim=width,
        vocab_size=50,
    )
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        cache = model(torch.zeros(B, P, dtype=torch.long)).past_key_values
        with attnprof.profile(model) as prof:
            model(torch.zeros(B, T, dtype=torch.long), past_key_values=cache)
    found = {r.fqn: r.call_bytes for r in prof.trace.modules}
    for layer in range(layers):
        assert found[f"model.layers.{layer}.self_attn"]["cache"] == 2 * B * (P + T) * heads * width * 4
        assert found[f"model.layers.{layer}"].keys() == {"forward"}
    assert found["model.layers.0"]["forward"] is not None
    assert found[""] == {"forward": B * T * 8 + B * T * 50 * 4}  # tokens in, logits out; the layers have the cache
    assert trace_json.loads(trace_json.dumps(prof.trace)).modules == prof.trace.modules


def test_a_cache_in_a_repeated_call_is_no_part_of_the_forwards() -> None:
    class Layer(hf.Cache):  # known by its base, as all of them are
        def __init__(self, tensor: Tensor) -> None:
            self.layers = [Kept(tensor, tensor)]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_idx = 0

        def forward(self, x: Tensor, cache: Layer) -> Tensor:
            return x * 2

    net, cache = Attention(), Layer(rows())
    with attnprof.profile(net) as prof:
        checkpoint(net, rows(True), cache, use_reentrant=True).sum().backward()
    moved = prof.trace.modules[0].call_bytes
    assert moved == {"forward": 4 * SIZE, "recompute": 4 * SIZE, "backward": 3 * SIZE, "cache": 2 * SIZE}


def test_an_encoder_decoder_has_two_caches() -> None:
    """B x T tokens of the decoder attend to themselves and to B x S of the encoder."""
    B, S, T, heads, width = 2, 7, 3, 2, 8  # noqa: N806
    config = hf.T5Config(
        d_model=heads * width, d_kv=width, num_heads=heads, d_ff=24, num_layers=1, vocab_size=50,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = hf.T5ForConditionalGeneration(config).eval()
    with attnprof.profile(model) as prof, torch.no_grad():
        tokens = [torch.zeros(B, n, dtype=torch.long) for n in (S, T)]
        model(input_ids=tokens[0], decoder_input_ids=tokens[1])
    found = {r.fqn: r.call_bytes.get("cache") for r in prof.trace.modules}
    assert found["decoder.block.0.layer.0.SelfAttention"] == 2 * B * T * heads * width * 4
    assert found["decoder.block.0.layer.1.EncDecAttention"] == 2 * B * S * heads * width * 4
    assert found[""] is None


def test_damaged_call_bytes_are_refused() -> None:
    with attnprof.profile() as prof:
        nn.Linear(3, 3)(torch.ones(2, 3))
    data = trace_json.to_dict(prof.trace)
    data["modules"][-1]["call_bytes"] = {"forwards": 3}
    with pytest.raises(attnprof.AttnprofError, match="bytes of calls in 'forwards'"):
        trace_json.loads(json.dumps(data))
