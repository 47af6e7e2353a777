"""Checkpoints that are published in codes: one method, one file, one entry in the table."""

from __future__ import annotations

from typing import Any

from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.quantised import awq, compressed_tensors, gptq
from tightrope.export.quantised.method import Method, Read

METHODS = {method.name: method for method in (awq.METHOD, gptq.METHOD, compressed_tensors.METHOD)}


def find_method(config: Any) -> tuple[Method, Read]:
    """The method of a `quantization_config`, and how it reads a matrix.

    Raises UnsupportedModel where the method, or what the config says of it, is not known.
    """
    name = config.get("quant_method") if isinstance(config, dict) else config
    if not isinstance(name, str) or name not in METHODS:
        called = name if isinstance(name, str) else shown(name) if name else "an unnamed method"
        raise UnsupportedModel(
            f"the checkpoint is quantised by {called} (quantization_config), which is not read "
            f"here; read are {', '.join(METHODS)}: take one of these, or what it was made from"
        )
    return METHODS[name], METHODS[name].reader(config)
