"""These tests run in an environment of their own: `make test-oldest`."""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata

import pytest

pytestmark = pytest.mark.skipif(
    "TIGHTROPE_TEST_BUNDLE" not in os.environ,
    reason="needs the environment of `make test-oldest`, and its bundle in TIGHTROPE_TEST_BUNDLE",
)


def test_the_environment_is_the_one_that_it_says() -> None:
    assert metadata.version("onnxruntime").startswith("1.23.")
    assert importlib.util.find_spec("torch") is None
    assert importlib.util.find_spec("onnx") is None
