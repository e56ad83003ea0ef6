"""Beside what is recovered of a model of known modules stands what theory says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sympy
import torch
from torch import Tensor, nn

import attnprof
from attnprof.analytic.binding import Given, Recorded
from attnprof.api.scaling_theory import of_modules
from attnprof.cli import main
from scaling.names import T, d


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def attention(T: int, d: int) -> tuple[nn.Module, tuple[Tensor, ...]]:  # noqa: N803 - the symbols of formulas
    return nn.MultiheadAttention(d, 4, batch_first=True), (torch.randn(2, T, d),) * 3


def network(T: int, d: int) -> tuple[nn.Module, tuple[Tensor]]:  # noqa: N803
    return nn.Sequential(nn.Linear(d, 3 * d), nn.ReLU(), nn.Linear(3 * d, d)), (torch.randn(T, d, requires_grad=True),)


class Scores(nn.Module):
    """A product that no formula knows, after a layer that has one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ x.mT


def scores(T: int, d: int) -> tuple[nn.Module, tuple[Tensor]]:  # noqa: N803
    return Scores(d), (torch.randn(T, d),)


SIZES = {"T": range(8, 65), "d": range(16, 49, 4)}


@pytest.mark.parametrize(
    ("build", "phase", "wanted"),
    [
        # B = 2: four projections of 2·B·T·d·d, and two products of 2·B·T·T·d
        (attention, "forward", 16 * T * d**2 + 8 * T**2 * d),
        # two layers of 2·T·d·3d: forward, and twice as much back
        (network, "all", 36 * T * d**2),
    ],
)
def test_theory_of_known_modules_is_the_formula(build: object, phase: str, wanted: sympy.Expr) -> None:
    found = attnprof.scaling(build, SIZES, phase=phase, modules=False)  # type: ignore[arg-type]
    assert sympy.expand(found.expression - wanted) == 0
    known = of_modules(found, build)  # type: ignore[arg-type]
    assert known is not None
    assert (known.equal, known.symbolic, known.difference) == (True, True, "")


def test_there_is_none_where_theory_does_not_have_all_of_a_model() -> None:
    assert of_modules(attnprof.scaling(scores, SIZES, modules=False), scores) is None


def test_there_is_none_of_what_theory_does_not_count() -> None:
    assert of_modules(attnprof.scaling(network, SIZES, of="bytes", modules=False), network) is None


def test_a_theory_that_is_wrong_is_shown_with_the_first_point_that_says_so() -> None:
    class Wrong(Scores):
        pass

    @attnprof.predicts(Wrong)
    def _(module: Recorded, call: Given) -> attnprof.Prediction:
        return attnprof.predict("ffn", B=1, T=3, d=5, f=7)

    def build(T: int) -> tuple[nn.Module, tuple[Tensor]]:  # noqa: N803
        return Wrong(16), (torch.randn(T, 16),)

    found = attnprof.scaling(build, {"T": range(8, 65)}, modules=False)
    known = of_modules(found, build)
    assert known is not None
    point = next(point for point in found.points if point.role == "fit")
    ffn = 4 * 3 * 5 * 7  # two layers, 2·T·d·f each
    assert (known.equal, known.formula) == (False, f"{ffn:,} at T={point.sizes['T']}")
    assert known.difference == f"{point.count - ffn:,}"


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef build(T, d=8):\n    return torch.nn.Linear(d, 2 * d), (torch.randn(T, d),)\n"
    )
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["scale", f"{tmp_path}/net.py:build", "--vary", "T=8..64"])
    assert "theory     the same formula as theory of the modules of Linear has." in capsys.readouterr().out
