"""Model families: what tracing must know that Hugging Face's classes do not say themselves.

A text family is an entry here; one that sees has the torch half of its tower in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.families import gemma3, idefics, internvl, llava, llava_next, qwen_vl
from tightrope.export.families.hybrids import CONVOLUTION, refuse_hybrid
from tightrope.export.families.tower import TowerModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A group of checkpoints that are exported the same way."""

    model_type: str
    """As in the checkpoint's config.json."""
    positions: str = "ordinal"
    """How rotary positions follow from ordinals: a rule of `inputs.positions`."""
    reach: bool = False
    """Whether the tokens of an image attend to all of that image, those behind them too."""
    layers: tuple[str, ...] = ()
    """Types of layers that it has beside those that attend."""
    rope_keys: tuple[str, ...] = ()
    """What its code reads of rotary positions beside the keys of their kind."""
    tower: TowerModel | None = None
    decoder: str | None = None
    """Type of a language model that only this family has; None: it is one of the text families."""
    reference_inputs: Callable[[Any, Mapping[str, Any], Any], dict[str, Any]] | None = None
    """What Hugging Face's model is called with for ids [1,S] around one image, given the tower's
    inputs for it; None: embeddings say everything."""


FAMILIES = {
    family.model_type: family
    for family in (
        Family(model_type="llama"),
        Family(model_type="qwen2"),
        Family(model_type="qwen3"),
        Family(model_type="qwen3_moe"),
        Family(model_type="mistral"),
        Family(model_type="ministral"),
        Family(
            model_type="ministral3", rope_keys=("llama_4_scaling_beta", "max_position_embeddings")
        ),
        Family(model_type="smollm3"),
        Family(model_type="gemma2"),
        Family(model_type="gemma3_text", rope_keys=("full_attention", "sliding_attention")),
        Family(model_type="phi3", rope_keys=("partial_rotary_factor",)),
        Family(model_type="granite"),
        Family(model_type="lfm2", layers=(CONVOLUTION,)),
        Family(model_type="llava", tower=llava.MODEL),
        Family(
            model_type="gemma3",
            reach=True,
            tower=gemma3.MODEL,
            reference_inputs=gemma3.reference_inputs,
        ),
        Family(
            model_type="qwen2_5_vl",
            decoder="qwen2_5_vl_text",
            positions="mrope",
            tower=qwen_vl.MODEL,
            reference_inputs=qwen_vl.reference_inputs,
        ),
        Family(
            model_type="qwen3_vl",
            decoder="qwen3_vl_text",
            positions="mrope",
            tower=qwen_vl.MODEL,
            reference_inputs=qwen_vl.reference_inputs,
        ),
        Family(model_type="llava_next", tower=llava_next.MODEL),
        Family(model_type="llava_onevision", tower=llava_next.MODEL),
        Family(model_type="idefics3", tower=idefics.MODEL),
        Family(model_type="smolvlm", tower=idefics.MODEL),
        Family(model_type="internvl", tower=internvl.MODEL),
    )
}


def family_called(model_type: object) -> Family:
    """The family of this model type; raises UnsupportedModel with those there are."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        refuse_hybrid(model_type)
        raise UnsupportedModel(
            f"model type {model_type!r} has no exporter; there are: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def find_family(config: Any) -> Family:
    """The family of a Hugging Face config; raises UnsupportedModel where it cannot be exported."""
    family = family_called(config.model_type)
    text = config.get_text_config()
    if family.tower is not None:
        inner = FAMILIES.get(text.model_type)
        fits = inner is not None and inner.tower is None
        known = [name for name, entry in FAMILIES.items() if entry.tower is None]
        if family.decoder is not None:
            fits, known = family.decoder == text.model_type, [family.decoder]
        if not fits:
            refuse_hybrid(text.model_type)
            raise UnsupportedModel(
                f"the {family.model_type} model has a language model of type "
                f"{text.model_type!r}; exporters exist for: {', '.join(known)}"
            )
        family.tower.check(config)
    return family
