"""Legal programs that once came out wrong under the profiler."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

import attnprof

D = 3
X = torch.ones(4, D)
UNIT = 2 * 4 * D * D  # one Linear(D, D) on X


class Positions(nn.Module):
    """Makes a real tensor on the way: positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.embedding(x) + self.embedding(torch.arange(x.shape[1]).to(x.device)))


def test_a_model_on_meta_counts_beside_real_ops() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    assert attnprof.run(Positions().to("meta"), (ids,)).total.matmul_flops == 2 * (2 * 3) * 4 * 5


def test_what_is_taken_for_shape_inference_is_said() -> None:
    with attnprof.profile() as prof:
        torch.ones(2, 3, device="meta") @ torch.ones(3, 4, device="meta")
        torch.ones(3) + 1
    assert any("meta" in note for note in prof.report().notes)


def test_a_thread_inside_a_module_when_the_profile_closes() -> None:
    inside, go = threading.Event(), threading.Event()
    left: list[Any] = []

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            go.wait()
            return self.linear(x)

    model = Waits()

    def work() -> None:
        model(X)
        left.append(torch.ones(4, D) @ torch.ones(D, D))

    thread = threading.Thread(target=work)
    with attnprof.profile() as prof:
        thread.start()
        inside.wait()
    go.set()
    thread.join()
    assert len(left) == 1
    assert prof.report().total.matmul_flops == 0  # the product came after the end


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_buffer(layout: str) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            eye = torch.eye(4)
            self.register_buffer("adjacency", eye.to_sparse() if layout == "coo" else eye.to_sparse_csr())

        def forward(self, x: Tensor) -> Tensor:
            return self.adjacency @ x

    assert attnprof.run(Graph(), (X,)).total.matmul_flops == 2 * 4 * D  # nnz 4


def test_a_sparse_buffer_that_was_changed_before_is_left_alone() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("adjacency", torch.eye(4).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return self.adjacency @ x

    model = Graph()
    model.adjacency.mul_(2)
    version = model.adjacency._version
    assert version > 0
    attnprof.run(model, (X,))
    assert model.adjacency._version == version


def test_lazy_modules() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    with pytest.raises(attnprof.AttnprofError, match=r"0\.weight is lazy"):
        attnprof.run(model, (X,), fake=True)
    assert attnprof.run(model, (X,)).total.matmul_flops == 2 * 4 * D * 4
    lazy = nn.LazyLinear(4)
    with attnprof.profile(lazy):
        lazy.double()
    assert lazy.weight.dtype == torch.float64


def test_a_batch_norm_on_meta() -> None:
    model = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D)).to("meta")
    assert attnprof.run(model, (X.to("meta"),)).total.matmul_flops == UNIT


class Picky(torch.Tensor):
    """Answers for ``linear`` alone."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.linear:
            raise NotImplementedError(func)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_subclass_that_answers_for_little() -> None:
    model = nn.Linear(D, D)
    with attnprof.profile(model) as prof:
        model(X.as_subclass(Picky))
    assert prof.report().total.matmul_flops == UNIT


def test_a_function_mode_sees_what_it_sees_without_us() -> None:
    class Log(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    def seen(profiled: bool) -> list[str]:
        model = nn.Linear(D, D)
        with Log() as log:
            if profiled:
                with attnprof.profile():
                    model(X).sum().backward()
            else:
                model(X).sum().backward()
        return [name for name in log.seen if name in ("linear", "sum", "backward", "__get__")]

    assert seen(profiled=True) == seen(profiled=False)


class LowRank(torch.Tensor):
    """a b in place of a matrix, with no way to flatten it; a product with it is two thin ones."""

    def __new__(cls, a: Tensor, b: Tensor) -> LowRank:
        return torch.Tensor._make_wrapper_subclass(cls, (a.shape[0], b.shape[1]), dtype=a.dtype)

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is torch.ops.aten.mm.default
        return (args[0] @ args[1].a) @ args[1].b


def test_a_subclass_that_runs_other_ops_counts_those() -> None:
    m, k, n, r = 10, 100, 50, 2
    weight = LowRank(torch.ones(k, r), torch.ones(r, n))
    with torch.no_grad(), attnprof.profile() as prof:
        torch.mm(torch.ones(m, k), weight)
    assert prof.report().total.matmul_flops == 2 * m * k * r + 2 * m * r * n


class Plain(torch.Tensor):
    """Runs every op as it is."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs or {})


def test_a_subclass_that_runs_the_op_as_it_is_counts_it() -> None:
    with torch.no_grad(), attnprof.profile() as prof:
        torch.mm(torch.ones(4, D).as_subclass(Plain), torch.ones(D, 5))
    assert prof.report().total.matmul_flops == 2 * 4 * D * 5


def test_ranges_with_float_ends_are_told_apart() -> None:
    with attnprof.profile() as prof:
        torch.arange(10.5)
        torch.arange(1000.5)
    assert prof.report().total.write_bytes == 4 * (11 + 1001)


def test_profiles_that_close_out_of_order() -> None:
    model = nn.Linear(D, D)
    first, second = attnprof.profile(model), attnprof.profile(model)
    first.__enter__()
    second.__enter__()
    model(X)
    first.__exit__(None, None, None)
    model(X)
    second.__exit__(None, None, None)
    assert first.report().total.matmul_flops == UNIT
    assert second.report().total.matmul_flops == 2 * UNIT
    assert _get_current_dispatch_mode_stack() == []


def test_a_users_mode_that_outlasts_the_profile() -> None:
    class Log(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += 1
            return func(*args, **(kwargs or {}))

    profile, log = attnprof.profile(), Log()
    profile.__enter__()
    log.__enter__()
    profile.__exit__(None, None, None)
    X + 1
    log.__exit__(None, None, None)
    assert log.seen == 1
    assert profile.report().total.flops == 0


def test_a_step_in_a_thread_that_did_not_enter_is_said() -> None:
    model = nn.Linear(D, D)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(X).sum().backward()
    with attnprof.profile(model) as prof:
        thread = threading.Thread(target=optimizer.step)
        thread.start()
        thread.join()
    assert any("thread" in note for note in prof.report().notes)


def test_the_loss_of_a_closure_is_forward() -> None:
    model = nn.Linear(D, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((model(X) - 1) ** 2).sum()
        loss.backward()
        return loss

    with attnprof.profile(model) as prof:
        optimizer.step(closure)
    phases = prof.report().phases
    n = 4 * 2
    assert phases["forward"].vector_flops == n + n + (n - 1)  # minus 1, square, sum
    assert phases["optimizer"].vector_flops == 2 * D * 2  # p -= lr g
    assert phases["other"].vector_flops == 0


def test_an_outer_profile_does_not_see_an_inner_one_looking() -> None:
    sparse = torch.eye(4).to_sparse_csr()

    def ops(profiled: bool) -> list[str]:
        with attnprof.profile() as outer:
            if profiled:
                with attnprof.profile():
                    sparse @ X
            else:
                sparse @ X
        return [op.op for op, _ in outer.report().trace.events()]

    assert ops(profiled=True) == ops(profiled=False)


def test_a_model_built_on_meta_under_fake_tensors() -> None:
    with attnprof.fake_tensors(), torch.device("meta"):
        model = nn.Linear(D, D)
    assert attnprof.run(model, (X,), fake=True, backward=True).phases["forward"].matmul_flops == UNIT
