"""Kernels that read slots, once for floats and once for int8.

Numbers of a key become those of a product by its scale once they are multiplied: whole numbers to
127 are exact in float16. Those of a value are rounded to float16 first.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.interface.tensors import SLOT_KEY, SLOT_KEY_SCALE, SLOT_VALUE, SLOT_VALUE_SCALE
from tightrope.plugins.kernels.source import KernelSource

_SCALES = {SLOT_KEY: SLOT_KEY_SCALE, SLOT_VALUE: SLOT_VALUE_SCALE}
NO_SCALES = dict.fromkeys(_SCALES.values())
"""Of a kernel whose slots hold floats."""


def for_int8(source: KernelSource, name: str) -> KernelSource:
    """The kernel for slots in int8, called `name`; scales are its last arguments."""
    signature = {key: "*i8" if key in _SCALES else kind for key, kind in source.signature.items()}
    scales = {_SCALES[key]: "*fp32" for key in signature if key in _SCALES}
    constants = {key: size for key, size in source.constants.items() if key not in scales}
    return replace(source, name=name, signature={**signature, **scales}, constants=constants)
