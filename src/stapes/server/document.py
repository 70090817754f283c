"""The OpenAPI document: made from the structures of answers, the fields of forms, and the options. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from stapes.options import option_fields
from stapes.options.texts import choices_of
from stapes.server import schema
from stapes.server.answers import CONTENT_TYPES
from stapes.server.events import HEADERS
from stapes.server.fields import FIELDS, MAX_TEXT_BYTES, OPTIONS, Endpoint

_ERRORS: Final[Mapping[int, str]] = {
    400: "The request cannot be: the error's param names the field.",
    401: "A key is needed, or is not known.",
    403: "Not allowed for this page, name or key.",
    404: "There is no such path, model or job.",
    405: "The path has other methods.",
    409: "The job has no result, or the idempotency key was used for another request.",
    408: "The body came too slowly.",
    413: "The body, or its audio, is too long.",
    429: "The server is busy, or a limit of the key is reached; Retry-After says when to try again.",
    500: "A fault of the server.",
    503: "The server cannot work at present.",
    504: "The request took too long.",
}
_ANSWERS: Final = (
    schema.Error, schema.Transcription, schema.VerboseTranscription, schema.Delta, schema.Done, schema.Model,
    schema.ModelList, schema.Job, schema.JobList,
)  # fmt: skip
_JSON: Final = "application/json"
_EVENTS: Final = HEADERS["content-type"].partition(";")[0]


@cache
def document() -> dict[str, Any]:
    """Return the document, as plain values."""
    _, components = msgspec.json.schema_components(_ANSWERS, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stapes",
            "version": version("stapes"),
            "description": "OpenAI's audio API on this machine.",
        },
        "paths": {
            "/v1/audio/transcriptions": {"post": _audio("transcriptions", "A recording's text.")},
            "/v1/audio/translations": {"post": _audio("translations", "A recording's text in English.")},
            "/v1/models": {"get": _get("The models that requests can name.", schema.ModelList)},
            "/v1/models/{name}": {
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
                "get": _get("One of them.", schema.Model),
            },
            **_jobs(),
            "/health/live": {"get": _plain("Whether the process lives.")},
            "/health/ready": {"get": _plain("Whether its steps keep up.")},
            "/metrics": {"get": _plain("Counts and times for Prometheus.", "text/plain")},
            "/openapi.json": {"get": _plain("This document.")},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _jobs() -> dict[str, Any]:
    """Return the paths of jobs."""
    form = {"multipart/form-data": {"schema": form_schema("transcriptions")}}
    made = _get("The job: 202, or 200 for one that this Idempotency-Key has made already.", schema.Job)
    made["responses"]["202"] = made["responses"]["200"]
    one = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]

    def query(name: str, kind: str) -> list[dict[str, Any]]:
        return [{"name": name, "in": "query", "schema": {"type": kind}}]

    listed = _get("Jobs of this key, the newest first.", schema.JobList)
    shown = _get("One job; wait=SECONDS holds the answer until its state changes.", schema.Job)
    events = _plain("Its events, as they come; Last-Event-ID goes on after one.", _EVENTS)
    result = _audio_answers("Its text.", None)
    result["parameters"] = query("response_format", "string")
    return {
        "/v1/jobs": {
            "get": listed | {"parameters": query("limit", "number") + query("before", "number")},
            "post": made | {"requestBody": {"required": True, "content": form}},
        },
        "/v1/jobs/{id}": {"parameters": one, "get": shown | {"parameters": query("wait", "number")}},
        "/v1/jobs/{id}/events": {"parameters": one, "get": events},
        "/v1/jobs/{id}/result": {"parameters": one, "get": result},
        "/v1/jobs/{id}/cancel": {"parameters": one, "post": _get("The job, ended.", schema.Job)},
    }


def _audio(endpoint: Endpoint, text: str) -> dict[str, Any]:
    """Return the operation of an endpoint: its form, and its answers."""
    return {
        "operationId": endpoint,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form_schema(endpoint)}}},
        **_audio_answers(text, _EVENTS if endpoint == "transcriptions" else None),
    }


def _audio_answers(text: str, streamed: str | None) -> dict[str, Any]:
    answers: dict[str, Any] = {
        _JSON: {"schema": {"anyOf": [_reference(schema.Transcription), _reference(schema.VerboseTranscription)]}}
    }
    for content_type in (*CONTENT_TYPES.values(), streamed):
        if content_type is not None:
            answers.setdefault(content_type.partition(";")[0], {"schema": {"type": "string"}})
    return {"summary": text, "responses": {"200": {"description": "The text.", "content": answers}} | _errors()}


def form_schema(endpoint: Endpoint) -> dict[str, Any]:
    """Return the schema of an endpoint's form: OpenAI's fields and our options."""
    properties: dict[str, Any] = {
        name: {**field.schema, "description": field.text}
        for name, field in FIELDS.items()
        if endpoint in field.endpoints
    }
    for _, item in option_fields():
        if item.name in OPTIONS and not (item.name == "task" and endpoint == "translations"):
            properties[item.name] = _option(OPTIONS[item.name], item.metadata["help"])
    return {
        "type": "object",
        "required": ["file", "model"],
        "properties": properties,
        "additionalProperties": False,
    }


def _option(kind: object, text: str) -> dict[str, Any]:
    """Return the schema of one of our options, as the text that a form has of it."""
    if choices := choices_of(kind):
        return {"type": "string", "enum": list(choices), "description": text}
    if kind is bool:
        return {"type": "boolean", "description": text}
    return {"type": "string", "maxLength": MAX_TEXT_BYTES, "description": text}


def _get(text: str, answer: type[msgspec.Struct]) -> dict[str, Any]:
    ok = {"description": text, "content": {_JSON: {"schema": _reference(answer)}}}
    return {"summary": text, "responses": {"200": ok} | _errors()}


def _plain(text: str, content_type: str = _JSON) -> dict[str, Any]:
    ok = {"description": text, "content": {content_type: {"schema": {}}}}
    return {"summary": text, "responses": {"200": ok} | _errors()}


def _errors() -> dict[str, Any]:
    content = {_JSON: {"schema": _reference(schema.Error)}}
    return {str(status): {"description": text, "content": content} for status, text in _ERRORS.items()}


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}
