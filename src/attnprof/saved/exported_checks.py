"""What a saved ``torch.export`` program would make PyTorch do when it is loaded, looked at before.

Loading one is more than reading it. PyTorch 2.13 evaluates its size expressions with sympy's parser, which is Python's
``eval``; looks operators up by dotted names, ``torch.os.system`` included; imports modules that its trees of
arguments name; compiles Python made of its names; and unpickles weights, constants and example inputs with the
plain unpickler where the restricted one refuses. So each of these is held against what programs have.
"""

from __future__ import annotations

import ast
import importlib
import json
import math
import operator
import re
import warnings
from collections.abc import Collection
from typing import Any

import torch

from attnprof.core.errors import AttnprofError
from attnprof.saved.exported_trees import DEEPEST, UnsafeError, check_tree

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DOTTED = re.compile(r"torch\.ops\.([A-Za-z_]\w*)\.(\w+)\.([A-Za-z]\w*)\Z")
_HIGHER_ORDER = re.compile(r"torch\.ops\.higher_order\.([A-Za-z_]\w*)\Z")
#: In names of modules and parameters: these would end a string in the Python that is made of them.
_BREAKS_OUT = re.compile(r"[\"'\\\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

#: Ops that read or write files, or belong to other processes.
_OUTSIDE = {"aten::save", "aten::from_file"}
_OUTSIDE_NAMESPACES = {
    *("debugprims", "c10d", "_c10d_functional", "_c10d_functional_autograd", "symm_mem", "inductor", "_test"),
    *("debug_mode_ops", "static_runtime", "rpc"),
}
#: Namespaces of PyTorch's own ops.
_PYTORCHS = {"aten", "prims", "prim", "quantized", "quantized_decomposed"}
_HIGHER_ORDER_OPS = {
    *("cond", "while_loop", "scan", "associative_scan", "map", "map_impl", "flex_attention", "flex_attention_backward"),
    *("wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap", "wrap_activation_checkpoint", "invoke_subgraph"),
    *("tag_activation_checkpoint", "auto_functionalized", "auto_functionalized_v2", "with_effects", "strict_mode"),
    *("run_and_save_rng_state", "run_with_rng_state", "out_dtype", "foreach_map"),
}
_SYMBOLIC = re.compile(r"torch\.(_sym_\w+|sym_(int|float|max|min|ite|not|sum|sqrt|fresh_size))\Z")
#: What torch.vmap leaves in a program.
_VMAP = {
    f"torch._functorch.predispatch.{name}"
    for name in (
        *("lazy_load_decompositions", "_vmap_increment_nesting", "_vmap_decrement_nesting", "_add_batch_dim"),
        *("_remove_batch_dim",),
    )
}
_OPERATORS = {
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "eq", "ne", "lt", "le", "gt"),
    *("ge", "and_", "or_", "xor", "not_", "inv", "invert", "lshift", "rshift", "getitem"),
}
_MATH = {name for name in dir(math) if callable(getattr(math, name)) and not name.startswith("_")}

#: What a size expression is made of, beside numbers and symbols.
_FUNCTIONS = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs", "floor", "ceiling"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "StrictGreaterThan"),
    *("LessThan", "GreaterThan", "And", "Or", "Not", "Piecewise", "true", "false", "oo", "zoo", "nan", "int_oo"),
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv"),
    *("LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt"),
    *("RoundToInt", "RoundDecimal", "ToFloat", "Identity", "IsNonOverlappingAndDenseIndicator", "exp", "log", "sqrt"),
    *("OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_exp", "OpaqueUnaryFn_log", "BitwiseFn_bitwise_and", "Infinity"),
}
_SYMBOL = re.compile(r"_*[a-z]+[a-z_]*\d*\Z")
_EXPRESSION = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.Tuple),
)
_LARGEST_NUMBER = 2**64


def check(text: bytes) -> dict[str, Any]:
    """The graph of a program, parsed and found to be no more than one.

    Raises :class:`UnsafeError` for what no program has, and :class:`AttnprofError` for an op that is not registered.
    """
    try:
        program = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AttnprofError(f"its graph is not valid JSON: {error}") from None
    if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
        raise AttnprofError("its graph is not that of a program")
    _walk(program, 0)
    return program


