"""Messages and a number of images to the token ids of a prompt.

Four steps: check the messages, give every image its place, hide the control tokens that users
wrote, render and encode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from tightrope.checks import shown
from tightrope.errors import BundleError, InputError
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.tokenizer import Tokenizer

Messages = str | Sequence[Mapping[str, Any]]
Part = dict[str, str]

ROLES = ("system", "developer", "user", "assistant", "tool")
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names by which clients give a message's reasoning back; templates read the first, some the
second."""
INSTEAD_OF_CONTENT = ("tool_calls", *_REASONING, "refusal")
"""Of an assistant's message, one of which may stand for content."""
_MOST_LEVELS = 100

_IMAGE: Part = {"type": "image"}
# Rare ideographs, of which those are taken that stand nowhere in a conversation. They are letters
# without case that Python prints as they are, so that a template treats them as it does text.
_RARE = range(0x20000, 0x2A6E0)


def render_and_encode(
    template: ChatTemplate | None,
    tokenizer: Tokenizer,
    messages: Messages,
    image_token: str | None = None,
    num_images: int = 0,
    image_text: str = "",
    **arguments: Any,
) -> list[int]:
    """Token ids of the prompt, with exactly one id of `image_token` per image, in order.

    template: None for a base model, whose prompt is one text and is encoded as it stands.
    messages: a question, or messages {"role", "content"}; content is a string or a list of parts
    {"type": "text", "text": ...} and {"type": "image"}.
    image_token: how the placeholder is written; None if the model takes no images. In a user's
    text it marks where an image stands; where nothing marks a place, the images come first in
    the user's first message. Without images it is text like any other.
    image_text: what is encoded in its place, written around the placeholder; empty: `image_token`.
    arguments: for the template, such as `add_generation_prompt` or `tools`.
    Raises InputError for messages of another shape, or where images and their places differ in
    number, and BundleError where the template loses or adds an image.
    """
    shown = placed(messages, image_token, num_images)
    spelled = (image_text or image_token) if num_images else None
    if template is None:
        token_ids = _encode_bare(tokenizer, shown, image_token, spelled)
    else:
        adapted = [_adapt(message, template, image_token, num_images) for message in shown]
        arguments = _plain(arguments, "an argument of the template")
        hidden = _Hidden(tokenizer, image_token, [template.source, adapted, arguments])
        spared = {
            "user": {image_token} if image_token and num_images else set(),
            "assistant": template.marks(hidden.tokens) - {image_token},
        }
        rendered = template.render(
            [hidden.message(message, spared.get(message["role"], set())) for message in adapted],
            **{name: hidden.value(value) for name, value in arguments.items()},
        )
        if image_token and spelled:
            rendered = rendered.replace(image_token, spelled)
        token_ids = tokenizer.encode_prompt(rendered, hidden.literals)
    if image_token is not None:
        _check_placeholders(token_ids, tokenizer.token_id(image_token), num_images)
    return token_ids


def placed(messages: Messages, image_token: str | None, num_images: int) -> list[dict[str, Any]]:
    """Checked copies of the messages, in which as many places are marked as there are images."""
    return _place_images(_checked(messages), image_token, num_images)


def check_text(name: str, text: str) -> None:
    """Raises InputError for halves of surrogate pairs, which JSON can write and nobody can say."""
    try:
        str.encode(text)
    except UnicodeEncodeError:
        raise InputError(
            f"{name} holds half of a surrogate pair, which is no text; remove it"
        ) from None


def count_places(messages: Sequence[Mapping[str, Any]], written: str | None) -> int:
    """Places of images in messages; written: how a text marks one, None where it is text."""
    return sum(_count_places(message, written) for message in messages)


def _checked(messages: Messages) -> list[dict[str, Any]]:
    """Copies of the messages, each of a known role and shape and of plain values only."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or not messages:
        raise InputError(
            f"messages are {shown(messages)}; accepted: a string, or a list of messages"
        )
    return [_checked_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or "role" not in message:
        raise InputError(f"{name} is {shown(message)}; accepted: an object with role and content")
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"{name} has role {shown(role)}; accepted: {', '.join(ROLES)}")
    # What clients give back has all its keys: None says that it has none of them.
    plain = {key: value for key, value in _plain(message, name).items() if value is not None}
    reasoning = next((plain[key] for key in _REASONING if key in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    content = plain.get("content")
    # An assistant that only called tools, thought or refused said nothing.
    if content is None and role == "assistant" and any(map(plain.get, INSTEAD_OF_CONTENT)):
        return plain
    if not isinstance(content, (str, list)):
        raise InputError(f"{name} has content {shown(content)}; accepted: a string or parts")
    if isinstance(content, list):
        plain["content"] = [_checked_part(part, plain["role"], name) for part in content]
    return plain


def _checked_part(part: Any, role: str, name: str) -> Part:
    """The part without keys that are None, such as a client's `image_url` beside a text."""
    if isinstance(part, dict):
        part = {key: value for key, value in part.items() if value is not None}
    if part == _IMAGE:
        if role != "user":
            raise InputError(f"{name} has an image and role {role!r}; images belong to the user")
        return _IMAGE
    text = part.get("text") if isinstance(part, dict) else None
    if isinstance(text, str) and part == {"type": "text", "text": text}:
        return {"type": "text", "text": text}
    raise InputError(
        f'{name} has a part {shown(part)}; accepted: {{"type": "text", "text": ...}} and '
        '{"type": "image"}, the images themselves being passed apart; {"type": "video"} marks '
        "where frames stand, if there are any"
    )


def _plain(value: object, name: str, level: int = 0) -> Any:
    """A copy made of plain types, because templates may call whatever methods a value has."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        check_text(name, value)
        return str.__str__(value)
    if isinstance(value, (int, float)):  # of an enumeration, or numpy's
        return int(value) if isinstance(value, int) else float(value)
    if level > _MOST_LEVELS:
        raise InputError(f"{name} is nested deeper than {_MOST_LEVELS} levels; flatten it")
    if isinstance(value, Mapping):
        if strange := [key for key in value if isinstance(key, (Mapping, list, tuple))]:
            raise InputError(f"{name} has the key {shown(strange[0])}; accepted: strings")
        items = ((_plain(key, name), _plain(item, name, level + 1)) for key, item in value.items())
        return dict(items)
    if isinstance(value, (list, tuple)):
        return [_plain(item, name, level + 1) for item in value]
    raise InputError(f"{name} holds a {type(value).__name__}; accepted: what JSON can say")


def _place_images(
    messages: list[dict[str, Any]], image_token: str | None, num_images: int
) -> list[dict[str, Any]]:
    """The messages, in which as many places are marked as there are images."""
    if num_images and image_token is None:
        raise InputError(f"{num_images} images came, but this bundle's model takes none")
    written = image_token if num_images else None
    marked = count_places(messages, written)
    if marked == num_images:
        return messages
    if marked:
        raise InputError(
            f"the messages mark places for {marked} images, but {num_images} came; mark one place "
            "per image, or none to have the images come first"
        )
    for i, message in enumerate(messages):
        if message["role"] == "user":
            content = [_IMAGE] * num_images + _parts(message["content"])
            return [*messages[:i], {**message, "content": content}, *messages[i + 1 :]]
    raise InputError(f"{num_images} images came, but no message of the user to put them in")


def _count_places(message: Mapping[str, Any], written: str | None) -> int:
    if message["role"] != "user":
        return 0
    return split_places(_parts(message["content"]), written).count(_IMAGE)


def _parts(content: str | list[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def split_places(parts: list[Part], written: str | None) -> list[Part]:
    """The parts, with an image part wherever a text holds the written placeholder."""
    if written is None:
        return parts
    split: list[Part] = []
    for part in parts:
        if part == _IMAGE or written not in part["text"]:
            split.append(part)
            continue
        for i, text in enumerate(part["text"].split(written)):
            split += [_IMAGE] if i else []
            split += [{"type": "text", "text": text}] if text else []
    return split


def _adapt(
    message: dict[str, Any], template: ChatTemplate, image_token: str | None, num_images: int
) -> dict[str, Any]:
    """The message with its content in a form that the template takes.

    Content keeps the form that it came in where the template allows, because templates that take
    both may render them differently.
    """
    role, content = message["role"], message.get("content")
    written = image_token if num_images and role == "user" else None
    if content is None:
        return message
    if _count_places(message, written) and template.takes_parts(role):
        return {**message, "content": split_places(_parts(content), written)}
    if isinstance(content, str) and (template.takes_text(role) or not template.takes_parts(role)):
        return message
    if isinstance(content, list) and not template.takes_parts(role):
        # Part by part on its own line, as LLaVA was trained: "<image>\nquestion".
        lines = (image_token or "" if part == _IMAGE else part["text"] for part in content)
        return {**message, "content": "\n".join(lines)}
    return {**message, "content": _parts(content)}


def _encode_bare(
    tokenizer: Tokenizer,
    messages: list[dict[str, Any]],
    image_token: str | None,
    spelled: str | None,
) -> list[int]:
    """Ids of a base model's prompt: the text is the user's to the last control token.

    spelled: how a placeholder is encoded; None where it is text, as there are no images.
    """
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise InputError(
            "this bundle has no chat template; pass the whole prompt as one string, not messages"
        )
    parts = _parts(messages[0]["content"])
    text = "".join(image_token or "" if part == _IMAGE else part["text"] for part in parts)
    if image_token is None or image_token not in text:
        return tokenizer.encode_text(text)
    if spelled:
        return tokenizer.encode_text(text.replace(image_token, spelled))
    stand_in = next(_free_characters(text))
    return tokenizer.encode_text(text.replace(image_token, stand_in), {stand_in: image_token})


class _Hidden:
    """Swaps the control tokens that users wrote for characters of their own while rendering."""

    def __init__(self, tokenizer: Tokenizer, image_token: str | None, values: object) -> None:
        """values: everything that will be hidden; its own characters stand for nothing else."""
        strings = [*tokenizer.special_strings, *([image_token] if image_token else [])]
        self.tokens = tuple(dict.fromkeys(strings))
        self._free = _free_characters("".join(_strings(values)))
        self._stand_ins: dict[str, str] = {}

    @property
    def literals(self) -> dict[str, str]:
        """What each such character stands for."""
        return {character: text for text, character in self._stand_ins.items()}

    def message(self, message: dict[str, Any], spared: Set[str]) -> dict[str, Any]:
        """The message with its control tokens hidden, but for those of `spared`.

        A user's placeholders are spared, and what the template looks for in earlier answers, such
        as the end of a thought.
        """
        hidden: dict[str, Any] = self.value(message, spared)
        content = message.get("content")
        if isinstance(content, list) and self._forms_token(content):
            for part in hidden["content"]:
                if "text" in part:
                    part["text"] += self._stand_in("")
        return hidden

    def value(self, value: Any, spared: Set[str] = frozenset()) -> Any:
        """A copy of a plain value whose strings hold no control token but the spared ones."""
        if isinstance(value, str):
            for token in self.tokens:
                if token not in spared and token in value:
                    value = value.replace(token, self._stand_in(token))
            return value
        if isinstance(value, dict):
            return {self.value(key): self.value(item, spared) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, spared) for item in value]
        return value

    def _forms_token(self, parts: list[Part]) -> bool:
        """Whether texts that a template may trim and join would make up a control token."""
        texts = [part["text"] for part in parts if "text" in part]
        joined = re.sub(r"\s", "", "".join(texts))
        return len(texts) > 1 and any(re.sub(r"\s", "", t) in joined for t in self.tokens)

    def _stand_in(self, text: str) -> str:
        if text not in self._stand_ins:
            self._stand_ins[text] = next(self._free)
        return self._stand_ins[text]


def _free_characters(text: str) -> Iterator[str]:
    """Characters that `text` does not hold, to stand for something in it."""
    used = set(text)
    yield from (chr(code) for code in _RARE if chr(code) not in used)
    raise InputError("the messages hold every character of CJK extension B; remove some")


def _strings(value: object) -> Iterator[str]:
    """Every string inside a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _check_placeholders(token_ids: list[int], image_id: int, num_images: int) -> None:
    rendered = token_ids.count(image_id)
    if rendered != num_images:
        raise BundleError(
            f"the prompt holds {rendered} image placeholders for {num_images} images: the chat "
            "template does not write one per image"
        )
