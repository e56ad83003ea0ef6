"""docs/zoo.md below its mark: every mechanism with its shapes, its closed forms and what it sees."""

from __future__ import annotations

import re
from typing import Any

import torch

from attnprof import zoo
from attnprof.analytic import predict
from attnprof.analytic.text import plain
from attnprof.zoo.registry import Mechanism
from claims import work_page
from claims.patterns import drawn, name_of, sees, side_by_side

#: Files of the zoo as sections, in this order; every mechanism is in one.
SECTIONS = {
    "Attention, dense": ["attention", "flash", "latent", "orthogonal"],
    "Attention, sparse": ["windows", "longformer", "sparse"],
    "Attention, linear and synthetic": ["linear", "performer", "hybrid", "synthesizer"],
    "Convolutions and recurrences": ["convolution", "recurrent"],
    "Networks of each token alone": ["feedforward", "experts"],
    "Whole models": ["transformer"],
    "Decoding": ["decoding"],
}
T, D = 24, 8
#: What is drawn: sizes small enough to be seen in 24 positions. The rest of the zoo looks like one of these.
PICTURES: list[tuple[str, dict[str, Any]]] = [
    ("mha", {}),
    ("mha", {"causal": True}),
    ("flash", {"causal": True, "Br": 4, "Bc": 4}),
    ("local-window", {"w": 3}),
    ("local-window", {"w": 3, "causal": True}),
    ("dilated-window", {"w": 3}),
    ("dilated-window", {"w": 3, "causal": True}),
    ("sliding-window", {"w": 4}),
    ("sliding-window", {"w": 4, "causal": True}),
    ("block-window", {"w": 6}),
    ("block-window", {"w": 6, "causal": True}),
    ("longformer", {"w": 3, "g": 2}),
    ("longformer", {"w": 3, "g": 2, "causal": True}),
    ("local-atrous", {"k": 5}),
    ("local-atrous", {"k": 5, "causal": True}),
    ("topk", {"k": 4}),
    ("topk", {"k": 4, "causal": True}),
    ("clustered", {"C": 4}),
    ("linear", {}),
    ("linear-causal", {"chunk": 4}),
    ("performer", {"r": 8}),
    ("hybrid", {"w": 4, "causal": True}),
    ("synthesizer-random", {"N": T}),
    ("depthwise-conv", {"k": 5}),
    ("depthwise-conv", {"k": 5, "causal": True}),
    ("diagonal-rnn", {}),
    ("ffn", {"f": 8}),
]


def page() -> str:
    """Everything below the mark."""
    known = {name: zoo.find(name) for name in zoo.names()}
    parts = []
    for title, files in SECTIONS.items():
        found = [entry for file in files for entry in known.values() if entry.kind.__module__.endswith(f".{file}")]
        parts += [f"## {title}", *(_entry(entry) for entry in found)]
        pictures = [(name, symbols) for name, symbols in PICTURES if known[name] in found]
        if pictures:
            parts.append(f"```text\n{side_by_side([_picture(*picture) for picture in pictures])}\n```")
    return "\n\n".join([*parts, work_page.section()]) + "\n"


def listed() -> set[str]:
    """The names that the page has."""
    return {name for name in zoo.names() if any(_is_in(name, file) for files in SECTIONS.values() for file in files)}


def _is_in(name: str, file: str) -> bool:
    return zoo.find(name).kind.__module__.endswith(f".{file}")


def _entry(entry: Mechanism) -> str:
    theory = predict(entry.name)
    built = ", ".join(f"{name}={value}" for name, value in entry.symbols.items())
    lines = [f"**`{entry.name}`** {_markdown(entry.summary)}", "", f"- `{built}`: {_shapes(entry)}"]
    flops = [f"{phase} `{_formula(theory.total('matmul_flops', phase))}`" for phase in theory.phases("matmul_flops")]
    if flops:
        lines.append(f"- matmul FLOPs: {', '.join(flops)}")
    elif "vector_flops" in theory.quantities:
        lines.append(f"- no matmul; vector FLOPs: forward `{_formula(theory.total('vector_flops', 'forward'))}`")
    lines.append(f"- parameters: `{_formula(theory.total('parameters'))}`")
    return "\n".join(lines)


def _shapes(entry: Mechanism) -> str:
    """Those of a call with the defaults, as they were."""
    torch.manual_seed(0)
    args = zoo.inputs(entry.name)
    with torch.no_grad():
        out = zoo.build(entry.name)(*args)
    return f"{_shape(args if len(args) > 1 else args[0])} to {_shape(out)}"


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return str(list(value.shape))
    return ", ".join(_shape(part) for part in value)


def _picture(name: str, symbols: dict[str, Any]) -> tuple[str, str]:
    heads = {"H": 1} if "H" in zoo.find(name).symbols else {}
    torch.manual_seed(0)
    net = zoo.build(name, d=D, **heads, **symbols)
    shown = {s: v for s, v in symbols.items() if s not in ("f", "N", "r", "Br", "Bc", "chunk")}
    title = f"{name} {name_of(shown)}".strip()
    return (title if len(title) <= T + 2 else f"{name} {name_of(shown).replace('causal', 'c.')}"), drawn(
        sees(net, T, D)
    )


def _formula(expression: Any) -> str:
    """``⌈T/w⌉`` for ``ceiling(T/w)``."""
    text = plain(expression).replace("Min(", "min(").replace("Max(", "max(")
    while (nested := re.sub(r"ceiling\(((?:[^()]|\([^()]*\))*)\)", r"⌈\1⌉", text)) != text:
        text = nested
    return text


def _markdown(text: str) -> str:
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("|", r"\|").replace("*", r"\*").replace("``", "`")
