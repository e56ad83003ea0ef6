"""What does nothing to elements: metadata, aliases torch's schema does not declare, bookkeeping.

Views that the schema declares need no entry here.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, traffic

free(
    ("aten._unsafe_view", "aten.unsafe_split", "aten.unsafe_split_with_sizes", "aten.unsafe_chunk"),
    "the result shares the storage of the input, though the schema does not say so",
)
free(
    (
        "aten.detach_",
        "aten.lift_fresh",
        "aten.requires_grad_",
        "aten.retain_grad",
        "aten._version",
        "aten._fw_primal",
        "aten.alias",
        "aten.rename_",
    ),
    "autograd's bookkeeping",
)
free(
    (
        "aten.as_strided_",
        "aten.squeeze_",
        "aten.unsqueeze_",
        "aten.transpose_",
        "aten.t_",
        "aten.swapaxes_",
        "aten.swapdims_",
        "aten.set",
        "aten.set_data",
        "aten.resize_",
        "aten.resize_as_",
        "aten._resize_output",
    ),
    "shape and strides change in place, elements do not",
)
free(
    (
        "aten.is_same_size",
        "aten.is_pinned",
        "aten.is_set_to",
        "aten._has_same_storage_numel",
        "aten.size",
        "aten.stride",
        "aten.storage_offset",
        "aten.numel",
        "aten.dim",
        "aten.is_contiguous",
        "aten.is_non_overlapping_and_dense",
        "aten.sym_size",
        "aten.sym_stride",
        "aten.sym_numel",
        "aten.sym_storage_offset",
        "aten.sym_is_contiguous",
        "aten._assert_tensor_metadata",
        "aten.result_type",
        "aten.record_stream",
        "aten._debug_has_internal_overlap",
        "aten.is_complex",
        "aten.is_floating_point",
        "prim.device",
        "prim.layout",
        "prim.dtype",
    ),
    "a question about metadata",
)
free(
    (
        "profiler._record_function_enter",
        "profiler._record_function_enter_new",
        "profiler._record_function_exit",
        "profiler._call_end_callbacks_on_jit_fut",
        "aten._assert_async",
        "aten._functional_assert_async",
        "aten._assert_scalar",
        "aten._functional_assert_scalar",
        "aten.sym_constrain_range",
        "aten._functional_sym_constrain_range",
        "aten._functional_sym_constrain_range_for_size",
        "aten._make_dep_token",
        "aten.sym_constrain_range_for_size",
        "aten._print",
    ),
    "annotations and assertions on a scalar",
)
free(
    ("_c10d_functional.wait_tensor", "c10d_functional.wait_tensor", "_c10d_functional_autograd.wait_tensor"),
    "waits for a collective whose traffic is that op's own",
)


@cost("aten._local_scalar_dense")
def local_scalar(op: OpSignature) -> Work:
    """``.item()``: one element comes back."""
    return Work()


@traffic("aten._local_scalar_dense")
def local_scalar_traffic(op: OpSignature) -> tuple[int, int]:
    """One element is read."""
    return op.tensor("self").width, 0
