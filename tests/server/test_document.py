"""The OpenAPI document, and what schemathesis tries with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from stapes.server.document import document, form_schema
from stapes.server.fields import FIELDS, OPTIONS
from tests.random_cases import cases
from tests.server.running import Running, running

SCHEMA = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as one:
        yield one


@SCHEMA.parametrize()
@settings(max_examples=cases(15, 300), deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_document_allows_and_what_it_does_not_gets_a_documented_answer(case: Any, server: Running) -> None:
    found = case.call(base_url=server.url)
    assert found.status_code < 500, found.text
    assert str(found.status_code) in document()["paths"].get(case.operation.path, {}).get(
        case.operation.method, {}
    ).get("responses", {}), found.status_code
    if found.status_code >= 400:
        assert set(found.json()["error"]) == {"message", "type", "param", "code"}


def test_the_document_is_served_and_has_every_field(server: Running) -> None:
    found = httpx.get(f"{server.url}/openapi.json").json()
    assert found == json.loads(json.dumps(document()))
    assert form_schema("transcriptions")["properties"].keys() == FIELDS.keys() | OPTIONS.keys()
    assert "stream" not in form_schema("translations")["properties"]
