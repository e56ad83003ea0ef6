"""Vector FLOPs and traffic against derivations by hand, and what is said where there is no closed form."""

from __future__ import annotations

import pytest
from sympy import Symbol

from attnprof.analytic import predict
from attnprof.core.errors import AttnprofError

B, T, d, f = (Symbol(name, integer=True, positive=True) for name in ("B", "T", "d", "f"))


def moved(name: str, **sizes: int) -> int:
    """Elements that a forward reads and writes, of 4 bytes each."""
    theory = predict(name, **sizes)
    bytes_moved = theory.evaluate("read_bytes", "forward") + theory.evaluate("write_bytes", "forward")
    assert bytes_moved % 4 == 0
    return bytes_moved // 4


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_traffic_of_attention_written_out(samples: int) -> None:
    """Four projections 2 B T d + d² each; q, k, v and the average 4 B T d around the products; scores and
    probabilities written and read by three ops, 6 B H T²; the heads copied side by side 2 B T d. Of several samples
    q, k and v are copied, too: 6 B T d.
    """
    T, d, H = 5, 12, 3
    expected = 14 * samples * T * d + 4 * d**2 + 6 * samples * H * T**2
    if samples > 1:
        expected += 6 * samples * T * d
    assert moved("mha", B=samples, T=T, d=d, H=H) == expected


@pytest.mark.parametrize("samples", [1, 2])
def test_traffic_of_fused_attention(samples: int) -> None:
    """Projections 8 B T d + 4 d²; q, k and v read, the average written, a logsumexp per query and head."""
    T, d, H = 5, 12, 3
    assert moved("mha-sdpa", B=samples, T=T, d=d, H=H) == 12 * samples * T * d + 4 * d**2 + samples * H * T


def test_vector_work_of_a_network() -> None:
    """Biases and relu forward; backward relu again, and each bias's gradient a sum over rows."""
    theory, rows = predict("ffn"), B * T
    assert (theory.total("vector_flops", "forward") - (rows * f + rows * f + rows * d)).expand() == 0
    backward = rows * f + (rows - 1) * f + (rows - 1) * d
    assert (theory.total("vector_flops", "backward") - backward).expand() == 0


def test_gradients_that_meet_are_added_up() -> None:
    """x goes to q, k and v: two sums of its size. Without a gradient of x there are none."""
    with_x, without = predict("mha"), predict("mha", input_grad=False)
    difference = with_x.total("vector_flops", "backward") - without.total("vector_flops", "backward")
    assert difference.expand() == 2 * B * T * d


def test_a_checkpoint_runs_all_of_it_again() -> None:
    """The whole block, in the same kernels: recomputation is the forward once more."""
    theory = predict("transformer", checkpoint="reentrant")
    for quantity in ("vector_flops", "read_bytes", "write_bytes"):
        again = theory.total(quantity, "recompute") - theory.total(quantity, "forward")  # type: ignore[arg-type]
        assert again.expand() == 0


def test_what_has_no_closed_form_is_said() -> None:
    assert "No closed form of traffic." in str(predict("flash"))
    scan = str(predict("diagonal-rnn-brent-kung"))
    assert "No closed form of traffic in the backward." in scan
    assert "The traffic holds for T>2." in scan
    with pytest.raises(AttnprofError, match=r"^flash has no closed form of read_bytes in the forward\.$"):
        predict("flash").total("read_bytes", "forward")


def test_outside_of_its_sizes_there_is_none() -> None:
    """A single position is copied less than several: no number is better than a wrong one."""
    alone = predict("mha", B=1, T=1, d=8, H=2)
    assert alone.work("traffic", "forward") is None
    assert "No closed form of traffic at these sizes: it holds for" in str(alone)
    assert "bytes read" not in str(alone)
    assert alone.work("vector", "forward") is not None
    with pytest.raises(AttnprofError, match="no closed form of read_bytes"):
        alone.evaluate("read_bytes", "forward")
