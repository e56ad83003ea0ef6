"""The cache a call leaves behind: which value it is, its bytes per layer, and its tokens."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnprof.capture import kv_cache
from attnprof.capture.kv_cache import cache_of

B, H, S, DH, L = 2, 3, 5, 4, 2
IDS = torch.zeros(B, S, dtype=torch.int64)
#: One tensor of keys or values: B H S dh floats of 4 bytes.
ONE = B * H * S * DH * 4


def keys(tokens: int = S, batch: int = B) -> Tensor:
    return torch.zeros(batch, H, tokens, DH)


def pairs(tokens: int = S) -> list[tuple[Tensor, Tensor]]:
    return [(keys(tokens), keys(tokens)) for _ in range(L)]


class Takes(nn.Module):
    """Takes a cache by the name that HF uses; what it returns is up to the test."""

    def forward(self, ids: Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        raise NotImplementedError


class TakesState(nn.Module):
    def forward(self, x: Tensor, state: Any = None) -> Any:
        raise NotImplementedError


class StateFirst(nn.Module):
    def forward(self, state: Tensor) -> Tensor:
        raise NotImplementedError


class Keyword(nn.Module):
    def forward(self, ids: Tensor, *, kv_cache: Any = None) -> Any:
        raise NotImplementedError


class Anything(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@dataclass
class Output:
    logits: Tensor
    past_key_values: Any = None


LOGITS = torch.zeros(B, S, 7)


# Where it is found


@pytest.mark.parametrize(
    ("args", "kwargs", "output"),
    [
        ((IDS,), {}, Output(LOGITS, pairs())),
        ((IDS,), {}, {"logits": LOGITS, "past_key_values": pairs()}),
        ((IDS,), {}, namedtuple("Out", "logits past_key_values")(LOGITS, pairs())),
        ((IDS,), {}, (LOGITS, pairs())),
        ((IDS,), {}, [LOGITS, pairs()]),
        ((IDS,), {}, (torch.zeros(()), LOGITS, pairs())),  # loss, logits, cache
        ((IDS, pairs()), {}, LOGITS),  # updated in place
        ((IDS,), {"past_key_values": pairs()}, LOGITS),
        ((IDS,), {"past_key_values": tuple(pairs())}, (LOGITS, tuple(pairs()))),
    ],
    ids=["dataclass", "dict", "namedtuple", "pair", "list", "loss first", "positional", "keyword", "both"],
)
def test_found_in_the_output_or_the_arguments(args: Any, kwargs: Any, output: Any) -> None:
    found = cache_of(Takes(), args, kwargs, output)
    assert found is not None
    assert found.layer_bytes == (2 * ONE,) * L


def test_the_returned_cache_is_the_one_after_the_call() -> None:
    found = cache_of(Takes(), (IDS, pairs(S)), {}, (LOGITS, pairs(S + 1)))
    assert found == ((2 * B * H * (S + 1) * DH * 4,) * L, S + 1)


def test_names_also_where_forward_takes_anything() -> None:
    found = cache_of(Anything(), (IDS,), {"kv_cache": pairs()}, LOGITS)
    assert found is not None
    assert sum(found.layer_bytes) == L * 2 * ONE


def test_keyword_only() -> None:
    assert kv_cache.slot_of(Keyword()) == ("kv_cache", None)
    found = cache_of(Keyword(), (IDS,), {"kv_cache": pairs()}, LOGITS)
    assert found is not None


def test_a_loose_name_counts_when_the_call_returns_a_new_one() -> None:
    state = torch.zeros(B, 16)
    assert cache_of(TakesState(), (IDS, state), {}, LOGITS) is None
    assert cache_of(TakesState(), (IDS, state), {}, (LOGITS, torch.zeros(B, 16))) == ((B * 16 * 4,), None)


def test_wrappers_are_looked_through() -> None:
    class DataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Takes()

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    assert cache_of(DataParallel(), (IDS,), {}, (LOGITS, pairs())) is not None


@pytest.mark.parametrize(
    ("module", "args", "output"),
    [
        (nn.Linear(4, 4), (torch.zeros(2, 4),), torch.zeros(2, 4)),
        (nn.LSTM(4, 4), (torch.zeros(5, 2, 4),), (torch.zeros(5, 2, 4), (torch.zeros(1, 2, 4),) * 2)),
        (StateFirst(), (torch.zeros(2, 4),), torch.zeros(2, 4)),  # the input, whatever its name
        (Takes(), (IDS,), LOGITS),
        (Takes(), (IDS,), (LOGITS, torch.zeros(()))),  # a loss
        (Takes(), (IDS,), (LOGITS, None)),
        (Takes(), (IDS,), (torch.zeros(()), LOGITS, (torch.zeros(B, S, 8),) * 3)),  # hidden states
        (Takes(), (IDS,), Output(LOGITS)),
        (Takes(), (IDS, []), LOGITS),
        (Takes(), (IDS,), None),
    ],
)
def test_no_cache(module: nn.Module, args: Any, output: Any) -> None:
    assert cache_of(module, args, {}, output) is None
    assert kv_cache.find(module, args, {}, output) is None


def test_outputs_that_cannot_be_asked() -> None:
    """As many programs write it: asking for an attribute that is not there raises a KeyError."""

    class Careless(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            return self[name]

    assert cache_of(Takes(), (IDS,), {}, Careless(logits=LOGITS)) is None
    assert cache_of(Takes(), (IDS,), {}, Careless(past_key_values=pairs())) is not None


# What counts


class OwnLayer:
    def __init__(self) -> None:
        self.k, self.v = keys(), keys()
        self.length = torch.tensor(S)  # a counter


class OwnCache:
    def __init__(self, layers: list[OwnLayer]) -> None:
        self.layers, self.config = layers, {"embedding": torch.zeros(1000)}


class ByList:
    def __init__(self) -> None:
        self.key_cache, self.value_cache = [keys() for _ in range(L)], [keys() for _ in range(L)]


class Slotted:
    __slots__ = ("key", "value")

    def __init__(self) -> None:
        self.key, self.value = keys(), keys()


@pytest.mark.parametrize(
    ("cache", "layer_bytes"),
    [
        (pairs(), (2 * ONE,) * L),
        (tuple(pairs()), (2 * ONE,) * L),
        (dict(enumerate(pairs())), (2 * ONE,) * L),
        ({"a": pairs()[0], "b": pairs()[1]}, (2 * ONE,) * L),
        ({"k": keys(), "v": keys()}, (2 * ONE,)),
        ([{"k": keys(), "v": keys()}] * 1 + [{"k": keys(), "v": keys()}], (2 * ONE,) * L),
        ((keys(), keys()), (2 * ONE,)),
        (([keys(), keys()], [keys(), keys()]), (2 * ONE,) * L),  # lists of keys and of values
        ([torch.zeros(2, B, H, S, DH) for _ in range(L)], (2 * ONE,) * L),  # keys and values in one
        (torch.zeros(L, 2, B, H, S, DH), (L * 2 * ONE,)),
        (OwnCache([OwnLayer(), OwnLayer()]), (2 * ONE,) * L),
        (ByList(), (2 * ONE,) * L),
        ([Slotted(), Slotted()], (2 * ONE,) * L),
        ([None, pairs()[0]], (2 * ONE,)),
        (((*pairs()[0], *pairs()[0]),) * 1, (4 * ONE,)),  # self- and cross-attention in one
    ],
)
def test_forms(cache: Any, layer_bytes: tuple[int, ...]) -> None:
    found = cache_of(Takes(), (IDS,), {}, Output(LOGITS, cache))
    assert found is not None
    assert found.layer_bytes == layer_bytes


def size_of(*tensors: Tensor) -> int:
    found = cache_of(Takes(), (IDS,), {}, Output(LOGITS, list(tensors)))
    return 0 if found is None else sum(found.layer_bytes)


def test_shared_memory_counts_once() -> None:
    k = keys()
    assert size_of(k, k, k.view(B, H * S, DH).view(B, H, S, DH)) == ONE
    assert cache_of(Takes(), (IDS,), {}, Output(LOGITS, [(k, keys()), (k, keys())])) == ((2 * ONE, ONE), S)


def test_a_slice_counts_what_it_shows() -> None:
    buffer = torch.zeros(B, H, 100, DH)
    assert size_of(buffer[:, :, :S]) == ONE
    assert size_of(buffer[:, :, :S], buffer[:, :, S : 2 * S]) == 2 * ONE
    assert size_of(buffer) == B * H * 100 * DH * 4


def test_overlapping_views_never_count_more_than_their_storage() -> None:
    buffer = torch.zeros(10)
    assert size_of(buffer[:8], buffer[2:]) == 10 * 4


def test_an_expanded_dimension_is_one_element() -> None:
    assert size_of(torch.zeros(B, 1, S, DH).expand(B, H, S, DH)) == B * S * DH * 4


def test_dtypes() -> None:
    assert size_of(keys().to(torch.bfloat16)) == ONE // 2
    assert size_of(keys().to(torch.int8), torch.zeros(B, H, S, 1)) == ONE // 4 + B * H * S * 4  # and its scales


def test_a_tensor_that_wraps_others_counts_what_they_hold() -> None:
    assert size_of(TwoTensor(keys(), keys())) == 2 * ONE


def test_a_sparse_tensor_is_no_error() -> None:
    sparse = torch.eye(4).to_sparse()
    assert size_of(sparse, sparse) == 4 * 4 * 4


# Tokens


@pytest.mark.parametrize(
    ("given", "cache", "tokens"),
    [
        (None, pairs(), S),  # a first call holds its input's tokens
        (None, [(torch.zeros(B, S, H, DH),) * 2], S),  # in whatever dimension
        (None, [torch.zeros(B, 16)], None),  # a state
        (pairs(8), pairs(9), 9),
        ([(torch.zeros(B, 8, H, DH),) * 2], [(torch.zeros(B, 9, H, DH),) * 2], 9),
        ([torch.zeros(B, 16)], [torch.zeros(B, 16)], None),
    ],
)
def test_tokens_of_plain_tensors(given: Any, cache: Any, tokens: int | None) -> None:
    found = cache_of(Takes(), (IDS, given), {}, (LOGITS, cache))
    assert found is not None
    assert found.tokens == tokens


def test_plain_tensors_updated_in_place_do_not_say() -> None:
    found = cache_of(Takes(), (IDS, pairs(S)), {}, LOGITS)
    assert found is not None
    assert found.tokens is None


# Watching


class NoOps(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} ran")


class Asked(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was asked")


def test_asking_runs_no_op_and_is_not_seen() -> None:
    cache = OwnCache([OwnLayer(), OwnLayer()])
    two = TwoTensor(keys(), keys())
    before, after = pairs(S), pairs(S + 1)
    with NoOps(), Asked():
        assert cache_of(Takes(), (IDS,), {}, Output(LOGITS, cache)) is not None
        assert cache_of(Takes(), (IDS,), {}, Output(LOGITS, [two])) is not None
        assert cache_of(Takes(), (IDS, before), {}, (LOGITS, after)) is not None
        found = kv_cache.find(Takes(), (IDS, before), {}, (LOGITS, after))
        assert found is after
        assert kv_cache.layers(found) == [list(pair) for pair in after]


def test_nothing_is_kept() -> None:
    cache, module = pairs(), Takes()
    dead = [weakref.ref(cache[0][0]), weakref.ref(module)]
    assert cache_of(module, (IDS,), {}, OrderedDict(past_key_values=cache)) is not None
    del cache, module
    gc.collect()
    assert [reference() for reference in dead] == [None, None]
