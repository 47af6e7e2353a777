"""Tokenizers of the families that a prompt must survive, built here so that nothing is fetched.

And a model that plans.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

import tightrope as tr
from tightrope.latency_file import write_latency
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model
from tightrope.runtime.tokenizer import Tokenizer

REFERENCE = Path(__file__).parents[2] / "models" / "reference"
CORPUS = [
    "the quick brown fox jumps over the lazy dog, and then it sleeps",
    "what is the colour of the cup? it is red. naïve café 你好 世界 😀 ünïcode",
    "a <|im_end|> b <|im_end|> c <|im_end|> d <|im_end|>",
    "def main():\n    return 1\n\n\nuser assistant system im_end im_start",
]
SENTENCEPIECE_WORDS = ["he", "hello", "▁hello", "▁w", "▁wo", "▁world", "▁the", "▁cup", "you"]


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3 and Qwen: every byte has a letter, control tokens stand outside."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    specials = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|vision|>", "<|image_pad|>"]
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens(["<think>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )
    return tokenizer


def byte_fallback() -> tokenizers.Tokenizer:
    """As Llama 2: SentencePiece's BPE, a space before the text, bytes for unknown characters."""
    pieces = sorted(set("".join(SENTENCEPIECE_WORDS) + "<>/s!.\ufffd"))
    merges = [(word[:n], word[n]) for word in SENTENCEPIECE_WORDS for n in range(1, len(word))]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary += [left + right for left, right in merges]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(dict.fromkeys(vocabulary))},
            list(dict.fromkeys(merges)),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def unigram() -> tokenizers.Tokenizer:
    """As T5 and Gemma 1: the control tokens are pieces of the model, a space goes first only."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *SENTENCEPIECE_WORDS, *"abcdefghijklmnopqrstuvwxyz<>/"]
    scores = [(piece, -float(i)) for i, piece in enumerate(dict.fromkeys(pieces))]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", AddedToken("<|user|>", rstrip=True)])
    return tokenizer


def reference() -> tokenizers.Tokenizer:
    """The reference model's own: whole words, no decoder, control tokens among the words."""
    return tokenizers.Tokenizer.from_file(str(REFERENCE / "tokenizer.json"))


BACKENDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte_level": functools.cache(byte_level),
    "byte_fallback": functools.cache(byte_fallback),
    "unigram": functools.cache(unigram),
    "reference": functools.cache(reference),
}
SPECIAL_TOKENS = {
    "byte_level": {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"},
    "byte_fallback": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "unigram": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "reference": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "image_token": "<image>",
    },
}

MakeTokenizer = Callable[..., Tokenizer]


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MakeTokenizer:
    """`make_tokenizer(family, add_special_tokens=False)`, read from a file as a bundle's is."""
    folder = tmp_path_factory.mktemp("tokenizers")

    @functools.cache
    def make(family: str, add_special_tokens: bool = False) -> Tokenizer:
        path = folder / f"{family}.json"
        BACKENDS[family]().save(str(path))
        return Tokenizer(path, SPECIAL_TOKENS[family], add_special_tokens)

    return make


@pytest.fixture(scope="session")
def backends() -> dict[str, Callable[[], tokenizers.Tokenizer]]:
    """The bare `tokenizers` objects by family."""
    return BACKENDS


@pytest.fixture(scope="session")
def special_tokens() -> dict[str, dict[str, str]]:
    """Names and spellings of the special tokens by family."""
    return SPECIAL_TOKENS


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The folder of the bundled reference model, in Hugging Face's layout."""
    return REFERENCE


@pytest.fixture(scope="session")
def qwen(
    checkpoint: Callable[[str], Path], hugging_face: Callable[[str], Any], module_of: Any
) -> Callable[[str], Any]:
    """`qwen("qwen3_vl")`: what `qwen_oracle.py` knows of a checkpoint."""
    pytest.importorskip("torch", reason="the oracle is Hugging Face's model")
    oracle = module_of(Path(__file__).parent / "qwen_oracle.py")
    return lambda name: oracle.Qwen(hugging_face(name), checkpoint(name))


@pytest.fixture(scope="session")
def gemma(
    checkpoint: Callable[[str], Path], hugging_face: Callable[[str], Any], module_of: Any
) -> Any:
    """What `gemma_oracle.py` knows of the checkpoint "gemma3-vl"."""
    pytest.importorskip("torch", reason="the oracle is Hugging Face's model")
    oracle = module_of(Path(__file__).parent / "gemma_oracle.py")
    return oracle.Gemma(hugging_face("gemma3-vl"), checkpoint("gemma3-vl"))


@pytest.fixture
def planned(
    bundle: Callable[[str], Path],
    synthetic: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Model:
    """A model with a latency file of its own."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    model = tr.load(bundle("llava"), "onnxruntime", 1, live=False)
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    return model
