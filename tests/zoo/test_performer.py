"""The Performer is the average over pairs that its features imply, and those imply softmax attention."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor

from attnprof import zoo
from attnprof.zoo.performer import orthogonal_features, positive_features
from zoo.checks import (
    Flops,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    attention_by_position,
    by_sample_and_head,
    counted,
    double,
    normal,
    parameters,
    saved_bytes,
    shapes,
)


def drawn(at: Random, **symbols: Any) -> tuple[Any, int, int]:
    """A module, a length and a number of samples."""
    torch.manual_seed(at.randint(0, 1000))
    net = zoo.build("performer", d=at.randint(1, 9), H=at.randint(1, 3), dh=at.randint(1, 4), r=at.randint(1, 9))
    net.eps = symbols.get("eps", net.eps)
    return net, at.randint(1, 8), at.randint(1, 2)


def features(x: Tensor, directions: Tensor) -> Tensor:
    """exp(ω·x - |x|² / 2) for each direction, as the paper has it: nothing subtracted, nothing added."""
    return torch.stack([torch.exp(direction.dot(x) - x.dot(x) / 2) for direction in directions])


def test_output_and_gradients() -> None:
    """What is subtracted for stability cancels: without eps it is as if it were not there."""
    for at in shapes(1, 8):
        net, T, B = drawn(at, eps=0.0)
        double(net)

        def reference(x: Tensor, net: Any = net) -> Tensor:
            def weigh(query: Tensor, key: Tensor) -> Tensor:
                query, key = query / net.dh**0.25, key / net.dh**0.25
                return features(query, net.directions).dot(features(key, net.directions))

            q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))
            heads = by_sample_and_head(
                q, k, v, net.H, net.H, lambda q, k, v: attention_by_position(q, k, v, weigh=weigh)
            )
            return heads @ net.out_proj.weight.T

        x = normal(B, T, net.d)
        assert_same(net(x), reference(x))
        assert_same_gradients(net, reference, x)


def test_features_with_eps() -> None:
    """Each largest feature is 1 + eps: of every query, or of all keys of a sample and head."""
    x, directions, eps = normal(2, 3, 5, 4), normal(6, 4, seed=1), 0.25
    by_vector = torch.stack([features(v, directions) for v in x.flatten(0, 2)]).reshape(2, 3, 5, 6)
    expected = by_vector / torch.stack([v.max() for v in by_vector.flatten(0, 2)]).reshape(2, 3, 5, 1) + eps
    assert_same(positive_features(x, directions, (-1,), eps), expected)
    expected = by_vector / torch.stack([v.max() for v in by_vector.flatten(0, 1)]).reshape(2, 3, 1, 1) + eps
    assert_same(positive_features(x, directions, (-2, -1), eps), expected)


def test_features_that_would_overflow() -> None:
    """Vectors of length 1e3: exp of them is out of range, and so is exp of minus their squares."""
    net: Any = double(zoo.build("performer", d=4, H=1))
    x = 1e3 * normal(2, 5, 4)
    assert bool(net(x).isfinite().all())


def test_features_stand_for_the_softmax() -> None:
    """The mean over directions of φ(q) φ(k) is exp(q·k), to five standard errors of that mean.

    Orthogonal directions have a smaller error than independent ones, which is what is taken here.
    """
    torch.manual_seed(0)
    count = 40_000
    directions = orthogonal_features(count, 4).double()
    for seed in range(6):
        q, k = 0.5 * normal(4, seed=seed), 0.5 * normal(4, seed=100 + seed)
        products = torch.exp(directions @ q - q.dot(q) / 2) * torch.exp(directions @ k - k.dot(k) / 2)
        assert abs(products.mean() - torch.exp(q.dot(k))) < 5 * products.std() / count**0.5


def test_directions() -> None:
    """Orthogonal within each block of dh, the last one cut; squares of lengths average to dh, as a normal vector's."""
    torch.manual_seed(0)
    for at in shapes(2, 8):
        r, dh = at.randint(1, 20), at.randint(1, 6)
        directions = orthogonal_features(r, dh).double()
        assert directions.shape == (r, dh)
        for block in directions.split(dh):
            gram = block @ block.T
            off_diagonal = gram - torch.diag(gram.diagonal())
            assert float(off_diagonal.abs().max()) < 1e-5 * float(gram.diagonal().max())  # drawn in float32
    squares = orthogonal_features(4000, 5).square().sum(1)
    assert abs(float(squares.mean()) - 5) < 5 * (2 * 5 / 4000) ** 0.5  # the variance of a chi-square of 5 is 2 * 5


