"""Chat templates: a bundle's jinja source, rendered as Hugging Face renders it, in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tightrope.errors import BundleError, InputError
from tightrope.foreign import words
from tightrope.runtime import sandbox
from tightrope.runtime.lookups import looked_for

Message = Mapping[str, Any]

_MARK = "tightrope-trial"
_PRINTED = re.compile(rf"""["']text["']\s*:\s*["']{_MARK}""")


class ChatTemplate:
    """A compiled chat template together with the special tokens that it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: by name, such as {"bos_token": "<s>"}; variables of the template.

        Raises BundleError if the source is not valid jinja.
        """
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._forms: dict[tuple[str, bool], bool] = {}
        try:
            environment = sandbox.environment()
            self._template = environment.from_string(source)
            self._sought = looked_for(environment.parse(source))
        except Exception as error:  # folding of constants runs them
            raise BundleError(
                f"chat_template.jinja is not a valid template ({words(error)}); export the bundle "
                "again"
            ) from error

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **arguments: Any
    ) -> str:
        """The conversation as one string, special tokens written out.

        messages: plain values only (str, numbers, lists, dicts), content in the template's form.
        arguments: further variables of the template, such as `tools` or `enable_thinking`.
        Raises InputError with the template's own words if it refuses the messages, and
        BundleError if it fails.
        """
        variables = {"tools": None, "documents": None, **self._special_tokens, **arguments}
        variables |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            return sandbox.rendered(self._template, variables)
        except sandbox.Refused as error:
            raise InputError(f"the chat template refuses these messages: {error}") from error
        # A template is a program: what comes out of it is not jinja's own errors alone.
        except Exception as error:
            raise BundleError(
                f"chat_template.jinja fails on these messages "
                f"({type(error).__name__}: {words(error)}); check their form, or the bundle's "
                "template"
            ) from error

    def marks(self, tokens: Iterable[str]) -> set[str]:
        """Those of the tokens that the template looks for in what was said, such as </think>.

        The tokens that it has by name are none: by them a text begins and ends.
        """
        named = self._special_tokens.values()
        return {
            token
            for token in tokens
            if token not in named and any(token in sought for sought in self._sought)
        }

    def takes_text(self, role: str) -> bool:
        """Whether the content of a message of this role may be a string."""
        return self._takes(role, parts=False)

    def takes_parts(self, role: str) -> bool:
        """Whether the content of a message of this role may be a list of typed parts."""
        return self._takes(role, parts=True)

    def _takes(self, role: str, parts: bool) -> bool:
        if (role, parts) not in self._forms:
            self._forms[role, parts] = self._renders(role, parts)
        return self._forms[role, parts]

    def _renders(self, role: str, parts: bool) -> bool:
        """Whether a marked text comes out of a trial conversation as text.

        A template that takes strings only either fails on a list or prints it as Python does,
        which shows its keys; one that takes lists only finds no part in a string.
        """
        marked = _content(_MARK, parts)
        # A question in front where templates insist that roles alternate from the user on.
        question = {"role": "user", "content": _content("?", parts)}
        if role != "user":
            question["content"] = _content("?", not self.takes_text("user"))
        trial = [{"role": role, "content": marked}]
        trial = {"user": trial, "system": [*trial, question]}.get(role, [question, *trial])
        try:
            rendered = self.render(trial)
        except InputError:
            return False
        except BundleError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise  # the next trial would not end either
            return False
        return _MARK in rendered and not _PRINTED.search(rendered)


def takes_parts(source: str) -> bool:
    """Whether a template takes a user's content as a list of typed parts.

    False for one that takes a string only; one that takes both says True.
    """
    # Their spelling does not matter here, but adding to an undefined name fails.
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return ChatTemplate(source, dict.fromkeys(names, "")).takes_parts("user")


def _content(text: str, parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if parts else text
