"""``attnprof.scaling`` with its forms, ``judge`` and ``extrapolate``."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError


class Square(nn.Module):
    """x Wᵀ, then x xᵀ: 2 T d² and 2 T² d."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.project = nn.Linear(d, d, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        return x @ x.transpose(-1, -2)


def build(T: int = 16, d: int = 8) -> tuple[nn.Module, tuple[torch.Tensor]]:  # noqa: N803 - as papers have it
    return Square(d), (torch.randn(1, T, d),)


@pytest.fixture(scope="module")
def found() -> attnprof.Scaling:
    return attnprof.scaling(build, {"T": range(4, 129), "d": range(4, 65)})


def test_claims(found: attnprof.Scaling) -> None:
    assert attnprof.judge(found, "2Td² + 2T²d").holds
    verdict = attnprof.judge(found, "O(T d²)", sizes={"T": 100, "d": 10})
    assert not verdict.holds
    assert verdict.share == Fraction(100, 100 + 10)  # 2 T² d of 2 T² d + 2 T d²
    assert str(verdict).startswith("FALSE: grows as T² while d stays, where the claim grows as T.")
    assert attnprof.judge(found, "O(T²)", assume=["d<=T"]).holds is False
    assert attnprof.judge(found, "O(T³)", assume=["d<=T"]).holds
    for mistake in ({"claim": "O(q)"}, {"claim": "O(T)", "assume": ["T<3"]}, {"claim": "O(T)", "sizes": {"T": 0}}):
        with pytest.raises(AttnprofError):
            attnprof.judge(found, **mistake)  # type: ignore[arg-type]  # mistakes


def test_other_sizes(found: attnprof.Scaling) -> None:
    sizes = {"T": 10**6, "d": 1000}
    alone = attnprof.extrapolate(found, sizes)
    assert alone.amounts["matmul"] == 2 * 10**6 * 1000**2 + 2 * 10**12 * 1000
    assert [name for name, _ in alone.beyond] == ["T", "d"]
    assert (alone.counted, alone.seconds) == (None, None)
    counted = attnprof.extrapolate(found, sizes, build=build, device="a100-80gb-sxm", count=4)
    assert counted.amounts == alone.amounts
    assert counted.counted
    report = attnprof.run(*build(), fake=True, device="a100-80gb-sxm")
    assert report.roofline is not None
    at_16_by_8 = attnprof.extrapolate(found, {"T": 16, "d": 8}, build=build, device="a100-80gb-sxm")
    assert at_16_by_8.seconds == report.roofline.by_phase["forward"].attainable.seconds  # the same ops, op by op
    assert at_16_by_8.beyond == ()
    for mistake in ({"T": 8}, {"T": 8, "d": 8, "x": 8}, {"T": 0, "d": 8}):
        with pytest.raises(AttnprofError):
            attnprof.extrapolate(found, mistake)
    with pytest.raises(AttnprofError, match="for one device, not for 2"):
        attnprof.extrapolate(found, sizes, device="a100-80gb-sxm,h100-sxm")


def test_sizes_at_which_the_model_itself_fails(found: attnprof.Scaling) -> None:
    def short(T: int, d: int) -> tuple[nn.Module, tuple[torch.Tensor]]:  # noqa: N803
        if T > 1000:
            raise ValueError("no position after 1000")
        return build(T, d)

    needed = attnprof.extrapolate(found, {"T": 2000, "d": 8}, build=short, device="h100-sxm")
    assert (needed.counted, needed.is_bound) == (None, True)
    assert any("no position after 1000" in note for note in needed.notes)


def test_forms(found: attnprof.Scaling, tmp_path: Path) -> None:
    assert "2·T²·d + 2·T·d²" in str(found)
    assert "FALSE" in found.to_table(claims=["O(T)"], width=80)
    assert "FALSE" in found.to_markdown(claims=["O(T)"])
    assert "FALSE" in found.to_latex(claims=["O(T)"])
    assert '"holds": false' in found.to_json(claims=["O(T)"])
    assert found.to_csv().startswith("T,d,matmul,role\n")
    found.to_html(tmp_path / "page.html", claims=["O(T)"])
    found.plot(tmp_path / "curves.svg")
    assert "FALSE" in (tmp_path / "page.html").read_text(encoding="utf-8")
    for path in ("page.txt", "curves.gif"):
        with pytest.raises(AttnprofError):
            found.plot(tmp_path / path)
    assert isinstance(found.of("bytes"), attnprof.Scaling)


def test_counting_changes_nothing() -> None:
    """The model that a builder hands out again and again is as it was."""
    model = Square(8)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    again = attnprof.scaling(lambda T: (model, (torch.ones(1, T, 8),)), {"T": range(4, 65)})  # noqa: N803
    attnprof.extrapolate(again, {"T": 1000}, build=lambda T: (model, (torch.ones(1, T, 8),)), device="h100-sxm")  # noqa: N803
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
