"""OpenAI's messages as the runtime takes them: images apart, checked before one is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.runtime.images import encoded_content, from_data_url
from tightrope.runtime.options import Content
from tightrope.runtime.prompt import INSTEAD_OF_CONTENT, ROLES
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.fetch import PORTS, TooLong, Web
from tightrope.runtime.server.files import Folder
from tightrope.runtime.server.refusal import Refused

MB = 10**6
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("name", "tool_call_id", "refusal"), (str, "a string")),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), (str, "a string")),
    **dict.fromkeys(("tool_calls", "annotations"), (list, "a list")),
}
"""Keys of a message beside its role and content, and what stands there."""
_KEYS = ("role", "content", *_KINDS)
_DETAIL = ("auto",)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How many images, and how large, a request may bring, and what it may name instead."""

    config: ServeConfig
    folder: Folder | None
    web: Web | None

    def read(self, name: str, url: str, earlier: Sequence[Content]) -> Content:
        """The image at an address, its header read; raises InputError and Refused.

        name: of the field. earlier: the request's other images. Together they are no longer than a
        body, and have no more pixels than is allowed.
        """
        config = self.config
        others = sum(image.header.encoded_bytes for image in earlier)
        most = min(config.max_image_mb * MB, config.max_body_mb * MB - others)
        try:
            content = encoded_content(self._source(name, url, most), name)
        except InputError as error:
            raise Refused(400, str(error), param="messages") from error
        pixels = sum(image.header.width * image.header.height for image in (*earlier, content))
        if pixels > config.max_megapixels * MB:
            raise Refused(
                413,
                f"messages have images of more than {config.max_megapixels} megapixels together; "
                "scale them down",
                code="too_many_pixels",
                param="messages",
            )
        return content

    def _source(self, name: str, url: str, most: int) -> bytes:
        """The encoded image, of `most` bytes at most."""
        scheme = url[:16].partition(":")[0].lower()
        if scheme == "data":
            # base64 takes 4 characters for 3 bytes
            content = b"" if len(url) > 2 * most else from_data_url(url)
            if len(url) > 2 * most or len(content) > most:
                raise _too_long(name, most)
            return content
        if scheme == "file" and self.folder is not None:
            return self.folder.read(name, url, most)
        if scheme == "file":
            raise InputError(f"{name} is a file, but this server reads none: send a data: address")
        if scheme in PORTS and self.web is not None:
            try:
                return self.web.read(name, url, most)
            except TooLong:
                raise _too_long(name, most) from None
        if scheme in PORTS:
            raise InputError(
                f"{name} is a web address, but this server fetches nothing: send a data: address"
            )
        raise InputError(f"{name} is {shown(url)}; accepted: a data: address of an image")


def read_messages(
    messages: Sequence[Mapping[str, Any]], limits: ImageLimits
) -> tuple[list[dict[str, Any]], list[Content]]:
    """Messages whose images became places, and the images in their order.

    Raises InputError and Refused naming what is wrong.
    """
    if not messages:
        raise InputError("messages is an empty list; accepted: at least a question of the user")
    _check_count(messages, limits.config.max_images)
    images: list[Content] = []
    read = [
        _message(message, f"messages[{i}]", limits, images) for i, message in enumerate(messages)
    ]
    return read, images


def _message(
    message: Mapping[str, Any], name: str, limits: ImageLimits, images: list[Content]
) -> dict[str, Any]:
    given = {key: value for key, value in message.items() if value is not None}
    if unknown := [key for key in given if key not in _KEYS]:
        raise InputError(f"{name} has the key {shown(unknown[0])}; accepted: {', '.join(_KEYS)}")
    for key, (kind, accepted) in _KINDS.items():
        if key in given and not isinstance(given[key], kind):
            raise InputError(f"{name} has {key} {shown(given[key])}; accepted: {accepted}")
    given.pop("annotations", None)  # what a reply of OpenAI's brings back, and no template reads
    content = given.get("content")
    if isinstance(content, list):
        given["content"] = [_part(part, name, limits, images) for part in content]
    return given


def _part(part: Any, name: str, limits: ImageLimits, images: list[Content]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        images.append(limits.read(f"{name}.image_url", _url(part, name), images))
        return {"type": "image"}
    if kind != "text":
        raise InputError(f"{name} has a part of type {shown(kind)}; accepted: text and image_url")
    return dict(part)


def _url(part: Mapping[str, Any], name: str) -> str:
    value = part.get("image_url")
    if unknown := [key for key in part if key not in ("type", "image_url")]:
        raise InputError(f"{name} has an image with {shown(unknown[0])}; leave it out")
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise InputError(f'{name} has an image without address; accepted: {{"url": "data:…"}}')
    if unknown := [key for key in value if key not in ("url", "detail")]:
        raise InputError(f"{name} has an image with {shown(unknown[0])}; leave it out")
    if value.get("detail") not in (None, *_DETAIL):
        raise InputError(
            f"{name} has an image with detail {shown(value['detail'])}; accepted: auto, and the "
            "field resolution beside messages"
        )
    return str(value["url"])


def _check_count(messages: Sequence[Mapping[str, Any]], most: int) -> None:
    contents = (message.get("content") for message in messages)
    parts = [part for content in contents if isinstance(content, list) for part in content]
    count = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    if count > most:
        raise Refused(
            413,
            f"messages have {count} images; accepted: at most {most} a request",
            code="too_many_images",
            param="messages",
        )


def _too_long(name: str, most: int) -> Refused:
    return Refused(
        413,
        f"{name} has an image of more than {most} bytes; compress it, or scale it down",
        code="image_too_long",
        param="messages",
    )


_TEXT = {"type": "string"}
_TEXT_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": _TEXT},
    "additionalProperties": {"type": "null"},
}
_IMAGE_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "properties": {"url": _TEXT, "detail": {"enum": [*_DETAIL, None]}},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


def _schema(roles: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of messages of these roles, whose content is text or a list of such parts."""
    lists = {"type": "array", "items": {"anyOf": list(parts)}}
    others = {key: {"type": [_JSON[kind], "null"]} for key, (kind, _) in _KINDS.items()}
    said = {"role": {"enum": list(roles)}, "content": {"anyOf": [_TEXT, lists]}}
    return {
        "type": "object",
        "required": ["role", "content"],
        "properties": said | others,
        "additionalProperties": {"type": "null"},
    }


def _silent() -> dict[str, Any]:
    """Of an assistant that did something instead of saying something."""
    message = _schema(["assistant"], [])
    message["properties"]["content"] = {"type": "null"}
    some: dict[type, dict[str, Any]] = {
        str: {"type": "string", "minLength": 1},
        list: {"type": "array", "minItems": 1},
    }
    done = [
        {"required": [key], "properties": {key: some[_KINDS[key][0]]}} for key in INSTEAD_OF_CONTENT
    ]
    return {**message, "required": ["role"], "anyOf": done}


_JSON: dict[type, str] = {str: "string", list: "array"}
SCHEMA = {
    "anyOf": [
        _schema(["user"], [_TEXT_PART, _IMAGE_PART]),
        _schema([role for role in ROLES if role != "user"], [_TEXT_PART]),
        _silent(),
    ]
}
"""Of one message, as JSON Schema has it."""
