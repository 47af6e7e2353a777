"""Model families: what tracing must know that Hugging Face's classes do not say themselves.

One family, one small adapter: text models need none beyond their entry here, vision models a
file that says how their tower is traced and how the host prepares its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.families import llava
from tightrope.export.families.vision import VisionAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A group of checkpoints that are exported the same way."""

    name: str
    model_type: str
    """`model_type` in the checkpoint's config.json."""
    vision: VisionAdapter | None = None


FAMILIES = {
    family.model_type: family
    for family in (
        Family(name="llama", model_type="llama"),
        Family(name="qwen2", model_type="qwen2"),
        Family(name="llava", model_type="llava", vision=llava.ADAPTER),
    )
}


def family_called(model_type: object) -> Family:
    """The family of this model type; raises UnsupportedModel with those there are."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedModel(
            f"model type {model_type!r} has no exporter; there are: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def find_family(config: Any) -> Family:
    """The family of a Hugging Face config; raises UnsupportedModel where it cannot be exported."""
    family = family_called(config.model_type)
    text = config.get_text_config()
    if family.vision is not None:
        inner = FAMILIES.get(text.model_type)
        if inner is None or inner.vision is not None:
            known = ", ".join(name for name, entry in FAMILIES.items() if entry.vision is None)
            raise UnsupportedModel(
                f"the {family.name} model has a language model of type {text.model_type!r}; "
                f"exporters exist for: {known}"
            )
        family.vision.check(config)
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in _LENGTH_DEPENDENT_ROPE:
        raise UnsupportedModel(
            f"rope_type is {rope!r}: its frequencies change with the prompt's length, which a "
            "graph cannot follow; accepted: default, linear, llama3, yarn"
        )
    return family
