"""Names of a bundle's graphs: made and read here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Variant = Literal["host", "int8", "standard", "plugins"]
"""For ONNX Runtime, the same with prompts in int8, for TensorRT, the same with own ops."""
Role = Literal["vision", "select", "decoder", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class GraphName:
    """host.decoder, standard.prefill-fastv: for whom, what it does, and by which method."""

    variant: Variant
    role: Role
    method: str = ""
    """A selector of role select, a schedule of the decoder's roles."""

    def __str__(self) -> str:
        tail = f"-{self.method}" if self.method else ""
        return f"{self.variant}.{self.role}{tail}"

    @property
    def file(self) -> str:
        """Its path in a bundle."""
        return f"graphs/{self}.onnx"

    @classmethod
    def parse(cls, text: str) -> GraphName:
        """The name that `str` wrote, with or without folder and ending; ValueError for others."""
        variant, _, rest = text.removeprefix("graphs/").removesuffix(".onnx").partition(".")
        role, dash, method = rest.partition("-")
        known = variant in get_args(Variant) and role in get_args(Role)
        if not known or bool(dash) != bool(method):
            raise ValueError(f"{text!r} is no graph's name")
        return cls(variant, role, method)  # type: ignore[arg-type]  # checked above
