"""How byte-level vocabularies cut text before merging, by the name in `tokenizer.ggml.pre`.

The names and what they stand for are llama.cpp's (src/llama-vocab.cpp). Each split acts on the
pieces that the one before it left; what it does not match stays a piece.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.errors import UnsupportedModel

_ENGLISH = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
"""'s, 't, 'm, 'd, 're, 've, 'll."""
_BREAKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|\s+(?!\S)|\s+"
_CJK = r"[一-龥぀-ゟ゠-ヿ]+"
_EAST_ASIAN = r"[[ࠀ-一一-龥가-퟿]&&[^\s]]+"
_CASED_LETTERS = (
    r"[[\p{Lu}\p{Ll}\p{Lt}]&&"
    "[^\u0560-\u0588\u10c7-\u10ff\u1c80-\u1c88\u2d00-\u2d2d\ua790-\ua7fa\uab30-\uab68"
    "\U00010570-\U000105bc\U00016e40-\U00016e7f\U0001d400-\U0001df1e]]"
)
"""Letters that have cases, but those of some alphabets."""
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _words(digits: str, *, letters: str = r"\p{L}", english: str = f"{_ENGLISH}|") -> str:
    """Words with the sign before them, runs of `digits`, symbols with the breaks behind them."""
    others = r"\s\p{N}" + letters.strip("[]")
    return rf"{english}[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}| ?[^{others}]+[\r\n]*|{_BREAKS}"


def _cased(digits: str, suffix: str = "") -> str:
    """Words that end where a small letter is followed by a capital one of ASCII."""
    large, small = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
    sign = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{sign}{large}*{small}+{suffix}|{sign}{large}+{small}*{suffix}|{digits}|"
        rf"{_SYMBOLS}[\r\n/]*|{_BREAKS}"
    )


@dataclass(frozen=True, slots=True)
class Pretokenizer:
    """One way to cut."""

    splits: tuple[str, ...]
    ignore_merges: bool = False
    """Whether a piece that is a token needs no merges to be one."""
    add_bos: bool = False
    """Whether a beginning is added where the file does not say."""


_LLAMA3 = (_words(r"\p{N}{1,3}"),)
_QWEN2 = (_words(_DIGIT),)
_MARKED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _BREAKS
)
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")

_GROUPS: tuple[tuple[str, Pretokenizer], ...] = (
    ("default", Pretokenizer(_DEFAULT)),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        Pretokenizer(_LLAMA3, ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", Pretokenizer(_LLAMA3)),
    ("glm4 glm5", Pretokenizer(_LLAMA3, ignore_merges=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2",
        Pretokenizer(_QWEN2),
    ),
    ("qwen35", Pretokenizer((_words(_DIGIT, letters=r"[\p{L}\p{M}]"),))),
    ("ufakzeka", Pretokenizer((_words(_DIGIT, english=""),))),
    (
        "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling",
        Pretokenizer((_GPT2,)),
    ),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        Pretokenizer((_DIGIT, _GPT2)),
    ),
    ("falcon", Pretokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))),
    (
        "deepseek-coder",
        Pretokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, _DIGIT)),
    ),
    (
        "deepseek-llm",
        Pretokenizer(
            (
                r"[\r\n]",
                rf"\s?{_CASED_LETTERS}+",
                r"\s?[!-/:-~！-／：-～‘-‟、-。]+",
                r"\s+$",
                _EAST_ASIAN,
                r"\p{N}+",
            )
        ),
    ),
    (
        "spark2_5",
        Pretokenizer(
            (r"\p{N}{1,3}", _CJK, _MARKED.replace(r"[\r\n]*|\s*[\r\n]+|", r"|[\r\n]|"), _DIGIT)
        ),
    ),
    (
        "youtu",
        Pretokenizer(
            (
                rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_CJK}",
                rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+(?:{_ENGLISH})?|{_DIGIT}|"
                rf"{_SYMBOLS}[\r\n/]*|{_BREAKS}",
            ),
            ignore_merges=True,
        ),
    ),
    (
        "jais-2",
        Pretokenizer(
            (
                _LLAMA3[0].removesuffix(r"\s+(?!\S)|\s+")
                + "|".join(rf"\s{{{2**power}}}(?!\S)" for power in range(9, 1, -1))
                + r"|\s{1,2}(?!\S)|\s",
            )
        ),
    ),
    (
        "exaone-moe",
        Pretokenizer(
            (
                rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|"
                rf"\p{{N}}|{_SYMBOLS}[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Pretokenizer((r"\p{N}{1,3}", _CJK, _MARKED))),
    ("tekken", Pretokenizer((_cased(_DIGIT),), ignore_merges=True, add_bos=True)),
    (
        "gpt-4o llama4 kanana2 talkie minimax-m2",
        Pretokenizer((_cased(r"\p{N}{1,3}", f"(?:{_ENGLISH})?"),)),
    ),
    ("poro-chat bloom gpt3-finnish", Pretokenizer((_BLOOM,))),
    ("viking", Pretokenizer((_BLOOM, _DIGIT))),
    (
        "bailingmoe bailingmoe2 llada-moe",
        Pretokenizer((_words(_DIGIT).replace(r"\s*[\r\n]+|", r"\s*[\r\n]|"),)),
    ),
    (
        "seed-coder",
        Pretokenizer(
            (
                rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|"
                rf" ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BREAKS}",
            )
        ),
    ),
    ("laguna", Pretokenizer((r"[^\n]+|[\n]+", *_QWEN2))),
    ("minicpm5", Pretokenizer((r"\p{N}{1,3}", _words(r"\p{N}+")), ignore_merges=True)),
)
PRETOKENIZERS = {name: entry for names, entry in _GROUPS for name in names.split()}


def find_pretokenizer(name: str | None) -> Pretokenizer:
    """The entry of `tokenizer.ggml.pre`; None, of older files, is "default".

    Raises UnsupportedModel for a name that is not known: its text would be cut wrongly.
    """
    name = name or "default"
    if name not in PRETOKENIZERS:
        raise UnsupportedModel(
            f"tokenizer.ggml.pre is {name!r}, a way to cut text that is not known here; "
            "export the model's Hugging Face folder instead"
        )
    return PRETOKENIZERS[name]
