"""Legal training programs that once ran otherwise under the profiler."""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof

N, D = 3, 4
X = torch.ones(N, D)


def versions(profiles: int) -> list[int]:
    """Of a tensor, after each of three foreach ops in place, inside so many profiles."""
    tensors = [torch.ones(2), torch.ones(3)]
    with attnprof.profile() if profiles else torch.no_grad(), attnprof.profile() if profiles > 1 else torch.no_grad():
        found = []
        for change in (torch._foreach_neg_, torch._foreach_zero_, torch._foreach_sqrt_):
            change(tensors)
            found += [t._version for t in tensors]
    return found


@pytest.mark.parametrize("profiles", [1, 2])
def test_a_foreach_op_in_place_counts_as_a_change(profiles: int) -> None:
    assert versions(profiles) == versions(0) == [1, 1, 2, 2, 3, 3]


def test_a_foreach_op_in_place_on_inference_tensors() -> None:
    with torch.inference_mode(), attnprof.profile():
        tensors = [torch.ones(2)]
        torch._foreach_neg_(tensors)
    assert torch.equal(tensors[0], -torch.ones(2))


def test_a_backward_after_a_foreach_step_is_the_error_it_is_without_us() -> None:
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)

    def train() -> Tensor:
        loss = model(X).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        loss.backward()  # with weights that are not those of the forward
        return loss

    with pytest.raises(RuntimeError, match="modified by an inplace operation") as bare:
        train()
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as ours, attnprof.profile(model):
        train()
    assert str(ours.value).split("version")[0] == str(bare.value).split("version")[0]


class Interrupts:
    """Raises where a line of these files is about to run for the third time: as Ctrl-C may, anywhere."""

    def __init__(self, files: Iterable[str], line: tuple[str, int] | None = None) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self._files, self._line = tuple(files), line

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._lines if frame.f_code.co_filename.endswith(self._files) else None

    def _lines(self, frame: FrameType, event: str, arg: Any) -> Any:
        line = frame.f_code.co_filename, frame.f_lineno
        # On its way out of a `with`, Python tells of its line again, before it lets a lock go; and a `try:` is no
        # instruction that a signal can come at, nor one that an enclosing `with` covers.
        if event == "line" and not linecache.getline(*line).lstrip().startswith(("with ", "try:")):
            self.seen[line] += 1
            if line == self._line and self.seen[line] == 3:
                raise KeyboardInterrupt
        return self._lines


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line() -> None:
    """Wherever it comes, there is a report, and what runs afterwards runs and counts as if it had not come."""
    files = [f"/capture/{name}.py" for name in ("ledger", "attribution", "mode")]
    model = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Sequential(nn.Linear(D, D)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        model(X).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    def interrupted(at: Interrupts, prof: attnprof.api.Profile) -> bool:
        before = sys.gettrace()
        try:
            with prof:
                sys.settrace(at)
                try:
                    train()
                finally:
                    sys.settrace(before)
        except KeyboardInterrupt:
            optimizer.zero_grad()
            return True
        return False

    every = Interrupts(files)
    assert not interrupted(every, attnprof.profile(model))
    lines = [line for line, times in every.seen.items() if times >= 3]
    came = 0
    for line in lines:
        prof = attnprof.profile(model)
        came += interrupted(Interrupts(files, line), prof)
        before = prof.report()
        assert str(before)
        with prof:
            train()
        after = prof.report()
        assert str(after)
        gained = after.total.matmul_flops - before.total.matmul_flops
        assert gained == (2 + 3) * 2 * N * D * D, line  # two products forward, and no gradient for the input
    assert came > len(lines) // 2  # those that come in the end of a storage go unheard: torch's, not ours
