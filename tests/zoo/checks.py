"""What the tests of the zoo share: counts, references in float64, causality, sentences."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

import attnprof
from attnprof import zoo
from attnprof.core.errors import AttnprofError

#: Rounding in float64. An element here is a chain of a few sums of at most some hundred terms of size about 1;
#: each term is off by at most 2**-53 (1e-16), so a sum of hundreds by 1e-13, and a chain of them by less than
#: this. A wrong formula is off by 1e-2 and more.
ROUNDING = 1e-10


class Flops(NamedTuple):
    """Matmul FLOPs of one call and its backward, by phase."""

    forward: int
    backward: int = 0
    recompute: int = 0


def counted(
    net: nn.Module, *args: Any, backward: bool = True, input_grad: bool = True, fake: bool = False, **kwargs: Any
) -> Flops:
    """What attnprof measures. With ``input_grad`` every floating input needs a gradient, as inside a model.

    Every op must have a price.
    """
    if input_grad:
        args = differentiable(args)
    report = attnprof.run(net, args, kwargs, backward=backward, fake=fake, strict=True)
    assert set(report.phases) <= {"forward", "backward", "recompute", "optimizer", "other"}
    return Flops(*(report.phases[phase].matmul_flops if phase in report.phases else 0 for phase in Flops._fields))


def saved_bytes(net: nn.Module, *args: Any, input_grad: bool = True) -> int:
    """What autograd keeps for backward once the forward has returned, parameters excluded, as attnprof measures."""
    memory = attnprof.run(net, differentiable(args) if input_grad else args, backward=True).memory
    assert memory is not None
    return memory.saved_bytes


def vector_flops(net: nn.Module, *args: Any) -> int:
    """The vector FLOPs of a forward."""
    return attnprof.run(net, args, strict=True).phases["forward"].vector_flops


def differentiable(tree: Any) -> Any:
    """Copies of all floating tensors of a structure, as leaves that need a gradient."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().clone().requires_grad_()
        return value

    return _pytree.tree_map(leaf, tree)


def parameters(net: nn.Module, trainable: bool = False) -> int:
    """How many numbers a module's parameters hold."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not trainable)


def shapes(seed: int, count: int = 20) -> Iterator[random.Random]:
    """``count`` generators to draw small sizes from, the same on every run."""
    for i in range(count):
        yield random.Random(1000 * seed + i)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def double(net: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with all parameters drawn anew, so that none is at a special value such as 0 or 1."""
    net = net.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, dtype=p.dtype, generator=generator) * p.shape[-1] ** -0.5)
    return net


def assert_same(actual: Any, expected: Any) -> None:
    """Equal but for rounding in float64 (see ``ROUNDING``)."""
    torch.testing.assert_close(actual, expected, rtol=ROUNDING, atol=ROUNDING)


def assert_same_gradients(net: Callable[..., Tensor], reference: Callable[..., Tensor], *args: Any) -> None:
    """The gradients with respect to all floating inputs, for one random direction, are those of the reference."""
    found = []
    for call in (net, reference):
        inputs = differentiable(args)
        out = call(*inputs)
        leaves = [t for t in _pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.requires_grad]
        found.append(torch.autograd.grad(out, leaves, normal(*out.shape, seed=7)))
    assert_same(*found)


