"""The images of a request: held as they came, known by their content, decoded when they are wanted.

Many are not: of an image that was asked about before, what the tower said is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import PIL.Image

from tightrope.inputs.layout import Size
from tightrope.latency import SourceImage
from tightrope.runtime.images import (
    Content,
    check_list,
    decoded,
    image_digest,
    image_header,
    read_content,
)
from tightrope.runtime.options import Frame, ImageSource


@dataclass(slots=True)
class HeldImage:
    """An image, and the hash by which it is recognised."""

    content: Content
    header: SourceImage
    digest: str
    behind: int | None
    """As of a Frame."""
    _decoded: tuple[int, PIL.Image.Image] | None = field(default=None, init=False)
    """The last decoded pixels, behind the scale that they were decoded at."""

    @property
    def size(self) -> Size:
        """Width and height, upright, of all its pixels."""
        return self.header.width, self.header.height

    @property
    def nbytes(self) -> int:
        """That its content takes."""
        return self.header.encoded_bytes or 3 * self.header.width * self.header.height

    def key(self, how: tuple[object, ...]) -> tuple[object, ...]:
        """What its tokens are known by, read as `how` says."""
        return (self.digest, self.behind, *how)

    def pixels(self, resolution: int) -> PIL.Image.Image:
        """RGB and upright, at least of the detail that the resolution needs.

        Raises InputError for a file that is damaged behind its header.
        """
        scale = self.header.scale(resolution)
        if self._decoded is None or self._decoded[0] != scale:
            self._decoded = scale, decoded(self.content, scale)
        return self._decoded[1]


def hold_images(sources: Sequence[ImageSource], detail: float = 0.0) -> list[HeldImage]:
    """The images of a request, none decoded; raises InputError naming what cannot be used.

    detail: as of `SourceImage`, of images that can be decoded to less than all of theirs.
    """
    check_list(sources)
    images = []
    for source in sources:
        content = read_content(source)
        header = _with_detail(content.header, detail)
        behind = source.behind if isinstance(source, Frame) else None
        images.append(HeldImage(content, header, image_digest(content, header.detail), behind))
    return images


def headers_of(sources: Sequence[ImageSource], detail: float = 0.0) -> tuple[SourceImage, ...]:
    """The headers that `hold_images` gives, nothing behind them being read."""
    return tuple(_with_detail(image_header(source), detail) for source in sources)


def _with_detail(header: SourceImage, detail: float) -> SourceImage:
    return replace(header, detail=detail) if header.format == "JPEG" else header
