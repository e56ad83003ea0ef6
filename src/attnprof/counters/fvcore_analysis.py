"""fvcore's ``FlopCountAnalysis``: run as it is, then once more while every op inside a traced node is watched.

fvcore counts the nodes of a ``torch.jit`` trace: ``aten::linear``, ``aten::scaled_dot_product_attention``. The second
run tells which ops each node ran, so that the two can be compared node by node.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from attnprof.core.crosscheck import Reading, Said, Verdict
from attnprof.counters.jit_nodes import Describe, NodeWatch, key_of
from attnprof.counters.naming import without_wrappers
from attnprof.counters.tensors_only import TensorsOnly

#: The ops, by fvcore's name, that it counts in multiply-adds. Norms, resampling and pooling are estimates of FLOPs.
MACS = frozenset({"addmm", "bmm", "conv", "einsum", "linear", "matmul", "mm"})
#: Names that torch gives to nodes once a trace is done.
_RENAMED = {"aten::linalg_matmul": "aten::matmul"}


def count(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], describe: Describe) -> Reading:
    """What fvcore says of ``model(*args, **kwargs)``; raises what it raises. ``describe`` makes op calls signatures.

    The model is called twice. It keeps no hook, also when tracing fails. A reading whose ops could not be watched
    says so, and has numbers alone.
    """
    try:
        with warnings.catch_warnings():  # it uses parts of torch that are to go
            warnings.simplefilter("ignore")
            from fvcore.nn import FlopCountAnalysis  # type: ignore[import-untyped]
    except ImportError:
        return Reading("fvcore", "FlopCountAnalysis of fvcore", problem="it is not installed: pip install fvcore.")

    title = f"FlopCountAnalysis of fvcore {version('fvcore')}"
    bound = TensorsOnly(model, args, kwargs)

    def analysis() -> Any:
        found = FlopCountAnalysis(bound, bound.tensors)
        return found.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")

    with _alone(model):
        counted = analysis()
        amounts = counted.by_module_and_operator()
    reading = Reading(
        "fvcore",
        title,
        {_dotted(name): {op: _whole(n) for op, n in ops.items()} for name, ops in amounts.items()},
        MACS,
        ("forward",),
    )
    try:
        with _alone(model):
            return _followed(reading, analysis(), bound, describe)
    except Exception as error:  # whatever a model raises where its ops are watched, and only there
        why = f"{type(error).__name__} where its ops were watched"
        return replace(reading, caveat=f"The model raised {why}, so that no difference is explained.")


def _followed(reading: Reading, analysis: Any, bound: TensorsOnly, describe: Describe) -> Reading:
    """The reading with every node and the ops in it."""
    watch = NodeWatch(describe)
    bound.watch = watch
    counted: dict[Any, deque[tuple[str, int]]] = defaultdict(deque)
    handles = dict(analysis._op_handles)
    for kind, handle in handles.items():
        analysis.set_op_handle(kind, _logged(kind, handle, counted))
    with watch:
        analysis.by_operator()
    said = []
    for node, inner in watch.calls():
        kind = _RENAMED.get(node.kind, node.kind)
        key = (kind, *node.key[1:])
        op, amount, verdict = kind, 0, _verdict(kind, handles, analysis._ignored_ops)
        if verdict == "counted":
            if counted[key]:
                op, amount = counted[key].popleft()
            else:
                verdict = "unused"
        said.append(Said(op, amount, _enclosing(node.scope), tuple(inner), verdict, key[2]))
    return replace(reading, said=tuple(said))


def _logged(kind: str, handle: Any, counted: dict[Any, deque[tuple[str, int]]]) -> Callable[..., Any]:
    """A handle that also notes what it says of each node."""

    def noted(inputs: Any, outputs: Any) -> Any:
        result = handle(inputs, outputs)
        name, amount = kind.partition("::")[2], result
        if isinstance(result, dict):  # a handle may give its own name
            ((name, amount),) = result.items()
        counted[key_of(outputs[0].node())].append((name, _whole(amount)))
        return result

    return noted


def _verdict(kind: str, handles: Mapping[str, Any], ignored: set[str]) -> Verdict:
    if kind in handles:
        return "counted"
    if kind.startswith(("prim::PythonOp", "prim::CallFunction")):
        return "unsupported"
    return "ignored" if kind in ignored or kind.startswith("prim::") else "unsupported"


def _whole(amount: Any) -> int:
    """A number of fvcore's as an int; those of einsum are floats without a fraction."""
    return int(amount)


def _dotted(name: str) -> str:
    """A name below the wrapper as it is in the model: ``h.0`` for ``model.h.0``."""
    return without_wrappers(name.split(".")[1:])


def _enclosing(scope: str) -> frozenset[str]:
    """The modules that a node is booked to: the last of its scope, and those that own it."""
    name = _dotted(scope.rpartition("/")[2])
    parts = name.split(".") if name else []
    return frozenset({"", *(".".join(parts[:end]) for end in range(1, len(parts) + 1))})


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """One trace, without fvcore's log; the hooks that it leaves where tracing fails are taken away."""
    before = [(module, set(module._forward_pre_hooks), set(module._forward_hooks)) for module in model.modules()]
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    was = logger.disabled
    logger.disabled = True
    torch.clear_autocast_cache()  # a weight that was converted before is no part of a trace
    try:
        with torch.random.fork_rng(devices=_devices(model)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.clear_autocast_cache()
        logger.disabled = was
        for module, pre, post in before:
            for hooks, known in ((module._forward_pre_hooks, pre), (module._forward_hooks, post)):
                for left in [ident for ident in hooks if ident not in known]:
                    del hooks[left]


def _devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
