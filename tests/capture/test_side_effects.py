"""Observing changes nothing: the same bits with and without the profiler, for modules of every kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten

import attnprof

WIDTH, HEADS, LENGTH, BATCH = 16, 2, 5, 3


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.body(x))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dropout=0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.attention(x, x, x)


class Padded(nn.Module):
    """A Transformer encoder whose last positions are padding: the fast path goes through nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [LENGTH - 1], [LENGTH - 2]])
        return self.encoder(x, src_key_padding_mask=mask)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, WIDTH, padding_idx=0, max_norm=1.0)
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11)

    def forward(self, ids: Tensor) -> Tensor:
        return F.cross_entropy(self.out(self.norm(self.embedding(ids))).flatten(0, 1), ids.flatten())


class Noise(nn.Module):
    """Draws random numbers in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.alpha, self.rrelu = nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.RReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x) + self.alpha(x) + torch.randn_like(x) + torch.rand(WIDTH)
        return self.rrelu(x) * torch.bernoulli(torch.full_like(x, 0.5))


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(HEADS, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("btd,hdf->bhtf", x, self.weight)
        return torch.einsum("bhtf,bhsf->bhts", y, y.transpose(0, 0)).softmax(-1)


class Counting(nn.Module):
    """Has buffers that its forward changes, and a hook of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(WIDTH), persistent=False)
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
        self.linear.register_forward_hook(lambda module, args, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
        return self.linear(x - self.mean)


class SpectralNorm(nn.Module):
    """A power iteration that runs in training and not in eval."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def sequence() -> Tensor:
    return torch.randn(BATCH, LENGTH, WIDTH)


def sliced() -> Tensor:
    """Not contiguous."""
    return torch.randn(BATCH, WIDTH, LENGTH).transpose(1, 2)


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "conv and batch norm": (ConvNet, lambda: torch.randn(BATCH, 3, 8, 8)),
    "lstm": (lambda: nn.LSTM(WIDTH, 8, 2, batch_first=True, bidirectional=True, dropout=0.2), sequence),
    "gru": (lambda: nn.GRU(WIDTH, 8, batch_first=True), sequence),
    "attention": (SelfAttention, sequence),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True), sequence),
    "encoder layer, pre-norm gelu": (
        lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True, norm_first=True, activation="gelu"),
        sliced,
    ),
    "padded encoder": (Padded, sequence),
    "embedding and loss": (Tokens, lambda: torch.randint(0, 11, (BATCH, LENGTH))),
    "noise": (Noise, sequence),
    "einsum": (Einsum, sequence),
    "einsum on a view": (Einsum, sliced),
    "buffers and hooks": (Counting, sequence),
    "spectral norm": (SpectralNorm, sequence),
}


def autocast() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


@contextmanager
def both(outer: AbstractContextManager[Any], inner: AbstractContextManager[Any]) -> Iterator[None]:
    with outer, inner:
        yield


CONTEXTS: dict[str, tuple[bool, Callable[[], AbstractContextManager[Any]]]] = {
    "train": (True, nullcontext),
    "train, autocast": (True, autocast),
    "eval": (False, nullcontext),
    "eval, no_grad": (False, torch.no_grad),
    "eval, no_grad, autocast": (False, lambda: both(torch.no_grad(), autocast())),
    "eval, inference_mode": (False, torch.inference_mode),
    "eval, inference_mode, autocast": (False, lambda: both(torch.inference_mode(), autocast())),
    "train, inference_mode": (True, torch.inference_mode),
}


@dataclass
class Outcome:
    """Everything a run leaves that a person could look at."""

    tensors: dict[str, Tensor | None]
    facts: dict[str, Any]

    def assert_same(self, other: Outcome) -> None:
        assert self.facts == other.facts
        assert self.tensors.keys() == other.tensors.keys()
        for name, tensor in self.tensors.items():
            twin = other.tensors[name]
            assert (tensor is None) == (twin is None), name
            if tensor is not None and twin is not None:
                assert (tensor.dtype, tensor.shape, tensor.stride()) == (twin.dtype, twin.shape, twin.stride()), name
                assert tensor.requires_grad == twin.requires_grad, name
                assert torch.equal(bits(tensor), bits(twin)), name


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, so that NaN equals itself and -0 differs from 0."""
    return tensor.detach().clone().contiguous().view(torch.uint8) if tensor.dim() else tensor.detach()


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def outcome(model: nn.Module, x: Tensor, context: Callable[[], Any], profiled: bool, steps: int = 2) -> Outcome:
    """A few calls, with backwards where gradients flow, and the state after them."""
    tensors: dict[str, Tensor | None] = {}
    facts: dict[str, Any] = {}
    torch.manual_seed(3)
    with attnprof.profile(model) if profiled else nullcontext():
        for step in range(steps):
            with context():
                output = model(x)
                facts[f"modes {step}"] = (
                    torch.is_grad_enabled(),
                    torch.is_inference_mode_enabled(),
                    torch.is_autocast_enabled("cpu"),
                )
            leaves, structure = tree_flatten(output)
            facts[f"structure {step}"] = str(structure)
            facts[f"grad_fn {step}"] = [type(t.grad_fn).__name__ for t in leaves if isinstance(t, Tensor)]
            tensors |= {f"output {step} {i}": t for i, t in enumerate(leaves) if isinstance(t, Tensor)}
            roots = [t for t in leaves if isinstance(t, Tensor) and t.requires_grad]
            if roots:
                torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
        tensors["random state"] = torch.get_rng_state()
        tensors["next draw"] = torch.rand(3)
    tensors |= {f"gradient {name}": p.grad for name, p in model.named_parameters()}
    tensors |= {f"state {name}": t for name, t in model.state_dict().items()}
    tensors |= {f"buffer {name}": t for name, t in model.named_buffers()}
    facts["training"] = {name: module.training for name, module in model.named_modules()}
    facts["hooks"] = {
        name: {kind: len(getattr(module, kind)) for kind in HOOKS} for name, module in model.named_modules()
    }
    facts["attributes"] = {name: sorted(vars(module)) for name, module in model.named_modules()}
    facts["keys"] = list(model.state_dict())
    return Outcome(tensors, facts)


#: Torch's own fast path mixes dtypes here and raises.
REFUSED = {("padded encoder", where) for where in ("eval, no_grad, autocast", "eval, inference_mode, autocast")}


@pytest.mark.parametrize(("name", "where"), [case for case in product(ZOO, CONTEXTS) if case not in REFUSED])
def test_same_bits(name: str, where: str) -> None:
    build, make_input = ZOO[name]
    training, context = CONTEXTS[where]
    torch.manual_seed(1)
    model = build().train(training)
    twin, x = copy.deepcopy(model), make_input()
    bare = outcome(model, x, context, profiled=False)
    outcome(twin, x, context, profiled=True).assert_same(bare)


@pytest.mark.parametrize(("name", "where"), sorted(REFUSED))
def test_same_refusal(name: str, where: str) -> None:
    """What raises without the profiler raises with it, in the same words."""
    build, make_input = ZOO[name]
    training, context = CONTEXTS[where]
    model, x = build().train(training), make_input()
    with pytest.raises(RuntimeError) as bare:
        outcome(model, x, context, profiled=False)
    with pytest.raises(RuntimeError) as profiled:
        outcome(model, x, context, profiled=True)
    assert str(profiled.value) == str(bare.value)


def test_a_training_loop_takes_the_same_path() -> None:
    """Twenty steps of AdamW with clipping and dropout end at the same weights."""

    def train(profiled: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(WIDTH, 32), nn.Dropout(0.3), nn.GELU(), nn.Linear(32, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        with attnprof.profile(model) if profiled else nullcontext():
            for _ in range(20):
                loss = model(torch.randn(BATCH, WIDTH)).square().mean()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        states = {f"{i} {k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}
        return model.state_dict() | states

    bare, profiled = train(False), train(True)
    assert bare.keys() == profiled.keys()
    assert all(torch.equal(bare[name], profiled[name]) for name in bare)


# Native fast paths


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_encoder_layers_fast_path_is_taken(context: Callable[[], Any]) -> None:
    model, x = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True).eval(), sequence()
    with attnprof.profile(model) as prof, context():
        model(x)
    assert prof.report().operator_calls()["aten._transformer_encoder_layer_fwd.default"] == 1


def test_the_attention_fast_path_is_taken() -> None:
    model, x = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval(), sequence()
    with attnprof.profile(model) as prof, torch.no_grad():
        model(x, x, x)
    assert prof.report().operator_calls()["aten._native_multi_head_attention.default"] == 1


def test_padding_goes_through_nested_tensors() -> None:
    model, x = Padded().eval(), sequence()
    with attnprof.profile(model) as prof, torch.no_grad():
        model(x)
    calls = prof.report().operator_calls()
    assert calls["aten._transformer_encoder_layer_fwd.default"] == 2
    assert calls["aten._nested_tensor_from_mask.default"] == 1


# attnprof.run puts things back


def snapshot(model: nn.Module, x: Tensor) -> Outcome:
    tensors: dict[str, Tensor | None] = {f"buffer {name}": b.clone() for name, b in model.named_buffers()}
    tensors |= {f"gradient {name}": None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    tensors |= {f"value {name}": p.detach().clone() for name, p in model.named_parameters()}
    tensors |= {"random state": torch.get_rng_state(), "input gradient": x.grad}
    facts = {
        "identities": {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())},
        "gradients": {name: id(p.grad) for name, p in model.named_parameters()},
        "training": [module.training for module in model.modules()],
        "keys": list(model.state_dict()),
    }
    return Outcome(tensors, facts)


class Late(nn.Module):
    """Runs a model, then raises if it is told to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.fail = model, False

    def forward(self, x: Tensor) -> Any:
        y = self.model(x)
        if self.fail:
            raise RuntimeError("too late")
        return y


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("gradients", [False, True], ids=["no gradients before", "gradients before"])
@pytest.mark.parametrize("name", ["conv and batch norm", "noise", "buffers and hooks", "spectral norm", "attention"])
def test_run_leaves_the_model_as_it_was(name: str, gradients: bool, fail: bool, fake: bool) -> None:
    build, make_input = ZOO[name]
    model, x = Late(build()), make_input().requires_grad_()
    if gradients:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
    model.fail = fail
    before = snapshot(model, x)
    with pytest.raises(RuntimeError, match="too late") if fail else nullcontext():
        attnprof.run(model, (x,), backward=True, fake=fake)
    snapshot(model, x).assert_same(before)
