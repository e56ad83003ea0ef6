"""Fused scaled-dot-product attention, forward and backward, of every backend.

A call is a list of :class:`Problem`: heads x T queries against S keys of width dk, values of width dv. One for
a dense batch; one per sequence for packed (varlen) and nested operands, with their real lengths. Grouped-query
attention has fewer key heads than query heads; the work is that of the query heads.

Masks do not reduce the count: ``useful`` does, where the pattern is known (causal, a window).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, traffic
from attnprof.costs.traffic import distinct_bytes

_FORWARD = (
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_fused_attention_overrideable",
    "aten._scaled_dot_product_attention_math_for_mps",
    "aten._flash_attention_forward",
    "aten._flash_attention_forward_no_dropout_inplace",
    "aten._efficient_attention_forward",
    "aten._cudnn_attention_forward",
    "aten._triton_scaled_dot_attention",
    "torch_attn._varlen_attn",  # torch.nn.attention.varlen
    "torch_attn._varlen_attn_out",
)
_BACKWARD = (
    "aten._scaled_dot_product_flash_attention_backward",
    "aten._scaled_dot_product_flash_attention_for_cpu_backward",
    "aten._scaled_dot_product_efficient_attention_backward",
    "aten._scaled_dot_product_cudnn_attention_backward",
    "aten._scaled_dot_product_fused_attention_overrideable_backward",
    "aten._flash_attention_backward",
    "aten._efficient_attention_backward",
    "aten._cudnn_attention_backward",
    "torch_attn._varlen_attn_backward",
)
#: Operands laid out [batch, sequence, head, width] (packed: [tokens, head, width]); the others put heads first.
_SEQUENCE_FIRST = ("aten._flash_attention", "aten._efficient_attention", "torch_attn._varlen_attn")
#: Ops whose causal mask ends at the last query and key (bottom right) when T != S; the others start at the first.
_BOTTOM_RIGHT = ("aten._flash_attention", "aten._scaled_dot_product_flash_attention", "torch_attn._varlen_attn")

free(("aten._fused_sdp_choice",), "picks a backend; computes nothing")


@dataclass(frozen=True)
class Problem:
    """Attention of one batch or sequence: ``heads`` (times the batch) of ``queries`` x ``keys``."""

    heads: int
    queries: int
    keys: int

    @property
    def pairs(self) -> int:
        return self.heads * self.queries * self.keys

    @property
    def rows(self) -> int:
        return self.heads * self.queries if self.keys else 0


@dataclass(frozen=True)
class Band:
    """Which keys a query sees: ``left`` before and ``right`` after its own position; None is unlimited."""

    left: int | None
    right: int | None
    bottom_right: bool

    def pairs(self, problem: Problem) -> int:
        """Query-key pairs inside the band. Query i sits at key i, or, bottom right, at key i + S - T."""
        t, s = problem.queries, problem.keys
        shift = s - t if self.bottom_right else 0
        seen = t * s if self.right is None else keys_up_to(t, s, shift + self.right)
        before = 0 if self.left is None else keys_up_to(t, s, shift - self.left - 1)
        return problem.heads * (seen - before)


def keys_up_to(queries: int, keys: int, offset: int) -> int:
    """Sum over queries i of how many of ``keys`` keys j satisfy j <= i + offset: a clipped triangle."""

    def triangle(x: int) -> int:
        """Sum of min(v, keys) for 0 <= v < x."""
        full = max(0, min(x - 1, keys))
        return full * (full + 1) // 2 + keys * max(0, x - 1 - keys)

    return triangle(queries + offset + 1) - triangle(offset + 1)


def _lengths(ends: TensorMeta | None) -> list[int] | None:
    """Sequence lengths from cumulative ends [0, n1, n1 + n2, ...], when their values were recorded."""
    if ends is None or ends.values is None:
        return None
    return [end - start for start, end in pairwise(ends.values)]


def _used(op: OpSignature) -> tuple[int, ...] | None:
    """How many keys of each slot of a cache are in use, where that was given and its values recorded."""
    used = op.maybe("seqused_k") or op.maybe("seqlen_k")
    return None if used is None else used.values


def problems(op: OpSignature) -> list[Problem]:
    """The attention problems of one call."""
    q, k = op.tensor("q" if "q" in op else "query"), op.tensor("k" if "k" in op else "key")
    if q.layout == "nested":
        queries, keys = q.pieces(3), k.pieces(3)  # [heads, length, width] each
        if queries is None or keys is None:
            raise ValueError(f"the pieces of {q} and {k} are not [heads, length, width]")
        return [Problem(a[0], a[1], b[1]) for a, b in zip(queries, keys, strict=True)]
    sequence_first = op.packet.startswith(_SEQUENCE_FIRST)
    packed_q = op.maybe("cum_seq_q") or op.maybe("cu_seqlens_q") or op.maybe("cu_seq_q")
    packed_k = next(filter(None, map(op.maybe, ("cum_seq_k", "cum_seq_kv", "cu_seqlens_k", "cu_seq_k"))), None)
    if packed_q is not None and (sequence_first or len(q.shape) == 3):
        return _packed(op, q, k, packed_q, packed_k)
    *batch, axis_1, axis_2, _ = q.shape
    heads, t = (axis_2, axis_1) if sequence_first else (axis_1, axis_2)
    s = k.shape[-3] if sequence_first else k.shape[-2]
    used = _used(op)
    if used is not None:
        return [Problem(heads, t, length) for length in used]
    return [Problem(prod(batch) * heads, t, s)]


def _packed(
    op: OpSignature, q: TensorMeta, k: TensorMeta, ends_q: TensorMeta, ends_k: TensorMeta | None
) -> list[Problem]:
    """Sequences laid end to end. Without the ends' values (fake tensors): as if all had the mean length (paged keys:
    the longest)."""
    heads, tokens_q, tokens_k = q.shape[-2], q.shape[-3], k.shape[-3]
    queries, keys = _lengths(ends_q), _lengths(ends_k or ends_q)
    used = _used(op)
    if used is not None:
        keys = list(used)
    if queries is None or keys is None:
        count = max(ends_q.numel - 1, 1)
        paged = op.maybe("block_table") is not None  # the keys are a pool of pages
        return [Problem(heads * count, tokens_q // count, int(op.number("max_k")) if paged else tokens_k // count)]
    return [Problem(heads, t, s) for t, s in zip(queries, keys, strict=True)]


def band(op: OpSignature) -> Band | None:
    """The pattern the arguments state, None when all pairs are seen or the mask is data."""
    left = right = None
    bottom_right = op.packet.startswith(_BOTTOM_RIGHT) and not op.packet.endswith(("_for_cpu", "_for_cpu_backward"))
    kind = op.number("custom_mask_type")  # 1: causal from the top left, 2: from the bottom right
    if op.number("is_causal") or kind:
        right = 0
        bottom_right = kind == 2 if kind else bottom_right
    window = int(op.number("window_size"))
    if window > 0 and kind:
        left = window - 1
    sides = op.ints("window_size")  # of torch.nn.attention.varlen; a number is one width
    before, after = (
        sides if len(sides) == 2 else (op.number("window_size_left", -1), op.number("window_size_right", -1))
    )
    if before >= 0:
        left = int(before)
    if after >= 0 and right is None:
        right = int(after)
    return None if left is None and right is None else Band(left, right, bottom_right)


def _widths(op: OpSignature) -> tuple[int, int]:
    """The head widths of queries and keys, and of values."""
    q, v = op.tensor("q" if "q" in op else "query"), op.tensor("v" if "v" in op else "value")
    if q.layout == "nested":
        queries, values = q.pieces(3), v.pieces(3)
        return (queries[0][2], values[0][2]) if queries and values else (0, 0)
    return q.shape[-1], v.shape[-1]


def _mask(op: OpSignature) -> TensorMeta | None:
    return op.maybe("attn_mask") or op.maybe("attn_bias") or op.maybe("bias")


def _passes(op: OpSignature) -> tuple[int, int, int]:
    """Operations per score beside the softmax: the scale (none when it is given as 1), adding a mask that is a
    number, dropout's rescaling."""
    mask = _mask(op)
    scale = int(op.value("scale") != 1)
    return scale, int(mask is not None and mask.is_floating), int(op.number("dropout_p") > 0)


