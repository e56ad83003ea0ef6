"""From a live op call to its interned signature: a cheap key on every call, a description once per key.

A training step makes thousands of calls and about a hundred distinct ones. The key therefore holds only
what decides the cost: shapes, strides, dtypes, flags and ints, the device of the first tensor, which
arguments are the same tensor, and, for ops whose outputs the inputs do not determine, the output shapes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor

from attnprof.capture import execution
from attnprof.capture.metas import contents_of, tensor_meta
from attnprof.core.signature import Argument, Declared, OpSignature

#: Classes whose shape, stride and dtype are read directly. Other subclasses are opened up by torch before.
PLAIN: set[type] = {Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor}

#: Index arguments whose contents decide the work, by op: group ends and sequence lengths.
_CONTENTS = {
    "aten._grouped_mm": ("offs",),
    "aten._scaled_grouped_mm": ("offs",),
    "aten._scaled_grouped_mm_v2": ("offs",),
    "aten._flash_attention_forward": ("cum_seq_q", "cum_seq_k", "seqused_k"),
    "aten._flash_attention_forward_no_dropout_inplace": ("cum_seq_q", "cum_seq_k", "seqused_k"),
    "aten._flash_attention_backward": ("cum_seq_q", "cum_seq_k"),
    "aten._efficient_attention_forward": ("cu_seqlens_q", "cu_seqlens_k", "seqlen_k"),
    "aten._efficient_attention_backward": ("cu_seqlens_q", "cu_seqlens_k"),
    "aten._cudnn_attention_forward": ("cum_seq_q", "cum_seq_kv"),
    "aten._cudnn_attention_backward": ("cum_seq_q", "cum_seq_k"),
    "torch_attn._varlen_attn": ("cu_seq_q", "cu_seq_k", "seqused_k"),
    "torch_attn._varlen_attn_out": ("cu_seq_q", "cu_seq_k", "seqused_k"),
    "torch_attn._varlen_attn_backward": ("cu_seq_q", "cu_seq_k"),
}

#: Ops whose output shapes depend on contents though torch's tags do not say so.
_OPEN = (
    "aten._to_sparse",
    "aten._nested_tensor_from_mask.",
    "aten._nested_from_padded",
    "aten._pack_padded_sequence",
    "aten.arange",
    "aten.range",
)

#: Ops that give a storage another size, besides those that write into an ``out`` argument.
_RESIZING = ("aten.resize", "aten._resize_output_", "aten.set_", "inductor.resize_storage_bytes_")

#: Floats that formulas may tell apart; every other float is one representative value.
_FLOATS = {v: f"f{v}" for v in (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, float("inf"), float("-inf"))}
_NO_KWARGS: dict[str, Any] = {}


class Signatures:
    """The distinct op calls of one capture, in order of first sight. An id is an index into ``known``."""

    def __init__(self) -> None:
        self.known: list[OpSignature] = []
        self.plans: dict[int, Plan] = {}  # by id of the op
        self._ids: dict[OpSignature, int] = {}
        self._lock = threading.Lock()

    def plan(self, func: Any) -> Plan:
        """What is known of ``func`` before its arguments, worked out once."""
        plan = self.plans.get(id(func))
        if plan is None:
            plan = self.plans[id(func)] = Plan(func)
        return plan

    def id_of(self, plan: Plan, args: Sequence[Any], kwargs: dict[str, Any] | None, out: Any) -> int:
        """The id of this call's signature."""
        if plan.shapeless:
            plan.only = self._intern(OpSignature(plan.name, view=True))
            return plan.only
        try:
            key = _key(args, kwargs, out if plan.open_outputs else None)
        except (RuntimeError, NotImplementedError):  # no strides: sparse, nested, mkldnn
            return self._intern(plan.describe(args, kwargs or _NO_KWARGS, out))
        if plan.contents:
            key = (*key, plan.read(args, kwargs or _NO_KWARGS))
        found = plan.ids.get(key)
        if found is None:
            found = plan.ids[key] = self._intern(plan.describe(args, kwargs or _NO_KWARGS, out))
        return found

    def _intern(self, signature: OpSignature) -> int:
        with self._lock:
            found = self._ids.get(signature)
            if found is None:
                found = self._ids[signature] = len(self.known)
                self.known.append(signature)
        return found


def _key(args: Sequence[Any], kwargs: dict[str, Any] | None, out: Any) -> tuple[Any, ...]:
    key: list[Any] = []
    tensors: list[Tensor] = []
    _extend(key, tensors, args)
    if kwargs:
        for name, value in kwargs.items():
            key.append(name)
            _extend(key, tensors, (value,))
    if tensors:
        key.append(tensors[0].device)
        if _repeats(tensors):
            idents = [id(t) for t in tensors]
            key.append(tuple(map(idents.index, idents)))
    if out is not None:
        _extend(key, tensors, (out,))
    return tuple(key)


def _repeats(tensors: list[Tensor]) -> bool:
    """Whether some tensor is given twice; up to three, which most calls have, without a set."""
    count = len(tensors)
    if count == 2:
        return tensors[0] is tensors[1]
    if count == 3:
        a, b, c = tensors
        return a is b or a is c or b is c
    return count > 3 and len(set(map(id, tensors))) != count


