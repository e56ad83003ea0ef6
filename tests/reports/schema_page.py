"""The JSON Schemas as pages of Markdown: a table for each kind of object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def page(name: str, schema: dict[str, Any]) -> str:
    """A schema with all its parts."""
    version = schema["properties"]["schema"]["const"]
    parts = [f"## {name}", f"Version {version}. {schema['description']}", *_tables(name, schema)]
    for part, of in sorted(schema["$defs"].items()):
        parts += [f"### {name}: {part}", of["description"], *_tables(name, of)]
    return "\n\n".join(parts) + "\n"


def _tables(name: str, schema: dict[str, Any]) -> list[str]:
    rows = list(_rows(name, schema, ""))
    table = ["| field | is | |", "|---|---|---|", *(f"| `{field}` | {kind} | {text} |" for field, kind, text in rows)]
    return ["\n".join(table)] if rows else [_kind(name, schema) + "."]


def _rows(name: str, schema: dict[str, Any], before: str) -> Iterator[tuple[str, str, str]]:
    """The fields of an object, those of objects in it after them."""
    for field, of in schema.get("properties", {}).items():
        text = of.get("description", "")
        if field not in schema["required"]:
            text = f"May be left out. {text}".rstrip()
        if text.strip():
            yield f"{before}{field}", _kind(name, of), text
        inner, mark = _inner(of)
        yield from _rows(name, inner, f"{before}{field}{mark}.")
    for pattern, of in schema.get("patternProperties", {}).items():
        yield f"{before}{_readable(pattern)}", _kind(name, of), of["description"]


def _inner(schema: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The object that is in a field, and how it is reached: itself, in a list, or beside null."""
    if isinstance(schema.get("items"), dict):
        return schema["items"], "[]"
    objects = [one for one in schema.get("anyOf", ()) if "properties" in one]
    return (objects[0] if objects else schema), ""


def _readable(pattern: str) -> str:
    """``<name>_fused_s`` for ``^.+_fused_s$``."""
    text = pattern.strip("^$")
    if text.startswith("(?!"):
        text = text[text.index(")") + 1 :]
    return text.replace("(.+_)?", "[<phase>_]").replace(".+", "<name>").replace("|", "/")


def _kind(name: str, schema: dict[str, Any]) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        part = schema["$ref"].rpartition("/")[2]
        return f"[{part}](#{name}-{part})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join("null" if value is None else f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return ", or ".join(_kind(name, one) for one in schema["anyOf"])
    if "prefixItems" in schema:
        return f"[{'; '.join(_part(name, one) for one in schema['prefixItems'])}]"
    kinds = schema.get("type", "anything")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join(_plain(name, kind, schema) for kind in kinds)


def _part(name: str, schema: dict[str, Any]) -> str:
    """What stands at one place of a list."""
    text = schema.get("description", "").rstrip(".")
    return f"{text[:1].lower()}{text[1:]}: {_kind(name, schema)}" if text else _kind(name, schema)


def _several(name: str, schema: dict[str, Any]) -> str:
    kind = _kind(name, schema)
    return f"{kind}s" if kind.endswith(("number", "object")) else kind


def _plain(name: str, kind: str, schema: dict[str, Any]) -> str:
    if kind == "array":
        return f"list of {_several(name, schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_several(name, schema['additionalProperties'])}"
    if kind == "object" and len(schema.get("properties", {})) == 1:
        ((field, of),) = schema["properties"].items()
        return f"`{field}`: {_kind(name, of)}"
    return "text" if kind == "string" else "whole number" if kind == "integer" else kind