def _sum_useful(op: OpSignature, found: Iterable[Problem]) -> int | None:
    pattern = band(op)
    return None if pattern is None else sum(map(pattern.pairs, found))


@cost(*_FORWARD)
def attention(op: OpSignature) -> Work:
    """Q K^T takes 2 T S dk FLOPs per head and P V takes 2 T S dv.

    Vector, per query row of S scores: scale S unless it is 1, softmax 5S - 2 (maximum, subtract, exp, sum, divide), the
    logsumexp 2 (log, add) where one is returned; S for an additive mask; S for dropout's 1 / (1 - p). The
    probabilities are divided, as the definition says, though some kernels divide the dv outputs instead;
    drawing the dropout mask and applying it are selection, 0.
    """
    found = problems(op)
    dk, dv = _widths(op)
    pairs, rows = sum(p.pairs for p in found), sum(p.rows for p in found)
    scale, additive, dropout = _passes(op)
    useful = _sum_useful(op, found)
    return Work(
        matmul=2 * pairs * (dk + dv),
        vector=pairs * (5 + scale + additive + dropout) - 2 * rows + (2 * rows if _returns_logsumexp(op) else 0),
        useful=None if useful is None else 2 * useful * (dk + dv),
    )


def _returns_logsumexp(op: OpSignature) -> bool:
    if op.packet in ("aten._scaled_dot_product_attention_math_for_mps", "aten._triton_scaled_dot_attention"):
        return False
    return bool(op.number("compute_log_sumexp", 1))


