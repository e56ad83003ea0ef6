"""Saved traces: the same trace comes back, and whatever is not one is refused in one sentence."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnprof
from attnprof.core import trace_json
from attnprof.core.errors import TraceFormatError
from attnprof.core.memory import KVCache, MemoryTrace, Saved
from attnprof.core.signature import Declared, OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.trace import PHASES, Call, ModuleRecord, ParameterRecord, Scope, Trace
from core.memories import memories

COUNTS = st.integers(0, 2**62)
TEXT = st.text(max_size=8)
FLOATS = st.floats(allow_nan=False)


@st.composite
def tensors(draw: st.DrawFn) -> TensorMeta:
    shape = tuple(draw(st.lists(COUNTS, max_size=4)))
    stride = tuple(draw(st.lists(COUNTS, min_size=len(shape), max_size=len(shape))))
    return TensorMeta(
        shape=shape,
        stride=draw(st.sampled_from([stride, ()])),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "int64", "complex64"])),
        device=draw(st.sampled_from(["cpu", "cuda:0", "meta"])),
        ident=draw(st.integers(-1, 9)),
        layout=draw(st.sampled_from(["strided", "sparse_coo", "nested"])),
        nnz=draw(st.none() | COUNTS),
        index_bytes=draw(COUNTS),
        values=draw(st.none() | st.lists(st.integers(-5, 2**40), max_size=3).map(tuple)),
    )


SCALARS = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT, lambda inner: st.lists(inner, max_size=3).map(tuple)
)
ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT | tensors(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
)
DECLARED = st.builds(
    Declared,
    TEXT,
    COUNTS,
    COUNTS,
    st.none() | COUNTS,
    COUNTS,
    COUNTS,
    st.none() | COUNTS,
    st.none() | COUNTS,
)
SIGNATURES = st.builds(
    OpSignature,
    op=st.sampled_from(["aten.mm.default", "mylib.op.default", "higher_order.flex_attention"]),
    args=st.lists(st.tuples(TEXT, ARGUMENTS), max_size=3).map(tuple),
    outputs=st.lists(ARGUMENTS, max_size=2).map(tuple),
    mutated=st.lists(TEXT, max_size=2).map(tuple),
    overwritten=st.lists(TEXT, max_size=2).map(tuple),
    view=st.booleans(),
    declared=st.none() | DECLARED,
)


@st.composite
def call_kinds(draw: st.DrawFn) -> Call:
    texts = draw(st.lists(TEXT, max_size=2).map(tuple))
    flags = st.booleans()
    return Call(texts, tuple(draw(flags) for _ in texts), draw(flags), draw(flags), draw(flags))


def modules(parent: int | None) -> st.SearchStrategy[ModuleRecord]:
    return st.builds(
        ModuleRecord,
        fqn=TEXT,
        class_name=TEXT,
        parent=st.just(parent),
        aliases=st.lists(TEXT, max_size=2).map(tuple),
        parameters=st.lists(
            st.builds(ParameterRecord, TEXT, st.lists(COUNTS, max_size=3).map(tuple), TEXT, st.booleans(), COUNTS),
            max_size=2,
        ).map(tuple),
        hyperparameters=st.dictionaries(TEXT, SCALARS, max_size=2),
        training=st.none() | st.booleans(),
        calls=st.dictionaries(st.lists(TEXT, max_size=2).map(tuple), COUNTS, max_size=2),
        recomputed_calls=COUNTS,
        home=TEXT,
        call_kinds=st.dictionaries(call_kinds(), COUNTS, max_size=2),
    )


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(3, 5))
    records = [draw(modules(None if i == 0 else draw(st.integers(0, i - 1)))) for i in range(count)]
    signatures = draw(st.lists(SIGNATURES, min_size=1, max_size=3))
    scopes = draw(
        st.lists(st.builds(Scope, st.integers(0, count - 1), st.sampled_from(PHASES)), min_size=1, max_size=3)
    )
    events = draw(
        st.lists(st.tuples(st.integers(0, len(signatures) - 1), st.integers(0, len(scopes) - 1)), max_size=20)
    )
    steps = draw(st.lists(st.integers(0, len(events)), max_size=3).map(sorted))
    return Trace(
        signatures,
        scopes,
        [signature for signature, _ in events],
        [scope for _, scope in events],
        records,
        steps=steps,
        step_labels=draw(st.dictionaries(st.integers(0, len(steps) - 1), TEXT)) if steps else {},
        meta=draw(st.dictionaries(TEXT, SCALARS, max_size=3)),
        notes=draw(st.lists(TEXT, max_size=2)),
        memory=draw(st.none() | memories(events=len(events), modules=count)),
    )


@settings(max_examples=150, deadline=None)
@given(traces())
def test_any_trace_comes_back(trace: Trace) -> None:
    again = trace_json.loads(trace_json.dumps(trace))
    assert again == trace
    assert repr(again) == repr(trace), "True is not 1, and 1 is not 1.0"


def test_not_a_number_comes_back() -> None:
    trace = small_trace()
    trace.meta["loss"] = float("nan")
    text = trace_json.dumps(trace)
    assert "NaN" not in text, "NaN is not JSON"
    assert repr(trace_json.loads(text)) == repr(trace)


def small_trace() -> Trace:
    """A few ops of each kind of field, without torch."""
    x = TensorMeta((2, 3), (3, 1), "float32", ident=0)
    w = TensorMeta((3, 4), (1, 3), "float32", "cuda:0", ident=1, values=(1, 2))
    out = TensorMeta((2, 4), (4, 1), "float32", ident=2)
    sparse = TensorMeta((3, 3), (), "float32", ident=3, layout="sparse_coo", nnz=4)
    weight = ParameterRecord("weight", (3, 4), "float32", True, 0)
    return Trace(
        signatures=[
            OpSignature("aten.mm.default", (("self", x), ("mat2", w)), (out,)),
            OpSignature("aten.add_.Tensor", (("self", out), ("other", x), ("alpha", 2)), (out,), ("self",), ("out",)),
            OpSignature("aten.t.default", view=True),
            OpSignature("mylib.op.default", (("x", (sparse, 1.5, "a", None, True)),), (x,), declared=Declared("me", 7)),
        ],
        scopes=[Scope(3, "forward"), Scope(3, "backward"), Scope(2, "optimizer_init")],
        event_signatures=[0, 0, 0, 1, 2, 3],
        event_scopes=[0, 0, 1, 2, 0, 1],
        modules=[
            ModuleRecord("", "Net", None),
            ModuleRecord("(outside)", "", 0),
            ModuleRecord("(optimizer)", "", 0),
            ModuleRecord(
                "a",
                "Linear",
                0,
                ("b",),
                (weight,),
                {"n": 3, "sizes": (1, 2)},
                True,
                {("float32[2,3]",): 2},
                1,
                "mylib.layers",
                {Call(("float32[2,3]",), (True,), True): 2, Call(("float32[2,3]",), (True,), True, True): 1},
            ),
        ],
        steps=[3, 5],
        step_labels={1: "decode 1"},
        meta={"torch": "2.13.0", "fake": False, "limit": float("inf")},
        notes=["A note."],
        memory=MemoryTrace(
            block_bytes=[48, 32, 0],
            block_kinds=[0, 6, 7],
            block_made=[False, True, True],
            log=[0, 1, 2, ~2, ~1],
            log_at=[0, 0, 2, 3, 5],
            saved=[Saved(3, {3: 80, 1: 2}, 24, 2, {3: 7})],
            caches=[KVCache(3, (16, 16), 2), KVCache(5, (8,))],
            state_bytes={"parameter": 48, "trainable": 48},
            optimizer_bytes={"exp_avg": 48, "step": 4},
        ),
    )


def refused(text: str) -> str:
    """The message with which a text is refused: one line, naming the file, ending as a sentence does."""
    with pytest.raises(TraceFormatError) as caught:
        trace_json.loads(text, "run.json")
    message = str(caught.value)
    assert message.startswith("run.json ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 400
    assert caught.value.__cause__ is None
    return message


TEXT_OF_SMALL = trace_json.dumps(small_trace())


@pytest.mark.parametrize("end", [*range(0, len(TEXT_OF_SMALL), 97), len(TEXT_OF_SMALL) - 1])
def test_cut_off(end: int) -> None:
    assert "it is not JSON, or it is cut off" in refused(TEXT_OF_SMALL[:end])


@pytest.mark.parametrize(
    "text",
    ["hello", "{'format': 1}", "\x00\x01", "<html>", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "NaN,"],
    ids=["words", "python", "binary", "html", "deep list", "deep object", "long number", "nan"],
)
def test_not_json(text: str) -> None:
    assert "it is not JSON" in refused(text)


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", '"attnprof trace"', '{"format": "something else"}'])
def test_not_a_trace(text: str) -> None:
    assert 'it has no "format": "attnprof trace"' in refused(text)


def test_a_newer_schema() -> None:
    data = trace_json.to_dict(small_trace()) | {"schema": trace_json.SCHEMA + 1}
    assert "made by a newer attnprof" in refused(json.dumps(data))


@pytest.mark.parametrize("schema", [0, -1, "1", 1.5, None, True, [1]])
def test_a_schema_that_is_none(schema: Any) -> None:
    data = trace_json.to_dict(small_trace()) | {"schema": schema}
    assert "states schema" in refused(json.dumps(data))


#: Values are free below these keys: any plain value is a valid argument, hyper-parameter or remark.
FREE = {"args", "outputs", "hyperparameters", "meta"}
OPTIONAL = {"args", "outputs", "mutated", "overwritten", "view", "declared"}
OPTIONAL |= {"device", "layout", "nnz", "values"}  # of a tensor
OPTIONAL |= set(Declared.__dataclass_fields__) - {"source"}

Path_ = tuple[Any, ...]


def places(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every value inside a trace's JSON, with the way to it."""
    yield path, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, (*path, i))


