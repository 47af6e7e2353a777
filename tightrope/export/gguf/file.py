"""Opens a GGUF file, whole where it is split, and says what it is if it is no model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import listed
from tightrope.export.foreign import reading
from tightrope.export.gguf import header

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.S)
_OTHERS = {
    "adapter": "a LoRA adapter, not a model: merge it into its base model first",
    "mmproj": "the vision half of a model alone: export the model's Hugging Face folder instead",
    "vocab": "a vocabulary without weights: give the model's own file",
    "imatrix": "a quantiser's statistics, not a model: give the model's own file",
}
"""`general.type` of what is no model."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file holds; nothing of its tensors is read yet."""

    path: Path
    metadata: dict[str, Any]
    """By key: numbers, texts, and lists of them."""
    tensors: dict[str, Any]
    """By name: `gguf.ReaderTensor`, whose `data` is mapped from the file."""

    @property
    def architecture(self) -> str:
        """`general.architecture`, as the file says it."""
        return str(self.metadata.get("general.architecture"))


def is_gguf(path: Path) -> bool:
    """Whether the name says GGUF, in capitals or not."""
    return path.suffix.lower() == ".gguf"


def open_file(path: Path) -> GgufFile:
    """Raises UnsupportedModel for what is damaged, incomplete or no model."""
    first, *others = _parts(path)
    metadata, tensors = _read(first)
    for part in others:
        _, more = _read(part)
        if twice := [name for name in more if name in tensors]:
            raise UnsupportedModel(
                f"{part} holds {listed(twice)}, which another part holds too: the parts do not "
                "belong together"
            )
        tensors |= more
    _check_split(path, metadata, tensors, 1 + len(others))
    _check_kind(path, metadata, tensors)
    return GgufFile(path, metadata, tensors)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with reading(f"{path} cannot be read"):
        header.check(path)
        reader = gguf.GGUFReader(path)
        metadata = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        return metadata, {tensor.name: tensor for tensor in reader.tensors}


def _parts(path: Path) -> list[Path]:
    """All parts of the file, the first one first; raises UnsupportedModel where one is missing."""
    named = _PART.fullmatch(path.stem)
    if named is None:
        return [path]
    count = int(named["count"])
    if not 1 <= int(named["number"]) <= count:
        raise UnsupportedModel(f"{path} calls itself part {named['number']} of {named['count']}")
    missing: list[Path] = []
    parts: list[Path] = []
    for number in range(1, count + 1):
        part = path.with_name(f"{named['stem']}-{number:05d}-of-{named['count']}{path.suffix}")
        (parts if part.is_file() else missing).append(part)
    if missing:
        raise UnsupportedModel(
            f"{path} is one of {count} parts, of which are missing: "
            f"{listed([part.name for part in missing])}; put all parts into one folder"
        )
    return parts


def _check_split(path: Path, metadata: dict[str, Any], tensors: dict[str, Any], parts: int) -> None:
    """Raises UnsupportedModel where the parts are not those that the first of them announces."""
    count = metadata.get("split.count", 0)
    if count > 1 and parts == 1:
        raise UnsupportedModel(
            f"{path} is one of {count} parts, but is not named so; give the parts the names they "
            "were published under, NAME-00001-of-000NN.gguf"
        )
    announced = metadata.get("split.tensors.count")
    if max(count, 1) != parts or (announced is not None and announced != len(tensors)):
        raise UnsupportedModel(
            f"{path} announces {max(count, 1)} parts with {announced} tensors, there are {parts} "
            f"with {len(tensors)}; get all parts again"
        )


def _check_kind(path: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    kind = metadata.get("general.type", "model")
    if metadata.get("general.architecture") == "clip":
        kind = "mmproj"
    if kind in _OTHERS:
        raise UnsupportedModel(f"{path} is {_OTHERS[kind]}")
    if kind != "model":
        raise UnsupportedModel(f"{path} calls itself a {kind!r}; accepted: a model")
    if not tensors:
        raise UnsupportedModel(f"{path} is {_OTHERS['vocab']}")