@cost(*_BACKWARD)
def attention_backward(op: OpSignature) -> Work:
    """Four products are backward work: dV = P^T dO and dP = dO V^T (2 T S dv each), dQ = dS K and dK = dS^T Q
    (2 T S dk each). The fifth rebuilds Q K^T (2 T S dk), which the forward did not keep: recompute.

    Vector, per query row: P again from the logsumexp, scale, subtract, exp: 3S, +S for an additive mask, +S
    for dropout, all recompute. Then dO . O: 2 dv - 1; dS = P (dP - dO . O) times scale: 3S, +S for dropout.
    The gradient of a broadcast mask sums dS over what was broadcast: one addition per score but the first.
    A gradient that was not asked for (None in the outputs) is not computed.
    """
    found = problems(op)
    dk, dv = _widths(op)
    pairs, rows = sum(p.pairs for p in found), sum(p.rows for p in found)
    scale, additive, dropout = _passes(op)
    to_q, to_k, to_v, to_mask = ([isinstance(o, TensorMeta) and o.numel > 0 for o in op.outputs] + [False] * 4)[:4]
    if op.packet.startswith("aten._efficient"):
        to_mask = bool(op.number("bias_requires_grad"))
    through_scores = to_q or to_k or to_mask
    per_pair = 2 * dv * (to_v + through_scores) + 2 * dk * (to_q + to_k)
    vector = through_scores * (pairs * (2 + scale + dropout) + rows * (2 * dv - 1))
    if to_mask and len(op.outs) == 4:
        vector += max(0, pairs - op.outs[3].numel)
    useful = _sum_useful(op, found)
    return Work(
        matmul=pairs * per_pair,
        vector=vector,
        useful=None if useful is None else useful * per_pair,
        recompute_matmul=2 * pairs * dk,
        recompute_vector=pairs * (2 + scale + additive + dropout),
    )


@traffic(*_FORWARD)
def attention_traffic(op: OpSignature) -> tuple[int, int]:
    """What a tiled kernel must move: Q, K, V (key heads unrepeated), the mask and the ends; O and the logsumexp.

    Of a cache with sequences shorter than their slots, the rows in use. The random state of dropout and debugging
    outputs are not counted.
    """
    out = [op.tensor("out")] if "out" in op.mutated else []
    reads = [t for name, _ in op.args if name not in ("out", "dropout_mask") for t in _in_use(op, name)]
    return distinct_bytes(reads), distinct_bytes([*out, *_tensors(op.outputs[: 1 if out else 2])])


@traffic(*_BACKWARD)
def attention_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """Reads Q, K, V, the mask, O, dO and the logsumexp; writes dQ, dK, dV and the mask's gradient if asked."""
    skipped = ("philox_seed", "philox_offset", "rng_state", "unused")
    reads = [t for name, _ in op.args if name not in skipped for t in op.tensors(name)]
    return distinct_bytes(reads), distinct_bytes(_tensors(op.outputs[:4]))


def _in_use(op: OpSignature, name: str) -> list[TensorMeta]:
    used = _used(op)
    if used is None or name not in ("k", "key", "v", "value"):
        return list(op.tensors(name))
    *_, heads, width = op.tensor(name).shape
    return [replace(op.tensor(name), shape=(sum(used), heads, width), stride=(heads * width, width, 1))]


def _tensors(values: Iterable[object]) -> list[TensorMeta]:
    return [value for value in values if isinstance(value, TensorMeta)]
