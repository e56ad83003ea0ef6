"""What is written as JSON is as its JSON Schema says, field by field, and changes with its version alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core import trace_json
from attnprof.core.errors import AttnprofError
from attnprof.costs import registry
from attnprof.reports import formats, stored_weights
from attnprof.reports.schemas import NAMES
from reports.traces import Hand, mm, stack, unknown

VERSIONS = {**dict.fromkeys(NAMES, 1), "run": trace_json.SCHEMA, "report": formats.SCHEMA}
VERSIONS["weights"] = stored_weights.SCHEMA
KNOWN = Path(__file__).parent / "golden" / "schema_versions.json"


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = attnprof.json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class Net(nn.Module):
    """An embedding, a layer twice, a tied head, and names that JSON must escape."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.h = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(2))
        self.add_module('a"\\\u202e中', nn.LayerNorm(4))
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = float("inf")

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.h:
            x = layer(x)
        return self.head(self.get_submodule('a"\\\u202e中')(x))


IDS = (torch.zeros(2, 3, dtype=torch.int64),)


def run(**options: Any) -> attnprof.Report:
    return attnprof.run(Net(), IDS, **options)


def looped() -> attnprof.Report:
    """Steps that were counted, steps like them, and their time."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters())
    with attnprof.profile(model, device="h100-sxm") as profile:
        for _ in range(4):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            profile.step()
    return profile.report()


def sparse() -> attnprof.Report:
    class Sparse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(torch.eye(4).to_sparse(), x)

    return attnprof.run(Sparse(), (torch.ones(4, 2),))


RUNS: dict[str, Callable[[], attnprof.Report]] = {
    "forward": run,
    "backward": lambda: run(backward=True),
    "trained": lambda: run(optimizer="adamw", device="h100-sxm,mi300x"),
    "checkpointed": lambda: run(backward=True, plan=attnprof.Plan(checkpoint=True)),
    "autocast": lambda: run(backward=True, plan=attnprof.Plan(autocast="bf16")),
    "fake": lambda: run(fake=True, backward=True),
    "generated": lambda: run(generate=3, device="h100-sxm"),
    "without memory": lambda: run(memory=False),
    "timed": lambda: run(backward=True, time=2),
    "looped": looped,
    "cross-checked": lambda: attnprof.crosscheck(Net(), IDS, backward=True),
    "sparse": sparse,
    "by hand": lambda: attnprof.Report(stack().ran("head", unknown(), times=2).trace),
    "nothing": lambda: attnprof.Report(Hand().trace),
    "no model": lambda: attnprof.Report(Hand("").ran(None, mm(2, 3, 4), "other").trace),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_kind_of_run_is_as_its_schema_says(name: str) -> None:
    report = RUNS[name]()
    validator("report").validate(json.loads(report.to_json()))
    validator("run").validate(json.loads(report.dumps()))


def test_a_price_of_yours_is_part_of_a_run() -> None:
    @torch.library.custom_op("schematest::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return x * 2

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.schematest.double(x)

    attnprof.cost("schematest::double")(lambda op: attnprof.Work(vector=op.out.numel))
    try:
        data = json.loads(attnprof.run(Own(), (torch.ones(4),)).dumps())
    finally:
        registry.forget("schematest.double")
    validator("run").validate(data)
    assert [op["declared"]["vector_flops"] for op in data["signatures"] if "declared" in op] == [4]


def places(data: Any, schema: dict[str, Any], root: dict[str, Any], path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Where a document has objects whose fields its schema names, with the schema of each."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for other in schema.get("anyOf", ()):
        if isinstance(data, dict | list) and other.get("type") != "null":
            yield from places(data, other, root, path)
    if isinstance(data, dict) and "properties" in schema and {*schema["required"]} <= {*data}:
        yield path, schema
        for name, value in data.items():
            yield from places(value, schema["properties"].get(name, {}), root, (*path, name))
    elif isinstance(data, list) and isinstance(schema.get("items"), dict):
        for index, value in enumerate(data[:1]):
            yield from places(value, schema["items"], root, (*path, index))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


@pytest.mark.parametrize("name", ["run", "report"])
def test_no_field_can_go_or_come_unnoticed(name: str) -> None:
    report = run(optimizer="adamw", device="h100-sxm", time=2)
    assert checked_fields(name, report.to_json() if name == "report" else report.dumps()) > 50


def checked_fields(name: str, text: str) -> int:
    """Of each kind of object one: a field less, a field more, and a field of another type are against the schema."""
    schema, found = attnprof.json_schema(name), validator(name)
    checked = 0
    for path, part in places(json.loads(text), schema, schema):
        for field in [*part["required"], "added"]:
            data = json.loads(text)
            fields = at(data, path)
            if field == "added":
                fields[field] = 1
            else:
                del fields[field]
            assert not found.is_valid(data), (path, field)
            if field != "added":
                fields[field] = {"wrong": [None]}
                described = part["properties"][field]
                assert "additionalProperties" in described or not found.is_valid(data), (path, field)
            checked += 1
    return checked


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_of_the_version_that_is_written(name: str) -> None:
    schema = attnprof.json_schema(name)
    assert schema["properties"]["schema"]["const"] == VERSIONS[name]
    assert schema["$id"] == f"urn:attnprof:{name}:{VERSIONS[name]}"


def form(schema: Any) -> Any:
    """A schema without its words."""
    if isinstance(schema, dict):
        return {
            key: form(value) for key, value in schema.items() if not isinstance(value, str) or key in ("$ref", "type")
        }
    return [form(value) for value in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("name", NAMES)
def test_another_form_is_another_version(name: str) -> None:
    """``UPDATE_GOLDEN=1`` notes the form of a version that is new, and never changes that of one that is noted.

    Where this fails, a field changed: raise the number of the version (``SCHEMA``) with it.
    """
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    digest = hashlib.sha256(json.dumps(form(attnprof.json_schema(name)), sort_keys=True).encode()).hexdigest()
    versions = known.setdefault(name, {})
    if os.environ.get("UPDATE_GOLDEN") and str(VERSIONS[name]) not in versions:
        versions[str(VERSIONS[name])] = digest
        KNOWN.write_text(json.dumps(known, indent=1) + "\n")
    assert versions.get(str(VERSIONS[name])) == digest


def test_a_changed_field_is_seen() -> None:
    schema = attnprof.json_schema("report")
    renamed = json.loads(json.dumps(schema).replace('"op_calls"', '"calls_of_ops"'))
    worded = json.loads(json.dumps(schema).replace("Everything that ran.", "All that ran."))
    assert form(renamed) != form(schema)
    assert worded != schema
    assert form(worded) == form(schema)


def test_every_field_says_what_it_is() -> None:
    for name in NAMES:
        schema = attnprof.json_schema(name)
        parts = [schema, *schema["$defs"].values()]
        fields = [(f, s) for part in parts for f, s in part.get("properties", {}).items()]
        by_phase = tuple(f"{phase}_" for phase in attnprof.json_schema()["properties"]["phases"]["properties"])
        assert [f for f, s in fields if not s.get("description") and not f.startswith(by_phase)] in ([], ["declared"])


def test_a_schema_that_is_not_there() -> None:
    with pytest.raises(
        AttnprofError, match=r'no schema "reprot": it is one of run, report, sweep, .*\. Did you mean report\?'
    ):
        attnprof.json_schema("reprot")


def test_schemas_need_no_torch() -> None:
    code = "import sys, attnprof; attnprof.json_schema('run'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
