"""What a TorchScript archive could reach outside of itself, looked at before it is loaded and before it runs.

TorchScript runs in an interpreter of its own that has neither Python nor imports. But it has ops that write and
read files (``torch.save``, ``torch.from_file``), and loading runs the ``__setstate__`` of its classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnprof.core.errors import AttnprofError
from attnprof.saved import script_graph
from attnprof.saved.pickles import named_in

#: Ops that reach for files, Python or other processes.
_OUTSIDE = {
    *("aten::save", "aten::from_file", "prim::PythonOp", "prim::IgnoredPythonOp", "prim::rpc_async"),
    *("prim::rpc_sync", "prim::rpc_remote", "debugprims::load_tensor"),
}
_NAMESPACES = {"c10d", "_c10d_functional", "symm_mem", "debugprims", "inductor", "rpc", "dist_rpc", "_test"}
#: Classes of PyTorch that are written in C++ and that models hold: packed weights.
_CLASSES = {"quantized", "mkldnn", "xnnpack", "sparse", "rnn"}

_WORDS = re.compile(r"\b(from_file|PythonOp|IgnoredPythonOp|rpc_async|rpc_sync|rpc_remote|load_tensor)\b")
_SAVE = re.compile(r"\.save\b|[\"']save[\"']")
_NAMESPACE = re.compile(r"\bops\.(\w+)")
_CLASS = re.compile(r"\btorch\.classes\.(\w+)")
_GETATTR = re.compile(r"\bgetattr\(")
_PLAIN_GETATTR = re.compile(r"\bgetattr\((?!torch\b|ops\b)[\w.]+,\"[^\"\\]*\"\)")


def check_code(path: Path, code: bytes) -> None:
    """Refuse code that names what reaches outside."""
    for text in (code.decode("utf-8", "replace"), re.sub(r"#[^\n]*", "", code.decode("utf-8", "replace"))):
        _check_text(path, text)


def _check_text(path: Path, code: str) -> None:
    joined = re.sub(r"[\s\\]*\.[\s\\]*", ".", code)
    text = re.sub(r"\s+", "", code)
    for found in (_WORDS.search(code), _SAVE.search(joined)):
        if found:
            raise _refused(path, found[0].strip(".\"'"))
    for namespace in _NAMESPACE.findall(joined):
        if namespace in _NAMESPACES:
            raise _refused(path, f"ops.{namespace}")
    for name in _CLASS.findall(joined):
        if name not in _CLASSES:
            raise _refused(path, f"torch.classes.{name}")
    if len(_GETATTR.findall(text)) != len(_PLAIN_GETATTR.findall(text)):
        raise _refused(path, "getattr of a name that is hidden")


def check_pickle(path: Path, pickle: bytes) -> None:
    """Refuse objects of C++ classes that are no packed weights."""
    for name in named_in(path, pickle):
        found = _CLASS.search(name)
        if found and found[1] not in _CLASSES:
            raise _refused(path, name)


def check_graphs(path: Path, functions: Iterable[Any]) -> None:
    """Refuse what was loaded when one of its graphs has an op that reaches outside, however its code was written."""
    for function in functions:
        for node in script_graph.nodes(function.graph):
            kind = node.kind()
            if kind in _OUTSIDE or kind.partition("::")[0] in _NAMESPACES:
                raise _refused(path, kind)


def _refused(path: Path, what: str) -> AttnprofError:
    return AttnprofError(
        f"{path} is refused: its code names {what}, which can reach files or other processes, as no model needs to."
    )
