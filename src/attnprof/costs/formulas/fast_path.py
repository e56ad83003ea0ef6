"""The native fast paths of ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``: a whole layer in one op.

Their products are those of the slow path, so a model costs the same whichever path runs. With nested input
(padding removed) the projections and the feed-forward run over the real rows; the scores run padded to the
longest sequence, except where the CUDA kernel hands the pieces to fused attention. ``useful`` counts the real
pairs either way. A mask is data: it leaves all pairs in the count.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes


@dataclass(frozen=True)
class _Sequences:
    """What a batch of T x D sequences, dense or nested, amounts to."""

    lengths: tuple[int, ...]
    width: int
    nested: bool

    @property
    def rows(self) -> int:
        return sum(self.lengths)

    @property
    def pairs(self) -> int:
        """Query-key pairs of the real sequences."""
        return sum(t * t for t in self.lengths)

    @property
    def padded_rows(self) -> int:
        return len(self.lengths) * max(self.lengths, default=0)

    @property
    def padded_pairs(self) -> int:
        return len(self.lengths) * max(self.lengths, default=0) ** 2


def _sequences(x: TensorMeta, width: int) -> _Sequences:
    if x.layout == "nested":
        pieces = x.pieces(2)
        if pieces is None:
            raise ValueError(f"the pieces of {x} are not [length, width]")
        return _Sequences(tuple(t for t, _ in pieces), width, True)
    batch, t = (1, x.shape[0]) if len(x.shape) == 2 else x.shape[:2]
    return _Sequences((t,) * batch, width, False)


def _attends_by_piece(op: OpSignature, heads: int, width: int) -> bool:
    """On CUDA, self-attention that returns no weights and has heads of a multiple of 8 uses fused attention."""
    return op.out.device.startswith("cuda") and width // heads % 8 == 0 and not op.number("need_weights")


def _attention(op: OpSignature, x: _Sequences, heads: int) -> Work:
    """Projections 2 R D 3D, scores and weighted sum 4 D per pair (over all heads), output projection 2 R D^2.

    Vector: the biases of q, k and v, 3D, and the scale of q, D, per row they are split into heads with (padded
    ones too, where the scores are padded); the softmax, 5T - 2 per row of T real keys; the output's bias R D.
    Masked scores are selected, not added to. Averaged weights: heads - 1 additions and a division per pair.
    """
    d, rows = x.width, x.rows
    padded = x.nested and not _attends_by_piece(op, heads, d)
    pairs, split = (x.padded_pairs, x.padded_rows) if padded else (x.pairs, rows)
    projections = 2 * rows * d * 3 * d + 2 * rows * d * d
    vector = split * (3 * d + d) + heads * (5 * x.pairs - 2 * rows) + rows * d
    if op.number("need_weights") and op.number("average_attn_weights"):
        vector += heads * pairs
    useful = projections + 4 * d * x.pairs if x.nested else None
    return Work(projections + 4 * d * pairs, vector, useful)


@cost("aten._native_multi_head_attention", "aten._triton_multi_head_attention")
def native_multi_head_attention(op: OpSignature) -> Work:
    """Query, key and value have one shape: attention of a batch over itself."""
    width, heads = int(op.number("embed_dim")), int(op.number("num_head"))
    return _attention(op, _sequences(op.tensor("query"), width), heads)


@cost("aten._transformer_encoder_layer_fwd")
def transformer_encoder_layer(op: OpSignature) -> Work:
    """Self-attention, then the feed-forward D -> f -> D: 4 R D f.

    Vector beside the attention's: two residual additions R D each; two layer norms, 5D + 2 per row (mean D,
    centre D, square and sum 2D - 1, divide 1, epsilon 1, rsqrt 1, scale D) and 2 D for weight and bias; the
    biases R f and R D; relu R f, or gelu 5 R f (on CUDA, in its tanh form, 9 R f).
    """
    d, heads = int(op.number("embed_dim")), int(op.number("num_heads"))
    x = _sequences(op.tensor("src"), d)
    f, rows = op.tensor("ffn_weight_1").shape[0], x.rows
    attention = _attention(op, x, heads)
    feed_forward = 4 * rows * d * f
    gelu = 9 if op.out.device.startswith("cuda") else 5
    activation = rows * f * (gelu if op.number("use_gelu") else 1)
    norms = 2 * rows * (5 * d + 2 + 2 * d)
    return Work(
        attention.matmul + feed_forward,
        attention.vector + 2 * rows * d + norms + rows * f + rows * d + activation,
        None if attention.useful is None else attention.useful + feed_forward,
    )


@cost("aten._transform_bias_rescale_qkv")
def transform_bias_rescale_qkv(op: OpSignature) -> Work:
    """Adds the bias to q, k and v (1 per element) and scales q (1 for a third of them)."""
    n = op.tensor("qkv").numel
    return Work(vector=n + n // 3)


@cost("aten._nested_tensor_softmax_with_shape")
def nested_softmax_with_shape(op: OpSignature) -> Work:
    """Softmax of padded scores [B, H, T, T] over each sequence's real length t: H t rows of 5t - 2."""
    scores, query = op.tensor("self"), op.tensor("query")
    heads = scores.shape[1] if len(scores.shape) == 4 else 1
    lengths = [piece[0] for piece in query.pieces(2) or query.pieces(3) or []]
    return Work(vector=sum(heads * (5 * t * t - 2 * t) for t in lengths))


movement(
    (
        "aten._nested_tensor_from_mask",
        "aten._nested_tensor_from_mask_left_aligned",
        "aten._nested_tensor_from_tensor_list",
        "aten._nested_from_padded",
        "aten._nested_from_padded_and_nested_example",
        "aten._nested_from_padded_tensor",
        "aten._nested_get_values_copy",
        "aten._nested_view_from_buffer_copy",
        "aten._nested_view_from_jagged_copy",
        "aten._nested_select_backward",
        "aten._nested_sum_backward",
        "aten._jagged_to_padded_dense_forward",
        "aten._padded_dense_to_jagged_forward",
        "aten.to_padded_tensor",
        "aten.nested_to_padded_tensor",
    )
)

free(
    (
        "aten._nested_tensor_size",
        "aten._nested_tensor_strides",
        "aten._nested_tensor_storage_offsets",
        "aten._nested_compute_contiguous_strides_offsets",
        "aten._nested_get_offsets",
        "aten._nested_get_lengths",
        "aten._nested_get_ragged_idx",
        "aten._nested_get_min_seqlen",
        "aten._nested_get_max_seqlen",
        "aten._nested_get_jagged_dummy",
        "aten._nested_get_values",
        "aten._nested_view_from_buffer",
        "aten._nested_view_from_jagged",
    ),
    "sizes and offsets of a nested tensor, kept on the host, or a view of its buffer",
)


@traffic(
    "aten._nested_tensor_from_mask",
    "aten._nested_from_padded",
    "aten._nested_from_padded_and_nested_example",
    "aten._nested_from_padded_tensor",
    "aten._padded_dense_to_jagged_forward",
)
def unpadding_traffic(op: OpSignature) -> tuple[int, int]:
    """Reads the kept elements, and the mask or offsets that say which; the examples only lend their sizes."""
    read = op.out.numel * op.out.width
    return read + distinct_bytes(t for name in ("mask", "offsets") for t in op.tensors(name)), default(op)[1]


@traffic("aten._nested_tensor_from_mask_left_aligned")
def mask_question_traffic(op: OpSignature) -> tuple[int, int]:
    """A yes or no about the mask; the tensor is not read."""
    return op.tensor("mask").bytes, 0
