"""Measuring this machine: GEMM peaks, pointwise peaks, bandwidth and launch overhead, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from attnprof.capture import kernels
from attnprof.capture.kernels import Kernel
from attnprof.core import machine
from attnprof.core.calibration import Calibration, Conditions, Measured, Measurement, Refusal
from attnprof.core.device import peak_dtype
from attnprof.core.errors import AttnprofError
from attnprof.core.timing import Durations

#: Told what is measured now, and which part of the whole is done, 0 to 1.
Progress = Callable[[str, float], None]

#: Parts of the time budget.
_SHARES: dict[Measured, float] = {"matmul": 0.55, "vector": 0.2, "bandwidth": 0.2, "launch": 0.05}
_MATMUL_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.float8_e4m3fn)
_VECTOR_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32)
#: A GPU computes pointwise kernels of 16 bits in float32; its eager kernels wait for the memory, not for arithmetic.
_CHAIN_DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32)
_REPEATS = 5  # at the least, unless they take so many times as long as they have
_PATIENCE = 3
_BATCH_NS = 2_000_000  # calls timed together last this long at the least
_SHORT_S = 0.25  # a matmul that takes no longer is tried in any case: what stalled a small one may be gone
_MIB = 2**20


def measure(seconds: float = 40.0, device: str | None = None, progress: Progress | None = None) -> Calibration:
    """Measure a device of this machine in about ``seconds``: ``cpu``, ``cuda``, ``cuda:1``; a GPU where there is one.

    Nothing global is changed: not the random state, and the precision of float32 matmuls is put back. Raises
    :class:`AttnprofError` for a device that PyTorch does not have here, and inside ``attnprof.profile()``.
    """
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise AttnprofError(f"calibration takes a number of seconds above zero, such as 40, not {seconds!r}.")
    if _get_current_dispatch_mode_stack():
        raise AttnprofError("calibrate() cannot measure while ops are being recorded: call it outside of profile().")
    return _Session(_device(device), seconds, progress or (lambda what, done: None)).run()


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError):
        raise AttnprofError(f'"{name}" is no device of torch: name one such as cpu, cuda or cuda:1.') from None
    try:
        torch.empty(1, device=found).neg_()
        if found.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: torch was built without CUDA
        raise AttnprofError(f'nothing can be measured on "{name}": {_first_line(error)}.') from None
    return found


class _Session:
    def __init__(self, device: torch.device, seconds: float, progress: Progress) -> None:
        self.device = device
        self.on_cpu = device.type == "cpu"
        self.seconds = seconds
        self.measurements: list[Measurement] = []
        self.refusals: list[Refusal] = []
        self.busy_ns = self.wall_ns = 0
        self._progress = progress
        self._done = 0.0
        self._end = time.perf_counter() + seconds
        self._wait = (lambda: None) if self.on_cpu else torch.get_device_module(device).synchronize

    def run(self) -> Calibration:
        with torch.inference_mode(), _in_place_of_current(self.device), _float32_in_full():
            self._matmuls()
            self._vectors()
            self._bandwidth()
            self._launches()
        self._progress("done", 1.0)
        return Calibration(
            self._conditions(),
            tuple(self.measurements),
            tuple(self.refusals),
            self.busy_ns / self.wall_ns if self.on_cpu and self.wall_ns else None,
            **self._facts(),
        )

    # What is measured

    def _matmuls(self) -> None:
        precise: list[tuple[torch.dtype, str]] = [(dtype, "highest") for dtype in _MATMUL_DTYPES]
        if self._has_tf32():
            precise.insert(1, (torch.float32, "high"))
        sizes = [256 << i for i in range(5)] if self.on_cpu else [1024 << i for i in range(5)]
        each = _SHARES["matmul"] / len(precise)
        for dtype, precision in precise:
            name = "tf32" if precision == "high" else peak_dtype(str(dtype))
            torch.set_float32_matmul_precision(precision)
            with self._part("matmul", name, each) as seconds:
                self._sweep(name, dtype, sizes, seconds)
        torch.set_float32_matmul_precision("highest")

    def _sweep(self, name: str, dtype: torch.dtype, sizes: list[int], seconds: float) -> None:
        """Ever larger matmuls in both layouts, as long as another size can be repeated in the time that is left."""
        layouts = [False, True] if peak_dtype(str(dtype)) != "float8" else [True]  # float8 wants columns
        end = time.perf_counter() + seconds
        fastest = 0.0
        for i, n in enumerate(sizes):
            left = end - time.perf_counter()
            expected = 2 * n**3 / fastest if fastest else 0.0
            if expected > max(_SHORT_S, left / _REPEATS / len(layouts)):
                return
            for transposed in list(layouts):
                try:
                    kernel = kernels.matmul(dtype, n, transposed, self.device)
                    began, busy = time.perf_counter_ns(), time.thread_time_ns()
                    done = self._time("matmul", name, kernel, left / (len(sizes) - i) / len(layouts))
                except RuntimeError:  # this layout has no kernel, or this size no memory
                    layouts.remove(transposed)
                    if not layouts:
                        raise
                    continue
                self.busy_ns += time.thread_time_ns() - busy
                self.wall_ns += time.perf_counter_ns() - began
                fastest = max(fastest, done.best)

    def _has_tf32(self) -> bool:
        """NVIDIA's GPUs since Ampere."""
        on_nvidia = self.device.type == "cuda" and torch.version.cuda is not None
        return on_nvidia and torch.cuda.get_device_capability(self.device)[0] >= 8

    def _vectors(self) -> None:
        sizes = [2**14, 2**16, 2**18] if self.on_cpu else [2**20, 2**22]
        dtypes = _CHAIN_DTYPES if self.device.type == "cuda" else _VECTOR_DTYPES
        for dtype in dtypes:
            name = peak_dtype(str(dtype))
            with self._part("vector", name, _SHARES["vector"] / len(dtypes)) as seconds:
                if self.device.type == "cuda":
                    made = [kernels.chains(dtype, n, self.device) for n in (2**22, 2**24)]
                else:
                    made = [kernel for n in sizes for kernel in kernels.pointwise(dtype, n, self.device)]
                self._each("vector", made, seconds)

    def _bandwidth(self) -> None:
        with self._part("bandwidth", "STREAM", _SHARES["bandwidth"]) as seconds:
            self._each("bandwidth", kernels.stream(self._array_bytes() // 4, self.device), seconds)

    def _launches(self) -> None:
        made = [kernels.launch] if self.on_cpu else [kernels.launch, kernels.latency]
        for kernel in (make(self.device) for make in made):
            with self._part("launch", kernel.name, _SHARES["launch"] / len(made)) as seconds:
                self._each("launch", [kernel], seconds)

    # How

    def _each(self, kind: Measured, made: Iterable[Kernel], seconds: float) -> None:
        chosen = list(made)
        for kernel in chosen:
            self._time(kind, kernel.name, kernel, seconds / len(chosen))

    def _time(self, kind: Measured, name: str, kernel: Kernel, seconds: float) -> Measurement:
        """Repeats of as many calls as last long enough for the clock; the first calls are warm-up."""
        began = time.perf_counter()
        self._once(kernel, 1)
        calls = max(1, _BATCH_NS // min(self._once(kernel, 1) for _ in range(3)))
        times = [self._once(kernel, calls)]
        while (spent := time.perf_counter() - began) < seconds or len(times) < _REPEATS:
            if spent > _PATIENCE * max(seconds, _SHORT_S):  # on a busy machine every call may be held up
                break
            times.append(self._once(kernel, calls))
        done = Measurement(kind, name, kernel.work, kernel.at, calls, Durations.of(times))
        self.measurements.append(done)
        return done

    def _once(self, kernel: Kernel, calls: int) -> int:
        """Nanoseconds of so many calls: between two events on CUDA, elsewhere on the host's clock."""
        call = kernel.call
        if self.device.type == "cuda" and kernel.name != "latency":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            for _ in range(calls):
                call()
            ended.record()
            ended.synchronize()
            return max(round(float(began.elapsed_time(ended)) * 1e6), 1)  # torch gives milliseconds
        self._wait()
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        self._wait()
        return max(time.perf_counter_ns() - start, 1)

    @contextmanager
    def _part(self, kind: Measured, name: str, share: float) -> Iterator[float]:
        """The seconds for one part: less when those before took too long. What PyTorch refuses here is noted."""
        self._progress(f"{kind} {name}", self._done)
        left = self._end - time.perf_counter()
        try:
            yield max(left / (1 - self._done), self.seconds / 4) * share
        except (RuntimeError, TypeError) as error:  # no such kernel, no such dtype, no memory
            if name not in {one.name for one in self.measurements if one.kind == kind}:  # not even a smaller size
                self.refusals.append(Refusal(kind, name, _first_line(error)))
        self._done += share

    # About the machine

    def _array_bytes(self) -> int:
        """Four times the last cache, or 64 MiB; not more than a sixteenth of the memory."""
        facts = self._facts()
        size = max(4 * (facts["cache_bytes"] or 64 * _MIB), 64 * _MIB)
        return min(size, (facts["memory_bytes"] or 16 * size) // 16)

    def _facts(self) -> dict[str, int | None]:
        if self.device.type == "cuda":
            found = torch.cuda.get_device_properties(self.device)
            return {
                "memory_bytes": found.total_memory,
                "cache_bytes": getattr(found, "L2_cache_size", None),
                "units": found.multi_processor_count,
                "on_chip_bytes_per_unit": getattr(found, "shared_memory_per_multiprocessor", None),
            }
        if not self.on_cpu:
            return {"memory_bytes": None, "cache_bytes": None, "units": None, "on_chip_bytes_per_unit": None}
        return {
            "memory_bytes": machine.memory_bytes(),
            "cache_bytes": machine.last_level_cache_bytes(),
            "units": machine.cores(),
            "on_chip_bytes_per_unit": None,
        }

    def _conditions(self) -> Conditions:
        named = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return Conditions(
            date.today().isoformat(),
            machine.host(),
            machine.processor(),
            machine.cores(),
            named,
            torch.get_num_threads(),
            torch.__version__,
        )


@contextmanager
def _in_place_of_current(device: torch.device) -> Iterator[None]:
    """Events and kernels go to the current device: make it the one that is measured."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
    else:
        yield


@contextmanager
def _float32_in_full() -> Iterator[None]:
    """float32 is float32 here, whatever the program allows its matmuls; that is put back."""
    before = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
