"""The images of a request: held as they came, known by their content, decoded when they are wanted.

Many are not: of an image that was asked about before, what the tower said is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import PIL.Image

from tightrope.errors import InputError
from tightrope.inputs.layout import Size
from tightrope.latency import SourceImage
from tightrope.runtime.images import (
    check_list,
    decoded,
    image_digest,
    image_header,
    read_content,
)
from tightrope.runtime.options import Content, Frame, ImageSource


@dataclass(slots=True)
class HeldImage:
    """An image, and the hash by which it is recognised."""

    contents: tuple[Content, ...]
    """Itself, or frames of a clip that are read as one."""
    header: SourceImage
    digest: str
    behind: int | None
    """As of a Frame."""
    _decoded: tuple[int, list[PIL.Image.Image]] | None = field(default=None, init=False)
    """The last decoded pixels, behind the scale that they were decoded at."""

    @property
    def size(self) -> Size:
        """Width and height, upright, of all its pixels."""
        return self.header.width, self.header.height

    @property
    def nbytes(self) -> int:
        """That its content takes."""
        pixels = self.header.pictures * self.header.width * self.header.height
        return self.header.encoded_bytes or 3 * pixels

    def key(self, how: tuple[object, ...]) -> tuple[object, ...]:
        """What its tokens are known by, read as `how` says."""
        return (self.digest, self.behind, *how)

    @property
    def source(self) -> ImageSource:
        """What can be asked about again as this was."""
        first, *others = (content.data for content in self.contents)
        if self.behind is None and not others:
            return first
        return Frame(first, 0.0, self.behind, tuple(others))

    def pictures(self, resolution: int) -> list[PIL.Image.Image]:
        """RGB and upright, at least of the detail that the resolution needs.

        Raises InputError for a file that is damaged behind its header.
        """
        scale = self.header.scale(resolution)
        if self._decoded is None or self._decoded[0] != scale:
            self._decoded = scale, [decoded(content, scale) for content in self.contents]
        return self._decoded[1]


def hold_images(sources: Sequence[ImageSource], detail: float = 0.0) -> list[HeldImage]:
    """The images of a request, none decoded; raises InputError naming what cannot be used.

    detail: as of `SourceImage`, of images that can be decoded to less than all of theirs.
    """
    check_list(sources)
    images = []
    for source in sources:
        contents = tuple(map(read_content, _pictures(source)))
        header = _of_all([content.header for content in contents], detail)
        digest = "+".join(image_digest(content, header.detail) for content in contents)
        behind = source.behind if isinstance(source, Frame) else None
        images.append(HeldImage(contents, header, digest, behind))
    return images


def headers_of(sources: Sequence[ImageSource], detail: float = 0.0) -> tuple[SourceImage, ...]:
    """The headers that `hold_images` gives, nothing behind them being read."""
    return tuple(_of_all(list(map(image_header, _pictures(one))), detail) for one in sources)


def _pictures(source: ImageSource) -> tuple[ImageSource, ...]:
    """What an image is made of: itself, or frames of a clip."""
    return (source.source, *source.others) if isinstance(source, Frame) else (source,)


def _of_all(headers: Sequence[SourceImage], detail: float) -> SourceImage:
    """Of pictures that are read as one image."""
    first = headers[0]
    for other in headers[1:]:
        if (other.width, other.height) != (first.width, first.height):
            raise InputError(
                f"frames of {first.width} x {first.height} and {other.width} x {other.height} "
                "pixels would be read as one; give all frames of a clip one size"
            )
    scales = all(header.format == "JPEG" for header in headers)
    return replace(
        first,
        encoded_bytes=sum(header.encoded_bytes for header in headers),
        pictures=len(headers),
        detail=detail if scales else 0.0,
    )
