"""What schemathesis draws from the OpenAPI document, fitting and not: no answer is a 500."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")

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
