"""The server's own description as a page that needs no network: its OpenAPI document, written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = "body{font:16px/1.5 sans-serif;max-width:56em;margin:2em auto;padding:0 1em}code{background:#eee}td,th{text-align:left;\
padding:.2em .8em .2em 0;vertical-align:top}h2{border-top:1px solid #ccc;padding-top:1em}"


def write_manual(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as HTML: each address, what it takes, what it answers."""
    info = document["info"]
    body = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            body.append(f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>")
            rows = [*_parameters(operation), *_fields(document, operation)]
            if rows:
                body.append(f"<table><tr><th>name<th>what<th>meaning</tr>{''.join(rows)}</table>")
            answers = (f"<tr><td>{status}<td>{escape(it['description'])}</tr>" for status, it in operation["responses"].items())
            body.append(f"<table><tr><th>status<th></tr>{''.join(answers)}</table>")
    page = f"<title>{escape(info['title'])}</title><style>{STYLE}</style>{''.join(body)}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{page}</html>'


def _parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        yield _row(parameter["name"], parameter["schema"], parameter.get("required", False), parameter.get("description", ""))


def _fields(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(document, content["schema"])
        for name, field in schema.get("properties", {}).items():
            yield _row(name, field, name in schema.get("required", ()), field.get("description", ""))


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _row(name: str, schema: Mapping[str, Any], required: bool, meaning: str) -> str:
    kinds = [one.get("type", "object") for one in schema.get("anyOf", [schema])]
    what = " or ".join(str(value) for value in schema.get("enum", [kind for kind in kinds if kind != "null"]))
    default = "required" if required else f"default {schema['default']!r}" if schema.get("default") is not None else ""
    return f"<tr><td><code>{escape(name)}</code><td>{escape(what)}<br>{escape(default)}<td>{escape(meaning)}</tr>"
