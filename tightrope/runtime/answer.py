"""What a request gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tightrope.jetson.spent import Spent
from tightrope.latency import Prediction, Stages
from tightrope.point import OperatingPoint
from tightrope.runtime.plan import Plan
from tightrope.schemas import versioned

FinishReason = Literal["stop", "length", "deadline", "cancelled"]
"""stop: an end token or a stop string; length: max_tokens, or the slots are full; deadline: it was
cut short, in its thought or after it, to be there in time; cancelled: somebody asked, or nobody
listens any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and slots of one request."""

    prompt_tokens: int
    """Of the whole prompt, its images unpruned."""
    cached_tokens: int
    """Of these, already in slots: of the conversation's earlier turns, or kept of other requests
    that began alike. `prompt_tokens_details.cached_tokens` in OpenAI's usage."""
    visual_tokens: int
    """Of the images of this request, before selection."""
    visual_tokens_kept: int
    """What the last decoder layer saw of them."""
    completion_tokens: int
    """Of all samples, thoughts and what was injected included."""
    thinking_tokens: int
    """Of these, inside thoughts."""
    injected_tokens: int
    """Of these, forced by a control and not generated, such as what closes a thought."""
    occupied_slots: int
    """Per KV head, in the layer that holds most."""
    slot_bytes: int
    """Keys and values allocated at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds of each stage."""

    queue_ms: float = 0.0
    """Waiting for the device, behind other requests."""
    image_ms: float = 0.0
    """Decoding and preprocessing images."""
    image_decode_ms: float = 0.0
    """Of these, decoding and hashing."""
    preprocess_ms: float = 0.0
    """Of these, scaling and normalising."""
    vision_ms: float = 0.0
    select_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    """From the first token to the last."""
    ttft_ms: float = 0.0
    """From the request to its first token."""
    total_ms: float = 0.0

    def stages(self, waited_ms: float = 0.0) -> Stages:
        """The same as parts that add up; waited_ms: to the first token, for other requests."""
        parts = {
            "image_decode_ms": self.image_decode_ms,
            "preprocess_ms": self.preprocess_ms,
            "vision_ms": self.vision_ms,
            "select_ms": self.select_ms,
            "prefill_ms": self.prefill_ms,
        }
        host = self.ttft_ms - waited_ms - sum(parts.values())
        return Stages(**parts, host_ms=max(0.0, host), decode_ms=self.decode_ms)


@dataclass(frozen=True, slots=True)
class Stop:
    """What the model wrote that ended its answer: an end token, or a stop string."""

    text: str
    token_id: int | None = None
    """Of the end token; None for a stop string."""


@dataclass(frozen=True, slots=True)
class Likely:
    """A token and the natural logarithm of its probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob(Likely):
    """The token that was taken."""

    top: tuple[Likely, ...] = ()
    """The likeliest ones there, likeliest first; it may be none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One of several answers to one prompt."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop: Stop | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of its tokens, if they were asked for; of an answer kept on the way to a deadline there are
    none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished request: text, and what it took."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    point: OperatingPoint
    """What was spent, every "None" of the request resolved."""
    backend: str
    stop: Stop | None = None
    """What ended it; None unless finish_reason is "stop"."""
    plan: Plan | None = None
    """What its budget led to; None for a request without one."""
    prediction: Prediction | None = None
    """What it was expected to take with the device to itself, whole as `max_tokens` allows.

    None where nothing was measured on this machine or no budget was asked for yet, and for turns of
    a conversation."""
    deadline_met: bool | None = None
    """Whether it was complete in time: it ended with "stop", or at the caller's own max_tokens.

    None where the budget has no limit of time."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """As those of a sample."""
    samples: tuple[Sample, ...] | None = None
    """All answers, where more than one was asked for; `text` is the first."""
    spent: Spent | None = None
    """Energy and heat, and what held the board back; None where no sensor tells of any.

    Energy is that of the whole board, or of what `spent.source` names, while it was worked on."""
    notes: tuple[str, ...] = field(default=())
    """What was done otherwise than the request may have expected."""

    @property
    def energy_j(self) -> float | None:
        """Joules; None: not measured, `spent.why` says why."""
        return None if self.spent is None else self.spent.energy_j

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready values with a schema number."""
        values = asdict(self)
        values["prediction"] = None if self.prediction is None else self.prediction.to_dict()
        return versioned("answer", values)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a streamed answer; the last piece carries the whole answer."""

    text: str
    answer: Answer | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens since the piece before, if they were asked for."""
