"""What a bundle says of its vision tower."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionInfo:
    """What the host must know of the tower; `sizes`, `lists` and the names in `ids` are its own."""

    kind: str
    """Names the file in `inputs/prepare/` that knows the rest."""
    image_token_id: int
    image_token: str
    """As templates and users write it."""
    resolutions: tuple[int, ...]
    """Sides in pixels, the tower's own first; its file says of what."""
    signals: tuple[str, ...]
    """What the graph hands to selectors, in the order of its outputs."""
    sizes: dict[str, int]
    lists: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Token ids of what stands between visual tokens, by the tower's own names."""
    image_text: str = ""
    """What is encoded in the place of `image_token`, the placeholder among other things; empty:
    `image_token` itself, which is then the placeholder."""
    separators: int = 0
    """Rows behind the vocabulary's in embeddings.data, such as a newline that was learned beside
    it: the ids that follow the vocabulary's."""
    timestamps: bool = False
    """Whether what is read of a clip is announced by a text with its seconds."""
    together: int = 1
    """Frames of a clip that the tower reads as one image."""
    second: int = 0
    """By how much the first axis of positions grows in a second of a clip, whose frames then stand
    side by side."""