def _extend(key: list[Any], tensors: list[Tensor], values: Iterable[Any]) -> None:
    plain = PLAIN
    for a in values:
        kind = a.__class__
        if kind in plain:
            stride = a.stride()
            if 0 in stride and a.layout is not torch.strided:  # sparse COO and mkldnn make up strides
                raise NotImplementedError
            key += (a.shape, stride, a.dtype)
            tensors.append(a)
        elif kind is int or a is None:
            key.append(a)
        elif kind is bool:
            key.append("T" if a else "F")
        elif kind is float:
            key.append(_FLOATS.get(a, "f"))
        elif kind is list or kind is tuple:
            key.append(len(a))
            _extend(key, tensors, a)
        elif isinstance(a, Tensor):
            key += _asked(a)
            tensors.append(a)
        else:
            key.append(a if kind in _HASHED else str(kind))


def _asked(t: Tensor) -> tuple[Any, ...]:
    """A tensor of a subclass, which need not answer for its shape itself."""
    with torch._C.DisableTorchFunction():
        return t.shape, t.stride(), t.dtype, type(t)


_HASHED = {str, torch.dtype, torch.device, torch.layout, torch.memory_format, complex}


#: The two ends of a ``record_function`` block.
_BLOCKS = {"profiler._record_function_enter_new": 1, "profiler._record_function_exit": -1}


class Plan:
    """What is known of an op before its arguments: how to run, key and describe it."""

    def __init__(self, func: Any) -> None:
        self.func = func  # keeps the id from being reused
        self.call = func._op if type(func) is OpOverload else func  # what OpOverload.__call__ calls
        self.ids: dict[tuple[Any, ...], int] = {}
        self.only: int | None = None
        schema = getattr(func, "_schema", None)
        self.name = str(func) if schema is not None else f"higher_order.{func.name()}"
        self.arguments = () if schema is None else tuple(schema.arguments)
        self.shapeless = schema is not None and bool(func.is_view)
        tags = getattr(func, "tags", ())
        self.open_outputs = (
            schema is None
            or not self.name.startswith(("aten.", "prims."))
            or self.name.startswith(_OPEN)
            or torch.Tag.dynamic_output_shape in tags
            or torch.Tag.data_dependent_output in tags
        )
        self.contents = _CONTENTS.get(self.name.rpartition(".")[0], ())
        self.resizes = self.name.startswith(_RESIZING) or any(
            a.alias_info is not None and a.alias_info.is_write and a.is_out for a in self.arguments
        )
        self.query = execution.is_query(func)
        self.opener = None if self.query else execution.opener(func)
        self.redispatches = not self.query and execution.redispatches(func)
        self.opens_block = _BLOCKS.get(self.name.rpartition(".")[0], 0)
        self.counts_versions = execution.is_foreach_in_place(func)
        self.special = (
            self.query or self.opener is not None or self.redispatches or self.opens_block != 0 or self.counts_versions
        )

    def read(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[int, ...] | None, ...]:
        bound = dict(zip((a.name for a in self.arguments), args, strict=False)) | kwargs
        return tuple(contents_of(bound.get(name)) for name in self.contents)

    def describe(self, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> OpSignature:
        """The full signature: every schema argument by name, defaults filled in."""
        describe = _Describer()
        named: list[tuple[str, Argument]] = []
        mutated: list[str] = []
        overwritten: list[str] = []
        for position, spec in enumerate(self.arguments):
            if position < len(args):
                value = args[position]
            elif spec.name in kwargs:
                value = kwargs[spec.name]
            else:
                value = spec.default_value if spec.has_default_value() else None
            named.append((spec.name, describe(value, spec.name in self.contents)))
            if spec.alias_info is not None and spec.alias_info.is_write:
                (overwritten if spec.is_out else mutated).append(spec.name)
        if not self.arguments:
            named = [(str(i), describe(a)) for i, a in enumerate(args)]
            named += [(name, describe(a)) for name, a in kwargs.items()]
        returned = out if isinstance(out, list | tuple) else (out,)
        outputs = tuple(describe(o) for o in returned)
        return OpSignature(
            self.name,
            tuple(named),
            outputs,
            tuple(mutated),
            tuple(overwritten),
            declared=_registered_flops(self.func, self.name, args, kwargs, out),
        )


class _Describer:
    """Arguments of one call as plain values; tensors numbered by identity."""

    def __init__(self) -> None:
        self.idents: dict[int, int] = {}

    def __call__(self, value: Any, contents: bool = False) -> Argument:
        if isinstance(value, Tensor):
            ident = self.idents.setdefault(id(value), len(self.idents))
            return tensor_meta(value, ident, contents)
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            return value
        if isinstance(value, list | tuple):
            return tuple(self(v, contents) for v in value)
        if isinstance(value, dict):
            return tuple(self(v, contents) for v in value.values())
        text = str(value) if type(value) in _HASHED or isinstance(value, torch.SymInt) else type(value).__name__
        return text.removeprefix("torch.")


def _registered_flops(func: Any, name: str, args: Any, kwargs: dict[str, Any], out: Any) -> Declared | None:
    """FLOPs of ops outside torch whose author used ``torch.utils.flop_counter.register_flop_formula``."""
    if name.startswith(("aten.", "prims.", "prim.", "torch_attn.")):
        return None
    from torch.utils.flop_counter import flop_registry

    formula: Callable[..., Any] | None = flop_registry.get(getattr(func, "_overloadpacket", func))
    if formula is None:
        return None
    return Declared("torch.utils.flop_counter.register_flop_formula", int(formula(*args, **kwargs, out_val=out)))