def test_redraw_changes_the_directions_and_nothing_else() -> None:
    net: Any = zoo.build("performer")
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net.redraw()
    after = net.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["directions"]


def test_not_causal() -> None:
    assert_sees_everything(double(zoo.build("performer", d=8)), normal(2, 6, 8))


def test_flops_and_parameters() -> None:
    """Features of queries and keys [T, dh] x [dh, r], state [r, T] x [T, dh], read [T, r] x [r, dh], normaliser
    [T, r] x [r, 1], per head. The directions are fixed: the features have one product in the backward, not two."""
    for at in shapes(3):
        net, T, B = drawn(at)
        d, H, dh, r = net.d, net.H, net.dh, net.r
        projections, product, normaliser = 4 * 2 * B * T * d * H * dh, 2 * B * H * T * dh * r, 2 * B * H * T * r
        forward = projections + 4 * product + normaliser
        backward = 2 * projections + (2 * 1 + 2 * 2) * product + 2 * normaliser
        assert counted(net, torch.randn(B, T, d)) == Flops(forward, backward)
        assert parameters(net) == 4 * d * H * dh
        assert sum(b.numel() for b in net.buffers()) == r * dh


def test_flops_with_heads_of_the_usual_width() -> None:
    """8 P + 8 T r d + 2 T r H and 16 P + 12 T r d + 4 T r H, with P = T d²."""
    for at in shapes(4):
        H, T, r, B = at.randint(1, 4), at.randint(1, 9), at.randint(1, 9), at.randint(1, 2)
        d = H * at.randint(1, 4)
        P, F, Z = B * T * d * d, B * T * r * d, B * T * r * H
        found = counted(zoo.build("performer", d=d, H=H, r=r), torch.randn(B, T, d))
        assert found == Flops(8 * P + 8 * F + 2 * Z, 16 * P + 12 * F + 4 * Z)


def test_where_it_pays() -> None:
    """Against 4 T² d of softmax attention where 8 r + 2 r H / d < 4 T: for d = 16, H = 4, r = 8 above T = 17."""
    for T in (16, 17, 18):
        x = torch.randn(1, T, 16)
        performer = counted(zoo.build("performer", d=16, H=4, r=8), x, backward=False).forward
        softmax = counted(zoo.build("mha", d=16, H=4), x, backward=False).forward
        assert (performer > softmax) == (T < 17)
        assert (performer == softmax) == (T == 17)


def test_saved_activations() -> None:
    for at in shapes(5, 8):
        net, T, B = drawn(at)
        d, H, n, r = net.d, net.H, net.H * net.dh, net.r
        kept = T * d + T * n  # x, and the heads merged
        kept += 2 * T * n + T * n  # q and k, squared in the exponents; v
        kept += 2 * 2 * H * T * r  # the exponentials, and with eps the features
        kept += r * n + r * H + T * n + H * T  # state, Σ φ(k); the weighted sum and its weight
        assert saved_bytes(net, torch.randn(B, T, d)) == 4 * B * kept


def test_works() -> None:
    assert_works("performer", {"T": 7}, d=12, r=8)


def test_bad_sizes() -> None:
    assert_one_sentence(lambda: zoo.build("performer", d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build("performer", r=0), "r must be a whole number above zero", "not 0")
