"""The answers that a prompt begins, and what ends or steers them."""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.runtime.cancel import Cancel
from tightrope.runtime.controls import (
    Control,
    cancelled,
    end_tokens,
    most_tokens,
    slots_full,
    stop_strings,
    thinking_cap,
)
from tightrope.runtime.generation import Row
from tightrope.runtime.guard import Guard
from tightrope.runtime.language import Language
from tightrope.runtime.logprobs import Logprobs
from tightrope.runtime.options import Options
from tightrope.runtime.settings import Settings
from tightrope.runtime.thought import Thought


def rows_of(
    language: Language, options: Options, settings: Settings, prompt: Sequence[int]
) -> list[Row]:
    """A row for each answer to a prompt of these token ids."""
    return [_row(language, options, settings, prompt) for _ in range(options.n)]


def _row(language: Language, options: Options, settings: Settings, prompt: Sequence[int]) -> Row:
    marks = language.thought
    opened = marks is not None and marks.opened(prompt)
    likely = None
    if options.logprobs is not None:
        likely = Logprobs(options.logprobs, language.token_text)
    decoder = language.decoder(options.stop, options.ignore_eos)
    row = Row(decoder, Thought(marks, opened), likely)
    if marks is not None and opened and settings.point.thinking_tokens == 0:
        row.forced.extend(marks.close)  # before the first token there is nothing to control
    return row


def controls_of(
    language: Language, options: Options, settings: Settings, cancel: Cancel, guard: Guard | None
) -> list[Control]:
    """Those that run, in their order."""
    controls = [
        stop_strings(),
        most_tokens(options.max_tokens),
        cancelled(cancel),
        slots_full(),
    ]
    marks, cap = language.thought, settings.point.thinking_tokens
    if not options.ignore_eos:
        controls.insert(0, end_tokens(language.ends))
    # Behind those that end: what is forced needs a slot.
    if marks is not None and cap is not None:
        controls.append(thinking_cap(cap, marks.close))
    if guard is not None:
        controls.append(guard)
    return controls
