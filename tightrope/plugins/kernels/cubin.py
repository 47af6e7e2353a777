"""What a cubin says of itself: for which SM it is, and the arguments of each kernel.

Read from its ELF sections, so that a launch description is held against something it was not
written from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PARAMETER = 0x1704
"""Attribute of `.nv.info.KERNEL` that tells one argument (EIATTR_KPARAM_INFO, with a size)."""
_MAGIC, _EMPTY = b"\x7fELF\x02", 8


def compute_capability(image: bytes) -> int:
    """Such as 87: where it stands in the flags depends on the version of the format.

    Raises ValueError for what is no cubin.
    """
    if image[: len(_MAGIC)] != _MAGIC or len(image) < 0x40:
        raise ValueError("it is no cubin")
    flags = int(struct.unpack_from("<I", image, 0x30)[0])
    return (flags >> 8 if image[8] >= 8 else flags) & 0xFF


def argument_sizes(image: bytes, kernel: str) -> list[int]:
    """Bytes of each argument of a kernel, in order; raises ValueError where there is no such."""
    info = dict(_sections(image)).get(f".nv.info.{kernel}")
    if info is None:
        raise ValueError(f"there is no kernel {kernel} in its cubin")
    sizes, at = {}, 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:  # a value of `size` bytes follows
            if attribute << 8 | form == _PARAMETER:
                _, ordinal, _, about = struct.unpack_from("<IHHI", info, at)
                sizes[ordinal] = about >> 18
            at += size
    return [sizes[place] for place in sorted(sizes)]


def _sections(image: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of every section of a 64-bit ELF file."""
    (start,) = struct.unpack_from("<Q", image, 0x28)
    entry, count, names = struct.unpack_from("<HHH", image, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", image, start + entry * i) for i in range(count)]
    offset = heads[names][4]
    for name, kind, _, _, at, size in heads:
        begin = offset + name
        text = image[begin : image.index(b"\0", begin)].decode()
        yield text, b"" if kind == _EMPTY else image[at : at + size]
