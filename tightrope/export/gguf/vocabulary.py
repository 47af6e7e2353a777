"""The vocabulary of a GGUF file: its tokens, what kind each is, and the special ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, listed
from tightrope.export.gguf.file import GgufFile
from tightrope.export.gguf.keys import WAY_OUT

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens, as `tokenizer.ggml.token_type` numbers them."""

_TURN_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)
"""Texts that end an answer wherever they are a token, whatever the file says of them."""
_FILL_ENDS = {
    "fim_pad": ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    "fim_rep": ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    "fim_sep": ["<|file_sep|>"],
}
"""Of files and gaps: they end an answer too, by id or else by text."""
_HARMONY = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"}, {"<|call|>", "<|flush|>"})
"""Where both are ends, <|end|> closes a part of an answer and not the answer."""
_DEFAULTS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}, "gpt2": {"bos": 11, "eos": 11}}
"""Ids that a tokenizer model has where the file names none."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id."""

    tokens: list[str]
    kinds: list[int]
    special: dict[str, int]
    """bos, eos, unknown, padding: id."""
    ends: frozenset[int]
    """Where llama.cpp ends an answer."""

    def text(self, name: str) -> str | None:
        """The text of a special token, None where there is none."""
        return self.tokens[self.special[name]] if name in self.special else None


def read_vocabulary(file: GgufFile, account: Account, model: str) -> Vocabulary:
    """model: `tokenizer.ggml.model`. Takes its keys from `account`.

    Raises UnsupportedModel for lists that do not belong together and ids that are none.
    """
    tokens = [
        token or f"[EMPTY_{number}]"
        for number, token in enumerate(account.take("tokenizer.ggml.tokens") or [])
    ]
    if not tokens:
        raise UnsupportedModel(f"{file.path} has no tokenizer.ggml.tokens; {WAY_OUT}")
    places = {token: number for number, token in enumerate(tokens)}
    if len(places) < len(tokens):
        twice = [token for number, token in enumerate(tokens) if places[token] != number]
        raise UnsupportedModel(f"{file.path} has tokens twice: {listed(twice)}; {WAY_OUT}")
    rows = int(file.tensors["token_embd.weight"].shape[-1])
    if len(tokens) > rows:
        raise UnsupportedModel(
            f"{file.path} has {len(tokens)} tokens and embeddings of {rows}; {WAY_OUT}"
        )
    kinds = list(account.take("tokenizer.ggml.token_type") or [NORMAL] * len(tokens))
    if len(kinds) != len(tokens):
        raise UnsupportedModel(
            f"{file.path} has {len(tokens)} tokens and {len(kinds)} token types; {WAY_OUT}"
        )
    for text in (*_TURN_ENDS, *(text for texts in _FILL_ENDS.values() for text in texts)):
        if text in places:
            kinds[places[text]] = CONTROL
    special = _special(file, account, model, kinds)
    return Vocabulary(tokens, kinds, special, _ends(special, places))


def _special(file: GgufFile, account: Account, model: str, kinds: list[int]) -> dict[str, int]:
    """Ids of special tokens: the file's, else the tokenizer model's own if they are no words."""
    special: dict[str, int] = {}
    for name in ("bos", "eos", "eot", "eom", "unknown", "padding", *_FILL_ENDS):
        key = f"tokenizer.ggml.{name}_token_id"
        given: Any = account.take(key)
        default = _DEFAULTS[model].get(name, len(kinds))
        if given is None and default < len(kinds) and kinds[default] in (CONTROL, UNKNOWN):
            given = default
        if given is None:
            continue
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 1 << 32:
            raise UnsupportedModel(f"{file.path} has {key} {given!r}; accepted: a token's id")
        if given == 0xFFFFFFFF:  # how converters write that there is none
            continue
        if given >= len(kinds):
            raise UnsupportedModel(
                f"{file.path} has {key} {given}, and {len(kinds)} tokens; {WAY_OUT}"
            )
        special[name] = given
    return special


def _ends(special: dict[str, int], places: dict[str, int]) -> frozenset[int]:
    ends = {text for text in _TURN_ENDS if text in places}
    ids = {special[name] for name in ("eos", "eot", "eom") if name in special}
    for name, texts in _FILL_ENDS.items():
        found = [places[text] for text in texts if text in places]
        ids.update([special[name]] if name in special else found[:1])
    if any(pair <= ends for pair in _HARMONY):
        ends.discard("<|end|>")
    if "<|tool_response>" in ends:
        ends.discard("</s>")
    return frozenset(ids | {places[text] for text in ends})