def replaced(path: Path_, value: Any) -> str:
    data = copy.deepcopy(DATA)
    inside: Any = data
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return json.dumps(data)


DATA = json.loads(TEXT_OF_SMALL)
#: A value of each JSON type, and what it may not stand in for.
WRONG: dict[type, tuple[Any, ...]] = {
    int: ("1", 1.5, True, [], {}, -(10**30)),
    str: (1, 1.5, True, None, [], {}),
    bool: ("true", 1, 0, [], {}),
    list: ("ab", 1, True, None, {}, {"0": 1}),
    dict: ("ab", 1, True, None, []),
    type(None): ("ab", 1.5, [], {}),
}
REPLACEMENTS = [
    (path, wrong)
    for path, value in places(DATA)
    if path and path[0] not in ("format", "schema") and not FREE & set(path[:-1])
    for wrong in WRONG[type(value)]
    if not (path[-1] == "ident" and wrong == -(10**30))
    if not (wrong is None and path[-1] in ("declared", "parent", "training", "nnz", "values", "memory"))
    if not (path[-1] == "training" and isinstance(wrong, bool))
]


def test_there_are_many_ways_to_be_wrong() -> None:
    assert len(REPLACEMENTS) > 500


def is_refused(text: str) -> bool:
    try:
        trace_json.loads(text, "run.json")
    except TraceFormatError:
        return True
    return False


