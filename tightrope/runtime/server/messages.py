"""OpenAI's messages as the runtime takes them: images apart, checked before one is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.runtime.images import from_data_url, image_header
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

    def checked(self, images: Sequence[bytes]) -> None:
        """Raises Refused where all of them have too many pixels, by their headers."""
        most = self.config.max_megapixels
        headers = map(image_header, images)
        if sum(header.width * header.height for header in headers) > most * MB:
            raise Refused(
                413,
                f"messages have images of more than {most} megapixels together; scale them down",
                code="too_many_pixels",
                param="messages",
            )

    def source(self, name: str, url: str, earlier_bytes: int) -> bytes:
        """The encoded image at an address; raises InputError and Refused naming the field.

        earlier_bytes: of the request's other images; together they are no longer than a body.
        """
        config = self.config
        most = min(config.max_image_mb * MB, config.max_body_mb * MB - earlier_bytes)
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
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Messages whose images became places, and the images in their order.

    Raises InputError and Refused naming what is wrong.
    """
    if not messages:
        raise InputError("messages is an empty list; accepted: at least a question of the user")
    _check_count(messages, limits.config.max_images)
    images: list[bytes] = []
    read = [
        _message(message, f"messages[{i}]", limits, images) for i, message in enumerate(messages)
    ]
    limits.checked(images)
    return read, images


def _message(
    message: Mapping[str, Any], name: str, limits: ImageLimits, images: list[bytes]
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


def _part(part: Any, name: str, limits: ImageLimits, images: list[bytes]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        earlier = sum(map(len, images))
        images.append(limits.source(f"{name}.image_url", _url(part, name), earlier))
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
