"""Measuring this machine: what is timed does the work that is said, and nothing is left changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

import attnprof
from attnprof.capture import calibration, kernels
from attnprof.capture.kernels import Kernel
from attnprof.core import machine
from attnprof.core.errors import AttnprofError

CPU = torch.device("cpu")
SMALL = 1e-3  # seconds: every kernel runs the fewest times there are
N = 64


def counted(kernel: Kernel) -> attnprof.Cost:
    """What attnprof counts for one call."""
    with attnprof.profile(memory=False) as prof:
        kernel.call()
    return prof.report().total


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8], ids=str)
def test_a_matmul_is_2_n_cubed(dtype: torch.dtype, transposed: bool) -> None:
    kernel = kernels.matmul(dtype, N, transposed, CPU)
    assert kernel.work == counted(kernel).matmul_flops == 2 * N * N * N


def test_a_matmul_of_float8_is_2_n_cubed() -> None:
    kernel = kernels.matmul(torch.float8_e4m3fn, N, True, CPU)
    assert kernel.name == "float8"
    assert kernel.work == counted(kernel).matmul_flops == 2 * N * N * N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32], ids=str)
def test_pointwise_kernels_do_the_flops_that_are_said(dtype: torch.dtype) -> None:
    """A sum of n elements has n - 1 additions, which counts as n here; a norm has a root more, so 2n."""
    for kernel in kernels.pointwise(dtype, N, CPU):
        found = counted(kernel).vector_flops
        if kernel.at.startswith("sum"):
            found += 1  # n - 1 additions
        assert found == kernel.work, kernel.at


def test_chains_do_the_flops_that_are_said() -> None:
    """Their source, counted: what stands in the loop as often as that is run, and the additions around it."""
    from torch.cuda.jiterator import _CodeParser

    source = kernels._CHAIN_SOURCE
    assert _CodeParser(source).function_name == "chains"
    head, body, tail = re.fullmatch(r"(.*)for \(.*?\) \{(.*)\}(\s*return.*)", source, re.DOTALL).groups()  # type: ignore[union-attr]
    times = int(re.search(r"i < (\d+)", source)[1])  # type: ignore[index]
    operations = (body.count("*") + body.count("+")) * times + head.count("+") + tail.count("+")
    kernel = kernels.chains(torch.float32, N, CPU)
    assert kernel.work == operations * N


def test_stream_moves_the_bytes_that_are_said() -> None:
    arrays = {"copy": 2, "scale": 2, "add": 3, "triad": 3, "read": 1}
    found = {kernel.name: kernel for kernel in kernels.stream(N, CPU)}
    assert {name: kernel.work for name, kernel in found.items()} == {name: n * 4 * N for name, n in arrays.items()}
    for name, kernel in found.items():
        result = 4 if name == "read" else 0  # the sum itself is written too
        assert counted(kernel).bytes == kernel.work + result, name


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One size of matmuls, arrays of 1 MiB, few calls at once, one thread: the machine is not what is tested."""
    monkeypatch.setattr(calibration, "_SHORT_S", 1e-9)
    monkeypatch.setattr(calibration, "_BATCH_NS", 10_000)
    monkeypatch.setattr(calibration, "_PATIENCE", float("inf"))
    monkeypatch.setattr(calibration._Session, "_array_bytes", lambda self: 2**20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("small")
def test_everything_is_measured_and_nothing_is_changed() -> None:
    told: list[tuple[str, float]] = []
    random, precision, threads = torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.get_num_threads()
    found = calibration.measure(SMALL, "cpu", lambda what, done: told.append((what, done)))
    assert torch.equal(torch.get_rng_state(), random)
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == (precision, threads)

    assert found.refusals == ()
    assert list(found.best("matmul")) == ["float32", "bfloat16", "float16", "float64", "int8", "float8"]
    assert list(found.best("vector")) == ["float32", "float64", "bfloat16", "float16", "int64", "int32"]
    assert list(found.best("bandwidth")) == ["copy", "scale", "add", "triad", "read"]
    assert list(found.best("launch")) == ["throughput"]
    assert all(one.times.count >= 5 and one.best >= one.median > 0 for one in found.measurements)
    conditions = found.conditions
    assert (conditions.device, conditions.threads, conditions.torch) == ("cpu", threads, torch.__version__)
    assert (conditions.host, conditions.processor) == (machine.host(), machine.processor())
    assert found.units == machine.cores() >= 1
    assert found.processor_share is not None

    parts = [done for _, done in told]
    assert told[0] == ("matmul float32", 0.0)
    assert told[-1] == ("done", 1.0)
    assert parts == sorted(parts)


@pytest.mark.usefixtures("small")
def test_what_is_refused_is_noted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernels.matmul

    def refuse(dtype: torch.dtype, n: int, transposed: bool, device: torch.device) -> Kernel:
        if dtype == torch.float16:
            raise RuntimeError("no kernel for Half.\nC++ trace")
        return made(dtype, n, transposed, device)

    monkeypatch.setattr(kernels, "matmul", refuse)
    found = calibration.measure(SMALL, "cpu")
    (refusal,) = found.refusals
    assert (refusal.kind, refusal.name, refusal.why) == ("matmul", "float16", "no kernel for Half")
    assert list(found.best("matmul")) == ["float32", "bfloat16", "float64", "int8", "float8"]


@pytest.mark.usefixtures("small")
def test_one_layout_and_the_smaller_sizes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernels.matmul

    def refuse(dtype: torch.dtype, n: int, transposed: bool, device: torch.device) -> Kernel:
        if dtype == torch.int8 and (n > 256 or not transposed):
            raise RuntimeError("no such layout, no memory")
        return made(dtype, n, transposed, device)

    monkeypatch.setattr(kernels, "matmul", refuse)
    monkeypatch.setattr(calibration, "_SHORT_S", 10.0)  # so that a larger size is tried
    monkeypatch.setattr(calibration, "_MATMUL_DTYPES", (torch.int8,))
    monkeypatch.setattr(calibration, "_VECTOR_DTYPES", (torch.float32,))
    found = calibration.measure(SMALL, "cpu")
    assert found.refusals == ()
    assert [one.at for one in found.measurements if one.kind == "matmul"] == ["A·Bᵀ of 256 × 256"]


@pytest.mark.usefixtures("small")
def test_an_exception_leaves_the_precision_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(n: int, device: torch.device) -> Iterator[Kernel]:
        raise KeyboardInterrupt

    monkeypatch.setattr(kernels, "stream", interrupted)
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyboardInterrupt):
            calibration.measure(SMALL, "cpu")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "40", None])
def test_seconds_are_above_zero(seconds: object) -> None:
    with pytest.raises(AttnprofError, match=r"a number of seconds above zero, such as 40, not"):
        calibration.measure(seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["no such device", ""])
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        calibration.measure(SMALL, name)
    assert str(caught.value) == f'"{name}" is no device of torch: name one such as cpu, cuda or cuda:1.'


@pytest.mark.parametrize("name", ["meta", "cuda:99"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(AttnprofError) as caught:
        calibration.measure(SMALL, name)
    assert str(caught.value).startswith(f'nothing can be measured on "{name}": ')
    assert "\n" not in str(caught.value)


def test_not_while_ops_are_recorded() -> None:
    with attnprof.profile(), pytest.raises(AttnprofError, match=r"call it outside of profile\(\)"):
        calibration.measure(SMALL)
