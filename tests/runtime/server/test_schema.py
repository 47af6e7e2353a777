"""What schemathesis draws from the OpenAPI document, fitting and not: no answer is a 500."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")
jsonschema_rs = pytest.importorskip("jsonschema_rs")

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA"
    "60e6kgAAAABJRU5ErkJggg=="
)
OPERATIONS = (
    ("/v1/chat/completions", "POST"),
    ("/v1/chat/completions/count", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
)
CASES = [(*operation, True) for operation in OPERATIONS]
CASES += [(path, method, False) for path, method in OPERATIONS if method == "POST"]
"""Whether what is drawn fits the document: of what has no body nothing can be unlike it."""
EXAMPLES = {"POST": 25, "GET": 3}


@pytest.fixture(scope="module")
def small(serve: Any) -> Any:
    """A server whose answers are short: what is drawn may ask for thousands of tokens."""
    with serve(max_tokens=4, max_answers=2) as client:
        yield client


@pytest.fixture(scope="module")
def schema(small: Any) -> Any:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{small.port}/openapi.json")


def test_every_operation_of_the_document_is_tried(schema: Any) -> None:
    found = [result.ok() for result in schema.get_all_operations()]
    assert {(one.path, one.method.upper()) for one in found} == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method", "fitting"), CASES)
def test_nothing_that_is_drawn_is_an_internal_error(
    schema: Any, path: str, method: str, fitting: bool
) -> None:
    modes = schemathesis.GenerationMode
    mode = modes.POSITIVE if fitting else modes.NEGATIVE
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES[method],
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def tried(case: Any) -> None:
        response = case.call(timeout=60)
        statuses.add(response.status_code)
        assert response.status_code in (200, 400, 401, 404, 405, 413, 415, 422), response.text

    tried()
    assert statuses


TEXT = {"type": "text", "text": "?"}
IMAGE = {"type": "image_url", "image_url": {"url": PICTURE}}
FITTING: list[dict[str, Any]] = [
    {"role": "user", "content": "?"},
    {"role": "user", "content": [TEXT, IMAGE]},
    {"role": "user", "content": [{**TEXT, "image_url": None}], "name": "me", "tool_calls": None},
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": PICTURE, "detail": "auto"}}],
    },
    {"role": "system", "content": [TEXT]},
    {"role": "assistant", "content": "!", "annotations": [], "refusal": None, "audio": None},
    {"role": "assistant", "refusal": "no"},
    {"role": "assistant", "content": None, "reasoning": "well"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "content": "22 degrees", "tool_call_id": "1"},
]
UNFITTING: list[dict[str, Any]] = [
    {"content": "?"},
    {"role": "user"},
    {"role": "user", "content": None},
    {"role": "user", "content": 5},
    {"role": "user", "content": {"type": "text", "text": "?"}},
    {"role": "user", "content": ["?"]},
    {"role": "user", "content": [{"type": "text"}]},
    {"role": "user", "content": [{"type": "text", "text": 5}]},
    {"role": "user", "content": [{**TEXT, "more": 1}]},
    {"role": "user", "content": [{"type": "image"}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": PICTURE}]},
    {"role": "user", "content": [{**IMAGE, "detail": "auto"}]},
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}],
    },
    {"role": "user", "content": "?", "name": 5},
    {"role": "user", "content": "?", "reasoning": ["?"]},
    {"role": "user", "content": "?", "tool_calls": {}},
    {"role": "user", "content": "?", "template": "{{ 1 }}"},
    {"role": "system", "content": [IMAGE]},
    {"role": "assistant", "content": None},
    {"role": "assistant", "refusal": ""},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "robot", "content": "?"},
]


@pytest.mark.parametrize("fitting", [True, False])
def test_the_document_says_of_messages_what_the_server_takes(small: Any, fitting: bool) -> None:
    document = small.get("/openapi.json").json
    path = document["paths"]["/v1/chat/completions/count"]["post"]
    schema = path["requestBody"]["content"]["application/json"]["schema"]
    for message in FITTING if fitting else UNFITTING:
        body = {"model": "llava", "messages": [{"role": "user", "content": "hm"}, message]}
        reply = small.post("/v1/chat/completions/count", body)
        assert (reply.status == 200) == fitting, (message, reply.content)
        assert jsonschema_rs.is_valid(schema, body) == fitting, message