def test_a_value_of_the_wrong_type() -> None:
    assert [case for case in REPLACEMENTS if not is_refused(replaced(*case))] == []


TENSOR = ("signatures", 0, "args", 0, 1, "tensor")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ((*TENSOR, "shape"), "23"),
        ((*TENSOR, "shape"), [2, -3]),
        ((*TENSOR, "shape"), [2, "3"]),
        ((*TENSOR, "shape"), [2, 3, 4]),
        ((*TENSOR, "stride"), [1]),
        ((*TENSOR, "stride"), None),
        ((*TENSOR, "dtype"), 32),
        ((*TENSOR, "ident"), "0"),
        (TENSOR[:-1], [1]),
        (TENSOR[:-1], {}),
        (TENSOR[:-1], {"tensor": {}}),
        (TENSOR[:-1], {"tensor": 3}),
        (TENSOR[:-1], {"float": "much"}),
        (TENSOR[:-1], {"float": 3}),
        (TENSOR[:-1], {"list": "ab"}),
        (TENSOR[:-1], {"list": [], "float": "1"}),
        (TENSOR[:-1], {"set": []}),
        (("signatures", 0, "args", 0), ["self"]),
        (("signatures", 0, "args", 0, 0), 1),
        (("signatures", 0, "op"), "mm"),
        (("signatures", 0, "view"), 1),
        (("signatures", 0, "mutated"), "self"),
        (("signatures", 0, "outputs"), {}),
        (("signatures", 3, "declared", "price"), 1),
        (("modules", 3, "hyperparameters", "n"), [1]),
        (("modules", 3, "hyperparameters", "n"), DATA["signatures"][0]["args"][0][1]),
        (("modules", 0, "parent"), 0),
        (("modules", 3, "parent"), 3),
        (("modules", 3, "parent"), None),
        (("modules",), DATA["modules"][:2]),
        (("scopes", 0), [99, "forward"]),
        (("scopes", 0), [-1, "forward"]),
        (("scopes", 0), [0, "sideways"]),
        (("scopes", 0), [0, "forward", 1]),
        (("events", 0), [99, 0, 1]),
        (("events", 0), [0, 99, 1]),
        (("events", 0), [-1, 0, 1]),
        (("events", 0), [0, 0]),
        (("events", 0), [0, 0, -1]),
        (("events", 0), [0, 0, 10**12]),
        (("events",), [[0, 0, 10**8], [0, 0, 10**8]]),
        (("steps", 0), -1),
        (("steps", 1), 7),
        (("step_labels", 0), [2, "decode 2"]),
        (("step_labels",), [[0, "a"], [0, "b"]]),
        (("meta", "x"), {"list": [[]]}),
    ],
)
def test_damage(path: Path_, wrong: Any) -> None:
    assert "is damaged: a field is missing or has the wrong form" in refused(replaced(path, wrong))


