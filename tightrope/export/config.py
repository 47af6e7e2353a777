"""What an export is asked for, and what it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tightrope.errors import InputError

PRECISIONS = ("fp32", "fp16", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Choices that are fixed in a bundle; everything else is chosen per request."""

    precision: str = "fp16"
    """How weights are stored: fp32, fp16, or int4 (decoder matrices; the rest fp16)."""
    slots: int = 2048
    """Cache slots per layer and KV head at most."""
    prefill_chunk: int | None = None
    """Tokens of one prefill call at most; None: 512, more where an image needs it."""
    selectors: tuple[str, ...] | None = None
    """Visual-token selectors before the language model; None: all that the tower can feed."""
    schedules: tuple[str, ...] = ()
    """Selection inside the language model, such as fastv; each adds a prefill graph."""
    resolutions: tuple[int, ...] | None = None
    """Image sides in pixels; None: the one that the tower was trained at."""
    block_size: int = 32
    """Weights that share one int4 scale."""
    seed: int = 0
    """Seed of the parity check's prompts."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; accepted: {', '.join(PRECISIONS)}")
        _check_whole("slots", self.slots, least=32)
        if self.prefill_chunk is not None:
            _check_whole("prefill_chunk", self.prefill_chunk, least=16)
        if self.block_size not in (32, 128) or not isinstance(self.block_size, int):
            raise InputError(f"block_size is {self.block_size!r}; accepted: 32 or 128")
        _check_whole("seed", self.seed, least=0)
        for name in ("selectors", "schedules", "resolutions"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) and (
                values is not None or name == "schedules"
            ):
                raise InputError(f"{name} is {values!r}; accepted: a tuple")
        for resolution in self.resolutions or ():
            _check_whole("resolution", resolution, least=1)


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; accepted: a whole number, {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What one export wrote and how close it is to the model that it came from."""

    bundle: str
    family: str
    precision: str
    slots: int
    prefill_chunk: int
    selectors: tuple[str, ...]
    schedules: tuple[str, ...]
    files: int
    total_bytes: int
    seconds: float
    parity: dict[str, Any]
    notes: tuple[str, ...] = field(default=())

    def rows(self) -> list[tuple[str, str]]:
        """Name and text of each line of the summary table."""
        parity = [
            (f"parity: {name}", f"{value:.2e}" if isinstance(value, float) else str(value))
            for name, value in self.parity.items()
        ]
        return [
            ("bundle", self.bundle),
            ("family", self.family),
            ("precision", self.precision),
            ("files", f"{self.files}, {self.total_bytes / 1e6:.1f} MB"),
            ("slots", f"{self.slots}, prefill in chunks of {self.prefill_chunk}"),
            ("selectors", ", ".join(self.selectors) or "none: a text model"),
            ("schedules", ", ".join(self.schedules) or "none"),
            *parity,
            *(("note", note) for note in self.notes),
            ("took", f"{self.seconds:.1f} s"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-ready values."""
        return asdict(self)
