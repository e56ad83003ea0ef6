"""From a report to the snapshot of it that a lock file keeps and a diff compares."""

from __future__ import annotations

from collections import Counter

from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.tree import ModuleNode, again
from attnprof.core.cost import ZERO, Cost
from attnprof.core.signature import OpSignature
from attnprof.core.snapshot import Line, Snapshot

#: Ops that one line names: the dearest, which decide.
_OPS = 6
#: Parts of the names of ops that are whole attentions, or layers with one.
_ATTENTION = (
    "scaled_dot_product",
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
    "varlen_attn",
    "multi_head_attention",
    "encoder_layer_fwd",
)


def snapshot(report: Report) -> Snapshot:
    """What a run cost by phase and module, and what its counts may depend on."""
    lines: dict[tuple[str, str], Line] = {}
    nodes = list(report.root.walk())
    for phase in PHASES:
        for node in nodes:
            line = _line(report, node, phase)
            if line is not None:
                lines[phase, node.fqn] = line
    memory = report.memory
    return Snapshot(
        lines,
        {} if memory is None else {"peak_bytes": memory.peak.bytes, "saved_bytes": memory.saved_bytes},
        dict(sorted(report.unpriced.items())),
        environment(report),
    )


def environment(report: Report) -> dict[str, str | bool]:
    """What counts may depend on beside the model and its input."""
    kernels, dtypes, devices = set(), set(), set()
    for op in report.trace.signatures:
        name = op.packet.partition(".")[2]
        if any(part in name for part in _ATTENTION):
            kernels.add(name.lstrip("_").removesuffix("_backward"))
        for tensor in op.inputs:
            devices.add(tensor.device.partition(":")[0])
            if tensor.is_floating:
                dtypes.add(tensor.dtype)
    training = {record.training for record in report.trace.modules if record.training is not None}
    found: dict[str, str | bool] = {
        "torch": str(report.meta.get("torch", "")).partition("+")[0],
        "device": ", ".join(sorted(devices)),
        "dtype": ", ".join(sorted(dtypes)),
        "attention": ", ".join(sorted(kernels)) or "no fused kernel",
        "grad": bool(report.meta.get("grad", False)),
        "fake": bool(report.meta.get("fake", False)),
    }
    if training:
        found["mode"] = "mixed" if len(training) > 1 else "train" if training.pop() else "eval"
    return found


def op_text(signature: OpSignature) -> str:
    """An op call in a line of text: ``aten.mm.default float32 [4,8] [8,16]``; dtypes that differ stand at each."""
    tensors = signature.inputs
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) != 1:
        return " ".join([signature.op, *map(str, tensors)])
    return " ".join([signature.op, *dtypes, *(f"[{','.join(map(str, tensor.shape))}]" for tensor in tensors)])


def _line(report: Report, node: ModuleNode, phase: str) -> Line | None:
    total = ZERO
    costs: dict[str, Cost] = {}
    calls: Counter[str] = Counter()
    for (where, signature), count in node.self_ops.items():
        op = report.priced[signature]
        for found, cost in ((where, op.cost), (again(where), op.recompute)):
            if cost and (found if found in PHASES else "optimizer") == phase:
                text = op_text(op.signature)
                total += cost * count
                costs[text] = costs.get(text, ZERO) + cost * count
                calls[text] += count
    if not total:
        return None
    dearest = sorted(costs, key=lambda text: (-costs[text].flops, -costs[text].bytes, text))
    ops = tuple(f"{text} x{calls[text]}" if calls[text] > 1 else text for text in dearest[:_OPS])
    if len(dearest) > _OPS:
        ops = (*ops, f"and {len(dearest) - _OPS} more")
    return Line(total.matmul_flops, total.vector_flops, total.read_bytes, total.write_bytes, ops)