def assert_causal(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Changing a token (dimension 1) changes no earlier output by a bit, and does change its own."""
    with torch.no_grad():
        before = call(x)
        for t in range(x.shape[1]):
            changed = x.clone()
            changed[:, t] += 1
            after = call(changed)
            assert torch.equal(after[:, :t], before[:, :t]), f"token {t} changed an earlier output"
            assert not torch.equal(after[:, t], before[:, t]), f"token {t} does not see itself"


def assert_sees_everything(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Changing the last token changes the first output: not causal."""
    changed = x.clone()
    changed[:, -1] += 1
    with torch.no_grad():
        assert not torch.equal(call(changed)[:, 0], call(x)[:, 0])


def exponential(query: Tensor, key: Tensor) -> Tensor:
    """exp(q·k / √dh), the weight of softmax attention."""
    return torch.exp(query.dot(key) / len(query) ** 0.5)


def attention_by_position(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sees: Callable[[int, int], bool] = lambda i, j: True,
    weigh: Callable[[Tensor, Tensor], Tensor] = exponential,
) -> Tensor:
    """Weighted means of v, one query after the other over the keys it sees: q [T, dh], k [S, dh], v [S, dv]."""
    rows = []
    for i, query in enumerate(q):
        seen = [j for j in range(len(k)) if sees(i, j)]
        weights = [weigh(query, k[j]) for j in seen]
        rows.append(sum(w * v[j] for w, j in zip(weights, seen, strict=True)) / sum(weights))
    return torch.stack(rows)


def by_sample_and_head(
    q: Tensor, k: Tensor, v: Tensor, H: int, Hkv: int, head: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """``head`` on every sample and query head of [B, T, H dh] and [B, S, Hkv dh], results side by side.

    Head h has columns [h dh, (h + 1) dh); query head h uses key head h // (H / Hkv).
    """
    samples = []
    for b in range(len(q)):
        qs, ks, vs = q[b].chunk(H, -1), k[b].chunk(Hkv, -1), v[b].chunk(Hkv, -1)
        samples.append(torch.cat([head(qs[h], ks[h * Hkv // H], vs[h * Hkv // H]) for h in range(H)], -1))
    return torch.stack(samples)


def pairs_of(seen: Callable[[int, int], bool], T: int, S: int | None = None) -> int:
    """Brute force: how many (query i, key j) a pattern keeps."""
    return sum(bool(seen(i, j)) for i in range(T) for j in range(T if S is None else S))


def assert_one_sentence(call: Callable[[], Any], *words: str) -> None:
    """``call()`` raises an AttnprofError of one sentence that has all the words."""
    with pytest.raises(AttnprofError) as raised:
        call()
    message = str(raised.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert ". " not in message
    for word in words:
        assert word in message


def assert_works(
    name: str, shape: dict[str, int] | None = None, *, fake: bool = True, choosing: bool = False, **symbols: Any
) -> None:
    """A mechanism of the zoo does its job in every setting a module is used in.

    It runs with its defaults; in training and in evaluation alike (none of the zoo is random in one of them);
    in float32, float64 and bfloat16, whose results agree within the precision of the narrower; each sample of
    a batch apart from the others; every trainable parameter and floating input gets a finite gradient, under
    autocast too; and on fake tensors (``fake``: no value decides a shape) it counts what it counts on real ones.

    A module that chooses by value (``choosing``: routing, top-k) may choose otherwise in another precision: its
    values are not compared across dtypes then.
    """
    torch.manual_seed(0)
    shape = shape or {}
    zoo.build(name)(*zoo.inputs(name, **shape))
    net, args = zoo.build(name, **symbols), zoo.inputs(name, **{**symbols, **shape, "B": 2})
    out = _floats(net.train()(*args))
    assert all(map(torch.equal, out, _floats(net.eval()(*args))))

    # A chain of some ten roundings per element, and one more per factor 2 of the sums' length.
    for dtype, off in ((torch.float64, 2**-17), (torch.bfloat16, 2**-4)):
        cast = _pytree.tree_map(lambda v, dtype=dtype: v.to(dtype) if _is_float(v) else v, args)
        other = _floats(deepcopy(net).to(dtype)(*cast))
        assert {t.dtype for t in other} == {dtype}
        for a, b in zip(other, out, strict=True):
            assert choosing or (a.float() - b).norm() <= off * b.norm()

    for sample in range(2):
        one = _pytree.tree_map(lambda v, s=sample: v[s : s + 1] if isinstance(v, Tensor) and v.dim() else v, args)
        for alone, among in zip(_floats(net(*one)), out, strict=True):
            # float32: sums of another batch size may be added in another order.
            torch.testing.assert_close(alone[0], among[sample], rtol=1e-4, atol=1e-5)

    for narrow in (False, True):
        net.zero_grad()
        leaves = differentiable(args)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = _floats(net(*leaves))
        torch.autograd.backward([t.float().square().mean() for t in out])
        inputs = [t for t in _pytree.tree_leaves(leaves) if _is_float(t)]
        for tensor in [*inputs, *(p for p in net.parameters() if p.requires_grad)]:
            assert tensor.grad is not None
            assert bool(tensor.grad.isfinite().all())
            assert bool(tensor.grad.count_nonzero())
    if fake:
        with attnprof.fake_tensors():
            unreal = zoo.build(name, **symbols), zoo.inputs(name, **{**symbols, **shape, "B": 2})
        assert counted(unreal[0], *unreal[1], input_grad=False, fake=True) == counted(net, *args, input_grad=False)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _floats(output: Any) -> Sequence[Tensor]:
    return [t for t in _pytree.tree_leaves(output) if _is_float(t)]
