"""The server's OpenAPI document, from the tables of fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tightrope
from tightrope.runtime.server import fields
from tightrope.runtime.server.fields import Field, Neutral

_KEYED: list[dict[str, list[str]]] = [{"key": []}, {}]
_SAID = {
    "400": "A field is wrong or unknown; `param` names it.",
    "401": "No key, or an unknown one.",
    "404": "No such model.",
    "408": "The body did not come in time.",
    "413": "The body, an image or all images are too large.",
    "415": "The body is not sent as application/json.",
    "421": "The Host header is not this machine's.",
    "422": "The budget cannot be met, however idle the machine is.",
    "429": "Too much is waiting; Retry-After says when to come again.",
    "431": "Too many headers.",
    "500": "An internal error.",
    "503": "Not ready, or the engine failed.",
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    chat = _body(fields.CHAT, fields.NEUTRAL_CHAT)
    completion = _body(fields.COMPLETION, fields.NEUTRAL_COMPLETION)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tightrope", "version": tightrope.__version__},
        "paths": {
            "/v1/chat/completions": _post("Answer a conversation.", chat, streams=True),
            "/v1/chat/completions/count": _post("Tell what an answer would take.", chat),
            "/v1/completions": _post("Go on with a text.", completion, streams=True),
            "/v1/models": _get("The bundles that answer."),
            "/v1/models/{model}": _get("One of them.", "404", parameter="model"),
            "/healthz": _get("Whether the process is alive."),
            "/readyz": _get("Whether it answers: loaded, tested, warm.", "503"),
            "/metrics": _get("Figures for Prometheus.", kind="text/plain"),
            "/openapi.json": _get("This document."),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
        "security": _KEYED,
    }


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "fastest_ms": {"type": "number"},
            },
        }
    },
}


def _body(known: Mapping[str, Field], neutral: Mapping[str, Neutral]) -> dict[str, Any]:
    ours = {name: _nullable(field.kind.schema, field.sentence) for name, field in known.items()}
    usual = {name: _usual(field) for name, field in neutral.items()}
    return {
        "type": "object",
        "required": [name for name, field in known.items() if field.required],
        "properties": ours | usual,
        "additionalProperties": False,
    }


def _nullable(schema: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    return {"description": sentence, "anyOf": [dict(schema), {"type": "null"}]}


def _usual(field: Neutral) -> dict[str, Any]:
    text = [{"type": "string"}] if field.any_text else []
    values = [{"enum": list(field.values)}] if field.values else []
    return {"description": "Changes nothing here.", "anyOf": [*text, *values, {"type": "null"}]}


def _post(summary: str, body: dict[str, Any], *, streams: bool = False) -> dict[str, Any]:
    kinds = ["application/json", *(["text/event-stream"] if streams else [])]
    refused = ["400", "401", "404", "408", "413", "415", "421", "422", "429", "431", "500", "503"]
    content = {"application/json": {"schema": body}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": _ok(kinds), **_errors(refused)},
        }
    }


def _get(
    summary: str, *errors: str, kind: str = "application/json", parameter: str | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _ok([kind]), **_errors(["401", "421", "431", *errors])},
    }
    if parameter is not None:
        schema = {"type": "string"}
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": schema}
        ]
    return {"get": operation}


def _ok(kinds: list[str]) -> dict[str, Any]:
    return {"description": "Done.", "content": {kind: {} for kind in kinds}}


def _errors(statuses: list[str]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        status: {
            "description": _SAID[status],
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }
