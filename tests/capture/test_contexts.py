"""One model, one count: the totals do not depend on grad mode, autocast, fake tensors or the SDPA kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import attnprof


class SelfAttention(nn.Module):
    """nn.MultiheadAttention on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Einsum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bij,bkj->bik", x, x)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(16, 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bilinear(x, x)


class Functional(nn.Module):
    """Ops that torch composes of others: they reach a mode whole only under inference_mode."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(F.dropout(x, 0.0), (1, 1)).flatten(1).reshape(2, 5, 18)[..., 1:-1].contiguous()
        y = F.cosine_similarity(y, x, dim=-1).unsqueeze(-1) * torch.var(x, -1, keepdim=True)
        return F.normalize(torch.cat([y, x], -1), dim=-1).to(torch.float64).type_as(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(16, 8),
    "attention": SelfAttention,
    "encoder": lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0),
    "decoder": Decoder,
    "lstm": lambda: Recurrent(nn.LSTM(16, 8, batch_first=True, bidirectional=True)),
    "gru": lambda: Recurrent(nn.GRU(16, 8)),
    "einsum": Einsum,
    "bilinear": Bilinear,
    "convolution": lambda: nn.Sequential(nn.Conv1d(5, 4, 3, padding="same"), nn.BatchNorm1d(4), nn.ReLU()),
    "norms": lambda: nn.Sequential(nn.GroupNorm(5, 5), nn.InstanceNorm1d(5), nn.RMSNorm(16), nn.LayerNorm(16)),
    "functional": Functional,
}
X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


@contextmanager
def all_of(*contexts: AbstractContextManager[Any]) -> Any:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def bf16() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def counted(model: nn.Module, context: AbstractContextManager[Any]) -> tuple[Tensor, attnprof.Report]:
    torch.manual_seed(1)
    with context, attnprof.profile(model) as prof:
        out = model(X)
    return out, prof.report()


def bare(model: nn.Module, context: AbstractContextManager[Any]) -> Tensor:
    torch.manual_seed(1)
    with context:
        return model(X)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_every_grad_mode_and_a_fake_run_cost_the_same(name: str, training: bool) -> None:
    model = MODELS[name]().train(training)
    _, grad = counted(model, torch.enable_grad())
    _, no_grad = counted(model, torch.no_grad())
    _, inference = counted(model, torch.inference_mode())
    with torch.no_grad():
        fake = attnprof.run(model, (X,), fake=True)
    assert grad.total.matmul_flops == no_grad.total.matmul_flops
    # the same ops, so the same vector FLOPs and bytes as well
    assert no_grad.total == inference.total == fake.total
    assert grad.unpriced == no_grad.unpriced == inference.unpriced == fake.unpriced == {}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_autocast_casts_what_it_casts_without_us(mode: Any, name: str, training: bool) -> None:
    model = MODELS[name]().train(training)
    expected = bare(model, all_of(mode(), bf16()))
    model_again = MODELS[name]().train(training)
    model_again.load_state_dict(model.state_dict())
    model.load_state_dict(model_again.state_dict())
    out, report = counted(model_again, all_of(mode(), bf16()))
    assert out.dtype == expected.dtype
    assert torch.equal(out, expected) or name == "convolution"  # its batch norm was trained by the first run
    assert report.total.matmul_flops == counted(model, mode())[1].total.matmul_flops
    assert report.unpriced == {}


@pytest.mark.parametrize("name", MODELS)
def test_inference_mode_gives_the_bits_it_gives_without_us(name: str) -> None:
    model = MODELS[name]().eval()
    assert torch.equal(counted(model, torch.inference_mode())[0], bare(model, torch.inference_mode()))


def test_a_lazy_conjugate_is_resolved_inside_a_composite() -> None:
    x = torch.randn(3, 3, dtype=torch.complex64)
    with torch.inference_mode():
        expected = torch.einsum("ij,jk->ik", x.conj(), x)
        with attnprof.profile() as prof:
            found = torch.einsum("ij,jk->ik", x.conj(), x)
    assert torch.equal(found, expected)
    assert prof.report().total.matmul_flops == 8 * 3 * 3 * 3  # 8 FLOPs per complex multiply-add


class Attend(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_model_flops_do_not_depend_on_the_attention_kernel(backend: SDPBackend) -> None:
    b, h, t, dh = 2, 3, 8, 4
    q, k, v = (torch.randn(b, h, t, dh, requires_grad=True) for _ in range(3))
    with sdpa_kernel(backend):
        report = attnprof.run(Attend(), (q, k, v), backward=True)
    product = 2 * b * h * t * t * dh
    assert report.phases["forward"].matmul_flops == 2 * product  # QK^T and PV
    assert report.phases["backward"].matmul_flops == 4 * product  # dV, dP, dQ, dK
    assert report.model_flops == 6 * product
    fused = backend is SDPBackend.FLASH_ATTENTION
    assert report.phases["recompute"].matmul_flops == (product if fused else 0)  # QK^T again
    assert report.hardware_flops == (7 if fused else 6) * product


def test_a_fake_run_leaves_the_model_real() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(5))
    tensors = {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    before = {name: t.clone() for name, t in model.state_dict().items()}
    report = attnprof.run(model, (X,), backward=True, fake=True)
    assert {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())} == tensors
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert report.meta["fake"] is True
    assert report.phases["forward"].matmul_flops == 2 * 2 * 5 * 16 * 8
    assert report.phases["backward"].matmul_flops == 2 * 2 * 5 * 16 * 8  # the input needs no gradient: dW only


def test_a_fake_run_that_raises_leaves_the_model_real() -> None:
    model = nn.Linear(16, 8)
    with pytest.raises(RuntimeError):
        attnprof.run(model, (torch.randn(3, 17),), fake=True)
    assert type(model.weight) is nn.Parameter
    assert torch.equal(model(X), model(X))


def test_models_on_meta_and_models_built_fake_run() -> None:
    expected = attnprof.run(nn.Linear(16, 8), (X,), backward=True).total
    with torch.device("meta"):
        on_meta = nn.Linear(16, 8)
    assert attnprof.run(on_meta, (X,), backward=True, fake=True).total == expected
    with attnprof.fake_tensors():
        built_fake = nn.Linear(16, 8)
    assert attnprof.run(built_fake, (X,), backward=True, fake=True).total == expected


def test_tied_parameters_stay_tied_in_a_fake_run() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    report = attnprof.run(model, (torch.zeros(3, dtype=torch.int64),), backward=True, fake=True)
    assert report.root.params == 7 * 4
    assert model[1].weight is model[0].weight