def test_a_missing_field() -> None:
    accepted = []
    for path, value in places(DATA):
        if not isinstance(value, dict) or {"hyperparameters", "meta", "state_bytes", "optimizer_bytes"} & set(path):
            continue
        for name in value:
            data = copy.deepcopy(DATA)
            inside: Any = data
            for step in path:
                inside = inside[step]
            del inside[name]
            if not is_refused(json.dumps(data)):
                accepted.append(name)
    assert set(accepted) <= OPTIONAL


def test_a_trace_of_schema_1_has_no_memory() -> None:
    data = trace_json.to_dict(small_trace()) | {"schema": 1}
    del data["memory"], data["step_labels"]
    before = without_call_kinds(small_trace())
    before.memory, before.step_labels = None, {}
    assert trace_json.loads(json.dumps(data)) == before


def without_call_kinds(trace: Trace) -> Trace:
    for record in trace.modules:
        record.home, record.call_kinds = "", {}
    return trace


def test_a_trace_of_schema_2_does_not_know_kinds_of_calls() -> None:
    data = trace_json.to_dict(small_trace()) | {"schema": 2}
    for module in data["modules"]:
        del module["home"], module["call_kinds"]
    assert trace_json.loads(json.dumps(data)) == without_call_kinds(small_trace())


def test_a_call_has_a_flag_for_each_tensor() -> None:
    data = trace_json.to_dict(small_trace())
    data["modules"][3]["call_kinds"][0][1] = [True, False]
    assert "2 gradients for 1 tensors" in refused(json.dumps(data))


@pytest.mark.parametrize("depth", [600, 5_000, 100_000])
def test_an_argument_nested_too_deep(depth: int) -> None:
    deep = '{"list":[' * depth + "1" + "]}" * depth
    text = replaced(("signatures", 0, "args", 0, 1), "here").replace('"here"', deep)
    refused(text)


# Files


def test_a_file_comes_back(tmp_path: Path) -> None:
    report = attnprof.Report(small_trace_priced())
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert again.trace == report.trace
    assert again.total == report.total
    assert again.by_module() == report.by_module()


def small_trace_priced() -> Trace:
    """Without the op whose formula is nobody's."""
    trace = small_trace()
    trace.event_signatures = trace.event_signatures[:-1]
    trace.event_scopes = trace.event_scopes[:-1]
    return trace


def test_a_run_comes_back(tmp_path: Path) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    optimizer = torch.optim.AdamW(net.parameters())
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(2):
            net(torch.randn(5, 2, 6)).sum().backward()
            optimizer.step()
            prof.step()
    report = prof.report()
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert repr(again.trace) == repr(report.trace)
    assert again.phases == report.phases
    assert again.by_module("backward") == report.by_module("backward")
    assert again.by_operator() == report.by_operator()
    # 4 positions x 3 channels x 2 x 3 taps, and 12 x 4, for 5 samples; backward: both weights, one input; two steps.
    convolution, linear = 2 * 5 * 4 * 3 * (2 * 3), 2 * 5 * 12 * 4
    assert again.phases["forward"].matmul_flops == 2 * (convolution + linear)
    assert again.phases["backward"].matmul_flops == 2 * (convolution + 2 * linear)


def test_a_run_of_threads_that_take_turns_comes_back(tmp_path: Path) -> None:
    import torch
    from torch import nn

    net = nn.Linear(3, 4)
    prof = attnprof.profile(net)
    turns = [threading.Event() for _ in range(3)]

    def work(turn: int) -> None:
        with prof:
            for _ in range(3):
                turns[turn].wait()
                turns[turn].clear()
                net(torch.ones(2, 3)).sum().backward()
                turns[turn + 1].set()

    threads = [threading.Thread(target=work, args=(turn,)) for turn in (0, 1)]
    with prof:
        for thread in threads:
            thread.start()
        for _ in range(3):
            turns[0].set()
            turns[2].wait()
            turns[2].clear()
        for thread in threads:
            thread.join()
    report = prof.report()
    assert report.memory is not None
    assert report.trace.memory is not None
    places = report.trace.memory.log_at
    assert places != sorted(places)
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert again.trace == report.trace
    assert again.memory is not None
    assert again.memory.peak == report.memory.peak


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    attnprof.Report(small_trace_priced()).save(path)
    code = f"import sys, attnprof; print(attnprof.load({str(path)!r}).total.matmul_flops, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Three products [2, 3] x [3, 4].
    assert done.stdout.split() == [str(3 * (2 * 2 * 3 * 4)), "False"]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"nowhere\.json does not exist\.$"):
        attnprof.load(tmp_path / "nowhere.json")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="cannot be read"):
        attnprof.load(tmp_path)


def test_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(bytes(range(256)))
    with pytest.raises(TraceFormatError, match="cannot be read"):
        attnprof.load(tmp_path / "model.pt")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    with pytest.raises(TraceFormatError, match="cut off"):
        attnprof.load(tmp_path / "run.json")
