"""Legal training programs that once ran otherwise under the profiler."""

from __future__ import annotations

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