def _walk(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise UnsafeError("it is nested deeper than any program")
    if isinstance(value, dict):
        for key, inner in value.items():
            _string(key)
            _check_field(key, inner)
            _walk(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, depth + 1)
    elif isinstance(value, str):
        _string(value)


def _string(text: str) -> None:
    if _CONTROL.search(text):
        raise UnsafeError(f"it has control characters in {text[:40]!r}")


def _check_field(key: str, value: Any) -> None:
    if key == "expr_str":
        _check_expression(value)
    elif key == "target" or key == "as_operator":
        _check_target(value)
    elif key in ("name", "as_name"):
        _check_name(value)
    elif key.endswith("_name") or key in ("fqn", "path"):
        _check_path(value)
    elif key in ("in_spec", "out_spec"):
        check_tree(value)
    elif key == "guards_code":
        value.clear() if isinstance(value, list) else None  # of no use here, and never compiled
    elif key in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values"):
        for name in value if isinstance(value, dict) else ():
            _check_name(name)
    elif key == "range_constraints":
        for name in value if isinstance(value, dict) else ():
            _check_expression(name)
    elif key == "forward_arg_names":
        for name in value if isinstance(value, list) else ():
            _check_name(name)
    elif key == "treespec_namedtuple_fields" and value:
        for fields in value.values() if isinstance(value, dict) else ():
            for name in fields.get("field_names", ()) if isinstance(fields, dict) else ():
                _check_name(name)


def _check_name(name: Any) -> None:
    if name is not None and name != "" and not (isinstance(name, str) and (_NAME.match(name) or name.isidentifier())):
        raise UnsafeError(f"{name!r:.60} is no name of a value")


def _check_path(path: Any) -> None:
    if isinstance(path, str) and _BREAKS_OUT.search(path):
        raise UnsafeError(f"{path!r:.60} is no name of a module")


def _check_expression(text: Any) -> None:
    """A size: numbers, symbols and the arithmetic on them. What parses it would evaluate any Python."""
    if not isinstance(text, str) or len(text) > 100_000:
        raise UnsafeError("a size in it is no expression")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UnsafeError(f"{text!r:.60} is no size") from None
    for node in ast.walk(tree):
        fine = isinstance(node, _EXPRESSION)
        if isinstance(node, ast.Call):
            fine = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
            if fine and node.func.id == "Symbol":  # type: ignore[attr-defined]
                first = node.args[0] if node.args else None
                fine = (
                    isinstance(first, ast.Constant) and isinstance(first.value, str) and bool(_NAME.match(first.value))
                )
        elif isinstance(node, ast.Name):
            fine = node.id in _FUNCTIONS or bool(_SYMBOL.match(node.id))
        elif isinstance(node, ast.Constant):
            fine = _is_small(node.value)
        elif isinstance(node, ast.Pow):
            fine = True
        if not fine:
            raise UnsafeError(f"{text!r:.60} is no size")
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            _check_power(node, text)


def _check_power(node: ast.BinOp, text: str) -> None:
    """``x**2`` is a size; ``9**9**9`` would be computed for ever."""
    if not isinstance(node.right, ast.Constant | ast.UnaryOp | ast.Name) or (
        isinstance(node.right, ast.Constant) and isinstance(node.right.value, int) and node.right.value > 64
    ):
        raise UnsafeError(f"{text!r:.60} is no size")


def _is_small(value: object) -> bool:
    if isinstance(value, bool | float):
        return True
    if isinstance(value, str):
        return bool(_NAME.match(value))
    return isinstance(value, int) and abs(value) <= _LARGEST_NUMBER


def _check_target(target: Any) -> None:
    """An operator: one of PyTorch's on tensors, or one that the user's own program registered."""
    if not isinstance(target, str):
        return  # of another kind of field
    if target in ("", "output"):
        return
    if target.startswith("_operator."):
        fine = target.removeprefix("_operator.") in _OPERATORS and hasattr(operator, target.removeprefix("_operator."))
    elif target.startswith("math."):
        fine = target.removeprefix("math.") in _MATH
    elif found := _HIGHER_ORDER.match(target):
        fine = found[1] in _HIGHER_ORDER_OPS
    elif found := _DOTTED.match(target):
        namespace, name, overload = found.groups()
        fine = namespace not in _OUTSIDE_NAMESPACES and f"{namespace}::{name}" not in _OUTSIDE
        if fine:
            _check_registered(namespace, name, overload)
    else:
        fine = bool(_SYMBOLIC.match(target)) or target in _VMAP
    if not fine:
        raise UnsafeError(f"it calls {target!r:.80}, which is no op on tensors")


def _check_registered(namespace: str, name: str, overload: str) -> None:
    if namespace == "quantized_decomposed":  # PyTorch's own, registered by what quantizes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("torch.ao.quantization.fx._decomposed")
    space = getattr(torch.ops, namespace)
    if not isinstance(space, torch._ops._OpNamespace):
        raise UnsafeError(f"it calls torch.ops.{namespace}, which is no op on tensors")
    found = getattr(getattr(space, name, None), overload, None)
    if found is None and namespace in _PYTORCHS:
        raise AttnprofError(
            f"PyTorch {torch.__version__} has no op {namespace}::{name}.{overload}, as the version has that saved it. "
            "Export the model with this one"
        )
    if found is None:
        raise AttnprofError(
            f"its op {namespace}::{name}.{overload} is not registered here. Import the code that registers it, and "
            "open the program with attnprof.load_model"
        )
    if not isinstance(found, torch._ops.OpOverload):
        raise UnsafeError(f"it calls torch.ops.{namespace}.{name}.{overload}, which is no op on tensors")


def check_tensors(text: bytes, empty: Collection[str], trust_pickle: bool) -> None:
    """The list of a program's weights or constants: what only unpickling brings back is refused.

    ``empty`` are the members without a byte: of these, PyTorch makes zeros of whatever size the list has.
    """
    try:
        entries = json.loads(text)["config"]
        listed = list(entries.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise AttnprofError("the list of its tensors cannot be read") from None
    for name, entry in listed:
        _check_path(name)
        _walk(entry, 0)
        if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
            raise AttnprofError("the list of its tensors cannot be read")
        file = entry["path_name"]
        if file in empty and not _has_no_elements(entry):
            raise AttnprofError(f"its tensor {name} has a size but no bytes")
        if not trust_pickle and not file.startswith(("weight_", "tensor_")):
            raise AttnprofError(
                f"its constant {name} is no tensor, and bringing it back means to unpickle it, which may run code. "
                "Pass --trust-pickle if you made this file"
            )


def _has_no_elements(entry: dict[str, Any]) -> bool:
    meta = entry.get("tensor_meta")
    sizes = meta.get("sizes") if isinstance(meta, dict) else None
    return isinstance(sizes, list) and {"as_int": 0} in sizes
