"""The words of the reference model, and its tokenizer: one word, one token."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from tightrope.profiles.scenes.words import (
    COLOURS,
    COLUMNS,
    LIGHTS,
    ROWS,
    SHAPES,
    SIGN_WORDS,
    TEXTURES,
)
from tightrope.runtime.thought import BEGIN, END

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE)
SYSTEMS = ("you look at pictures and answer .", "answer with few words .")
"""System messages that training sees now and then."""

_QUESTIONS = (
    "what colour is the ? shape object objects where at there a an how many are more than "
    "left of right above below which digit on plate word sign list everything it has . , ; none "
    "yes no large small striped plain "
    "texture or empty taken board a b c d 10 11 12 13 14 15 16 "
    "in which frame does appear way move up down now was first last view nearer"
)
WORDS = (
    *SPECIAL,
    BEGIN,
    END,
    *("SYSTEM:", "USER:", "ASSISTANT:"),
    *dict.fromkeys(
        [
            *COLOURS,
            *SHAPES,
            *SHAPES.values(),
            *ROWS,
            *COLUMNS,
            *map(str, range(10)),
            *SIGN_WORDS,
            *_QUESTIONS.split(),
            *TEXTURES,
            *LIGHTS,
            *" ".join(SYSTEMS).split(),
        ]
    ),
)
IDS = {word: index for index, word in enumerate(WORDS)}


def encode(text: str) -> list[int]:
    """Token ids of a text whose words are all known; raises KeyError for any other."""
    return [IDS[word] for word in text.split()]


def tokenizer() -> Tokenizer:
    found = Tokenizer(WordLevel(IDS, unk_token=UNKNOWN))
    found.pre_tokenizer = WhitespaceSplit()
    found.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, IDS[BOS])]
    )
    found.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    # Not special: a thought is part of what the model says.
    found.add_tokens([AddedToken(word, normalized=False) for word in (BEGIN, END)])
    return found
