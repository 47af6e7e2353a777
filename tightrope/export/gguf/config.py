"""The metadata of a GGUF file as the fields of a Hugging Face config."""

from __future__ import annotations

import math
from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, Harmless
from tightrope.export.gguf.architectures import Architecture
from tightrope.export.gguf.file import GgufFile

HARMLESS = (
    Harmless(r"general\..*", "general.* describes the file"),
    Harmless(r"split\..*", "split.* is what the parts are joined by"),
    Harmless(r"quantize\..*|imatrix\..*", "quantize.* says how the file was quantised"),
    Harmless(r"training\..*", "training.* says how the model was trained"),
    Harmless(r".*\.tensor_data_layout", "tensor_data_layout names the layout all files have"),
    Harmless(r".*\.rope\.scaling\.finetuned", "rope.scaling.finetuned is a remark"),
    Harmless(r"tokenizer\.huggingface\.json", "the same tokenizer again, which llama.cpp skips"),
    Harmless(
        r"tokenizer\.ggml\.(token_type_count|mask_token_id|seperator_token_id|cls_token_id)",
        "tokens of BERT alone",
    ),
    Harmless(
        r"tokenizer\.ggml\.(fim_(pre|suf|mid)|prefix|suffix|middle)_token_id",
        "tokens for filling gaps, which no prompt here is made of",
    ),
    Harmless(r"tokenizer\.ggml\.remove_extra_whitespaces", "of the tokenizer model t5 alone"),
)
"""Keys of metadata that change nothing of the model or its tokens."""
WAY_OUT = "export the model's Hugging Face folder, or convert it again"


def fields_of(file: GgufFile, architecture: Architecture, account: Account) -> dict[str, Any]:
    """Arguments of the Hugging Face config; takes their keys from `account`.

    Raises UnsupportedModel for what is missing, contradictory, or cannot be stated there.
    """
    keys = _Keys(file, account)
    _refuse_experts(keys)
    heads = keys.whole("attention.head_count")
    hidden = keys.whole("embedding_length")
    head_dim = keys.whole("attention.key_length", hidden // heads)
    context = keys.whole("context_length")
    for name in ("attention.value_length", "rope.dimension_count"):
        if (value := keys.whole(name, head_dim)) != head_dim:
            raise keys.wrong(name, value, f"{head_dim}, the length of a head's keys")
    if (causal := keys.take("attention.causal", True)) is not True:
        raise keys.wrong("attention.causal", causal, "true: it is no model that generates")
    fields = {
        "hidden_size": hidden,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": context,
        "rope_parameters": _rope(keys, context),
        "vocab_size": _vocabulary(keys, file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        # Ends and paddings are the tokenizer's; the classes' defaults name nothing.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    fields |= _windows(keys, architecture, fields)
    for field, names in architecture.optional_biases.items():
        if field:
            fields[field] = any(f"blk.0.{name}.bias" in file.tensors for name in names)
    return fields


class _Keys:
    """Keys of the file's architecture, by their names without it."""

    def __init__(self, file: GgufFile, account: Account) -> None:
        self._path = file.path
        self._architecture = file.architecture
        self._account = account

    def take(self, name: str, default: Any = None) -> Any:
        return self._account.take(f"{self._architecture}.{name}", default)

    def whole(self, name: str, default: int | None = None) -> int:
        """A count of one or more; a list of equal ones, one for each layer, is that count."""
        value = self.take(name, default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise self.wrong(name, value[:8], "the same in every layer")
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise self.wrong(name, value, "a whole number, 1 or more")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, value, "a number")
        if not math.isfinite(value):
            raise self.wrong(name, value, "a finite number")
        return float(value)

    def wrong(self, name: str, value: object, accepted: str) -> UnsupportedModel:
        said = "is missing" if value is None else f"is {value!r}"
        return UnsupportedModel(
            f"{self._path}: {self._architecture}.{name} {said}; accepted: {accepted}; {WAY_OUT}"
        )


def _refuse_experts(keys: _Keys) -> None:
    experts = keys.take("expert_count", 0)
    used = keys.take("expert_used_count", 0)
    if experts or used:
        raise keys.wrong("expert_count", experts, "0: mixtures of experts are not exported")


def _vocabulary(keys: _Keys, file: GgufFile) -> int:
    """Rows of the embeddings, which may be more than there are tokens."""
    if "token_embd.weight" not in file.tensors:
        raise UnsupportedModel(f"{file.path} has no tensor token_embd.weight; {WAY_OUT}")
    rows = int(file.tensors["token_embd.weight"].shape[-1])
    if (told := keys.whole("vocab_size", rows)) != rows:
        raise keys.wrong("vocab_size", told, f"{rows}, the rows of token_embd.weight")
    return rows


def _rope(keys: _Keys, context: int) -> dict[str, Any]:
    """Rotary positions as llama.cpp scales them, in Hugging Face's words."""
    theta = keys.number("rope.freq_base", 10000.0)
    kind = keys.take("rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)) or 1.0
    original = keys.whole("rope.scaling.original_context_length", context)
    scale = keys.number("rope.scaling.attn_factor", 1.0)
    yarn = {
        name: keys.number(f"rope.scaling.yarn_{name}", default)
        for name, default in (
            ("ext_factor", -1.0),
            ("attn_factor", -1.0),
            ("beta_fast", 32.0),
            ("beta_slow", 1.0),
            ("log_multiplier", 0.0),
        )
    }
    if kind not in ("none", "linear", "yarn"):
        raise keys.wrong("rope.scaling.type", kind, "none, linear, yarn")
    if theta <= 0 or factor <= 0:
        raise keys.wrong("rope.scaling.factor", factor, "more than 0")
    usual = float(kind == "yarn")
    if yarn["ext_factor"] not in (-1.0, usual):
        raise keys.wrong("rope.scaling.yarn_ext_factor", yarn["ext_factor"], f"{usual}")
    if kind == "yarn":
        # The converter writes the checkpoint's attention_factor and bounds, which llama.cpp then
        # passes over for these architectures: the checkpoint is right.
        length = yarn["attn_factor"]
        if length == -1.0:
            length = scale * _magnitude(factor) / _magnitude(factor, yarn["log_multiplier"])
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": yarn["beta_fast"],
            "beta_slow": yarn["beta_slow"],
            "attention_factor": length,
        }
    for name, value in (("attn_factor", scale), ("yarn_attn_factor", yarn["attn_factor"])):
        if value not in (-1.0, 1.0):
            raise keys.wrong(f"rope.scaling.{name}", value, "1.0, but for the type yarn")
    if kind == "none" or factor == 1.0:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def _magnitude(factor: float, weight: float = 1.0) -> float:
    """By how much yarn lengthens queries and keys: 0.1 ln(factor) + 1, arXiv:2309.00071."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _windows(keys: _Keys, architecture: Architecture, fields: dict[str, Any]) -> dict[str, Any]:
    window = keys.take("attention.sliding_window")
    pattern = keys.take("attention.sliding_window_pattern")
    if not window or window >= fields["max_position_embeddings"]:
        return {}
    if not architecture.windows:
        raise keys.wrong("attention.sliding_window", window, "no window: this model has none")
    layers = fields["num_hidden_layers"]
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        # Every layer but each PATTERN-th sees the window only.
        pattern = [(layer + 1) % pattern != 0 for layer in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise keys.wrong(
            "attention.sliding_window_pattern", pattern, f"which of the {layers} layers see it"
        )
    kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    return {"use_sliding_window": True, "sliding_window": int(window), "layer_types": kinds}
