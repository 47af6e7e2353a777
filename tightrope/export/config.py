"""What an export is asked for, and what it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tightrope.bundle import Parity, TowerInt8, WeightGroup
from tightrope.checks import check_number, check_one_of, check_type, check_whole
from tightrope.configs import setting
from tightrope.errors import InputError
from tightrope.interface.tensors import FLOAT_SLOTS, INT8_SLOTS, KV_CACHES
from tightrope.schemas import versioned


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are stored and computed with."""

    storage: str
    """Element type of weights and embeddings, decoder matrices of an int4 export apart."""
    quantized: bool = False
    """Whether the decoder's matrices are int4."""

    @property
    def activations(self) -> str:
        """Element type in which standard graphs compute."""
        return self.storage


PRECISIONS = {
    "fp32": Precision("float32"),
    "fp16": Precision("float16"),
    "int4": Precision("float16", quantized=True),
}
TOWER_PRECISIONS = ("auto", "fp32", "int8")
PREFILL_PRECISIONS = ("int4", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Choices that are fixed in a bundle; everything else is chosen per request."""

    precision: str = setting("fp16", "How weights are stored: fp32, fp16, or int4.")
    """int4 is of the decoder's matrices; the rest is then fp16."""
    slots: int = setting(2048, "Cache slots per layer and KV head at most.")
    kv_cache: str = setting(
        FLOAT_SLOTS, "What slots hold keys and values in: float, or int8 with a scale each."
    )
    """int8 needs what kernels take: a precision that computes in float16, and their sizes."""
    prefill_chunk: int | None = setting(None, "Tokens of one prefill call at most.")
    """None: 512, more where an image needs it."""
    selectors: tuple[str, ...] | None = setting(
        None, "Visual-token selector before the language model; left out: all that the tower feeds."
    )
    schedules: tuple[str, ...] = setting((), "Selection inside the language model, such as fastv.")
    """Each adds a prefill graph."""
    resolutions: tuple[int, ...] | None = setting(None, "Side of the image in pixels.")
    """None: the one that the tower was trained at."""
    tower_precision: str = setting(
        "fp32", "How a tower multiplies on a CPU: fp32, int8, or auto: int8 where its gate lets it."
    )
    """int8 is refused where processor or gate speak against it; auto then takes fp32."""
    prefill_precision: str = setting(
        "int4", "How an int4 export's prompts multiply on a CPU: int4, or int8 where it has AMX."
    )
    """int8 adds matrices of a byte a weight; they are refused where logits differ too much."""
    block_size: int = setting(64, "Weights that share one int4 scale: 32, 64 or 128.")
    """A matrix whose inputs are no whole blocks has smaller ones."""
    symmetric: bool = setting(False, "int4 levels around zero.")
    """Left out: from the least weight of a block to the largest, with a zero point."""
    head_bits: int = setting(4, "Bits of the language model's head in an int4 export: 4 or 8.")
    bits: float | None = setting(
        None, "Bits a weight of an int4 export: matrices that cost most have 8 until then."
    )
    """On average, scales and zero points included. None: all but the head have four."""
    template: str | None = setting(None, "Which of several chat templates; else the default.")
    seed: int = setting(0, "Seed of the parity check.")

    def __post_init__(self) -> None:
        check_one_of("precision", self.precision, PRECISIONS)
        check_one_of("tower_precision", self.tower_precision, TOWER_PRECISIONS)
        check_one_of("prefill_precision", self.prefill_precision, PREFILL_PRECISIONS)
        if self.prefill_precision == "int8" and self.precision != "int4":
            raise InputError(
                f"prefill_precision is int8, but precision is {self.precision}: it is for matrices "
                "in int4; accepted: precision int4"
            )
        check_whole("slots", self.slots, least=32)
        check_one_of("kv_cache", self.kv_cache, KV_CACHES)
        halves = [name for name, each in PRECISIONS.items() if each.activations == "float16"]
        if self.kv_cache == INT8_SLOTS and self.precision not in halves:
            raise InputError(
                f"kv_cache is {self.kv_cache} and precision {self.precision}; accepted with it: "
                f"{', '.join(halves)}, because kernels read such slots in float16"
            )
        if self.prefill_chunk is not None:
            check_whole("prefill_chunk", self.prefill_chunk, least=16)
        check_one_of("block_size", self.block_size, (32, 64, 128))
        check_one_of("head_bits", self.head_bits, (4, 8))
        check_type("symmetric", self.symmetric, bool, "True or False")
        if self.bits is not None:
            check_number("bits", self.bits, least=4, most=9)
        check_whole("seed", self.seed, least=0)
        if self.template is not None:
            check_type("template", self.template, str, "the name of a chat template")
        for name in ("selectors", "schedules", "resolutions"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) and (
                values is not None or name == "schedules"
            ):
                raise InputError(f"{name} is {values!r}; accepted: a tuple")
        for resolution in self.resolutions or ():
            check_whole("resolution", resolution, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What one export wrote and how close it is to the model that it came from."""

    bundle: str
    family: str
    precision: str
    slots: int
    kv_cache: str
    prefill_chunk: int
    selectors: tuple[str, ...]
    schedules: tuple[str, ...]
    files: int
    total_bytes: int
    seconds: float
    parity: Parity | None
    tower_int8: TowerInt8 | None = None
    weights: dict[str, WeightGroup] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-ready values."""
        return versioned("export", asdict(self))
