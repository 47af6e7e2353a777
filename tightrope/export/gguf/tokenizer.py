"""The tokenizer of a GGUF file in the terms of the tokenizers library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tokenizers
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account
from tightrope.export.foreign import reading
from tightrope.export.gguf.file import GgufFile
from tightrope.export.gguf.keys import WAY_OUT
from tightrope.export.gguf.pretokenizers import find_pretokenizer
from tightrope.export.gguf.vocabulary import (
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    read_vocabulary,
)

_KEY = "tokenizer.ggml."
_SPACE = "▁"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TEMPLATE = "tokenizer.chat_template"


def read_tokenizer(file: GgufFile, account: Account) -> tuple[Any, frozenset[int]]:
    """A transformers tokenizer, and the ids that end an answer.

    Raises UnsupportedModel for tokenizers that cannot be stated.
    """
    model = account.take(f"{_KEY}model")
    if model not in _BUILDERS:
        raise UnsupportedModel(
            f"{file.path} has tokenizer.ggml.model {model!r}; read here: {', '.join(_BUILDERS)}; "
            "export the model's Hugging Face folder instead"
        )
    with reading(f"{file.path} has no tokenizer that can be read"):
        vocabulary = read_vocabulary(file, account, model)
        tokenizer, add_bos = _BUILDERS[model](file, account, vocabulary)
        _add_special_tokens(tokenizer, vocabulary)
        _add_ends(tokenizer, file, account, vocabulary, add_bos)
        return _wrapped(tokenizer, account, vocabulary), vocabulary.ends


def _byte_level(
    file: GgufFile, account: Account, vocabulary: Vocabulary
) -> tuple[tokenizers.Tokenizer, bool]:
    """`gpt2`: bytes written as letters, cut by the pre-tokenizer and merged by rank."""
    rule = find_pretokenizer(account.take(f"{_KEY}pre"))
    _refuse_prefix(file, account)
    merges = account.take(f"{_KEY}merges")
    if merges is None:
        raise UnsupportedModel(f"{file.path} has no tokenizer.ggml.merges; {WAY_OUT}")
    account.take(f"{_KEY}scores")  # of no use to merges
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    pairs = []
    for merge in merges:
        left, _, right = merge[1:].partition(" ")
        pair = (merge[:1] + left, right)
        # A rank whose result is no token would be taken apart again into bytes.
        if not {*pair, "".join(pair)} <= ids.keys():
            raise UnsupportedModel(
                f"{file.path} has the merge {merge!r}, whose parts are not all tokens; {WAY_OUT}"
            )
        pairs.append(pair)
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, pairs, ignore_merges=rule.ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), "isolated") for split in rule.splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, rule.add_bos


def _refuse_prefix(file: GgufFile, account: Account) -> None:
    if account.take(f"{_KEY}add_space_prefix", False):
        raise UnsupportedModel(
            f"{file.path} has add_space_prefix beside tokenizer.ggml.model 'gpt2', which has no "
            f"such prefix; {WAY_OUT}"
        )


def _sentencepiece(
    file: GgufFile, account: Account, vocabulary: Vocabulary
) -> tuple[tokenizers.Tokenizer, bool]:
    """`llama`: spaces become ▁, characters are merged by the score of what they make."""
    account.take(f"{_KEY}pre")  # "default": this model has none
    account.take(f"{_KEY}merges")  # the scores decide
    scores = account.take(f"{_KEY}scores")
    if scores is None or len(scores) != len(vocabulary.tokens) or len(set(scores)) == 1:
        raise UnsupportedModel(
            f"{file.path} has no tokenizer.ggml.scores for its tokens; {WAY_OUT}"
        )
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    unknown = vocabulary.text("unknown")
    if unknown is None and not ids.keys() >= set(_BYTES):
        raise UnsupportedModel(
            f"{file.path} has neither tokens for all bytes nor an unknown token; {WAY_OUT}"
        )
    merges = [
        (scores[number], number, token[:cut], token[cut:])
        for token, number in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    merges.sort(key=lambda merge: (-merge[0], merge[1]))
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            ids,
            [(left, right) for _, _, left, right in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = account.take(f"{_KEY}add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if prefix else []), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return tokenizer, True


_BUILDERS: dict[
    str, Callable[[GgufFile, Account, Vocabulary], tuple[tokenizers.Tokenizer, bool]]
] = {"gpt2": _byte_level, "llama": _sentencepiece}


def _add_special_tokens(tokenizer: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    """Tokens that are found in text before anything is cut; control ones are special."""
    for special, kinds in ((True, (CONTROL, UNKNOWN)), (False, (USER_DEFINED,))):
        tokenizer.add_tokens(
            [
                AddedToken(token, special=special, normalized=False)
                for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
                if kind in kinds
            ]
        )


def _add_ends(
    tokenizer: tokenizers.Tokenizer,
    file: GgufFile,
    account: Account,
    vocabulary: Vocabulary,
    add_bos: bool,
) -> None:
    """What is put around a text: the file's flags, else the tokenizer's own."""
    wanted = {
        "bos": account.take(f"{_KEY}add_bos_token", add_bos and "bos" in vocabulary.special),
        "eos": account.take(f"{_KEY}add_eos_token", False),
    }
    if account.take(f"{_KEY}add_sep_token", False):
        raise UnsupportedModel(f"{file.path} has add_sep_token, which is BERT's; {WAY_OUT}")
    for name, added in wanted.items():
        if added and name not in vocabulary.special:
            raise UnsupportedModel(
                f"{file.path} has add_{name}_token without {name}_token_id; {WAY_OUT}"
            )
    before, after = ([f"<{name}>"] if wanted[name] else [] for name in ("bos", "eos"))
    if not before and not after:
        return
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B:1", *after],
        special_tokens=[
            {
                "id": f"<{name}>",
                "ids": [vocabulary.special[name]],
                "tokens": [vocabulary.text(name)],
            }
            for name in ("bos", "eos")
            if wanted[name]
        ],
    )


def _wrapped(tokenizer: tokenizers.Tokenizer, account: Account, vocabulary: Vocabulary) -> Any:
    """The transformers tokenizer of these parts, with the file's chat templates."""
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    special = {
        words: vocabulary.text(name)
        for name, words in names.items()
        # transformers would make an ordinary word special.
        if name in vocabulary.special
        and vocabulary.kinds[vocabulary.special[name]] in (CONTROL, UNKNOWN)
    }
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    default = account.take(_TEMPLATE)
    named = {
        name: account.take(f"{_TEMPLATE}.{name}")
        for name in account.take("tokenizer.chat_templates") or []
    }
    fast.chat_template = ({"default": default} if default else {}) | named if named else default
    return fast
