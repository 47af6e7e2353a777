"""Calibration sets: what a model is called with for them, what they change, which are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.cli.export import calibration_of  # noqa: E402
from tightrope.errors import InputError  # noqa: E402
from tightrope.export.calibration import PROMPTS, TOKENS, Sample, prompts, read_text  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.own_codes import own_codes  # noqa: E402
from tightrope.export.recipe import plan  # noqa: E402
from tightrope.progress import silent  # noqa: E402

Find = Callable[[str], Path]
TEXT = Sample(text="the quick brown fox jumps over the lazy dog and runs away. " * 40)


def opened(path: Path, **options: Any) -> tuple[Any, Any]:
    """Recipe and late model of an int4 export."""
    config = ExportConfig(**{"precision": "int4", **options})
    checkpoint = open_checkpoint(path)
    return plan(checkpoint, config), checkpoint.late_model()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_text_is_read_in_pieces_and_drawn_by_the_seed(checkpoint: Find) -> None:
    long = Sample(text=TEXT.text * 20)
    recipe, late = opened(checkpoint("llama"))
    found = prompts(recipe, late, [long])
    assert len(found) == PROMPTS
    assert all(one["input_ids"].shape == (1, TOKENS) for one in found)
    again = prompts(recipe, late, [long])
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
    others = prompts(opened(checkpoint("llama"), seed=1)[0], late, [long])
    assert any(
        not torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(found, others, strict=True)
    )


def test_a_question_about_a_picture_is_what_the_model_would_see(
    checkpoint: Find, picture: Path
) -> None:
    messages = (
        {"role": "user", "content": "what is it ?"},
        {"role": "assistant", "content": "red"},
    )
    recipe, late = opened(checkpoint("reference"))
    (found,) = prompts(recipe, late, [Sample(messages=messages, image=picture)])
    text = recipe.tokenizer.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "what is it ?"}],
            },
            messages[1],
        ],
        chat_template=recipe.chat_template,
        tokenize=False,
    )
    ids = recipe.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    # 576 visual tokens take the placeholder's place.
    assert found["inputs_embeds"].shape == (1, len(ids) - 1 + 576, recipe.dims.hidden_size)
    assert found["inputs_embeds"].isfinite().all()


@pytest.mark.parametrize(
    ("samples", "said"),
    [([], "has no text"), ([Sample(text="")], "has no text"), ([Sample()], "has no text")],
)
def test_a_set_without_text_is_refused(samples: Any, said: str, checkpoint: Find) -> None:
    with pytest.raises(InputError, match=said):
        prompts(*opened(checkpoint("llama")), samples)


def test_a_set_of_pictures_is_no_set_for_a_text_model(checkpoint: Find, picture: Path) -> None:
    sample = Sample(messages=({"role": "user", "content": "what is it ?"},), image=picture)
    with pytest.raises(InputError, match=r"shows '.*picture.png', and .* is a text model"):
        prompts(*opened(checkpoint("llama")), [sample])


def test_a_picture_that_is_none_is_named(checkpoint: Find, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture", encoding="utf-8")
    sample = Sample(
        messages=({"role": "user", "content": "what is it ?"},), image=tmp_path / "bad.png"
    )
    with pytest.raises(InputError, match=r"bad\.png', which cannot be read"):
        prompts(*opened(checkpoint("reference")), [sample])


@pytest.mark.parametrize("content", [b"", b" \n\t", b"\xff\xfe\xfd"])
def test_a_file_without_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"set\.txt' (has no text|cannot be read)"):
        read_text(tmp_path / "set.txt")
    with pytest.raises(InputError, match=r"missing\.txt' cannot be read"):
        read_text(tmp_path / "missing.txt")


def test_a_task_is_its_questions_with_their_answers(tmp_path: Path, picture: Path) -> None:
    lines = [
        {"id": "a", "images": ["picture.png"], "question": "what ?", "answer": ["red", "crimson"]},
        {"id": "b", "question": "why ?"},
    ]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "task.jsonl").write_text(text, encoding="utf-8")
    first, second = calibration_of(tmp_path)
    assert [message["content"] for message in first.messages] == ["what ?", "red"]
    assert first.image is not None and first.image.name == picture.name
    assert second.image is None and len(second.messages) == 1
    (tmp_path / "set.txt").write_text("some words", encoding="utf-8")
    assert calibration_of(tmp_path / "set.txt") == [Sample(text="some words")]


CHOICES = {"symmetric": True, "head_bits": 8, "bits": 6.0}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_has_no_effect_is_refused(choice: str, checkpoint: Find) -> None:
    recipe, late = opened(checkpoint("llama"), precision="fp16", **{choice: CHOICES[choice]})
    with pytest.raises(InputError, match=f"{choice} has no effect in fp16; ask for int4"):
        own_codes(recipe, late, None, silent)
    kept = dataclasses.replace(
        late, published={"w": dataclasses.make_dataclass("P", ["read"])(len)}
    )
    recipe, _ = opened(checkpoint("llama"), **{choice: CHOICES[choice]})
    with pytest.raises(InputError, match=f"{choice} has no effect: the checkpoint's own codes"):
        own_codes(recipe, kept, None, silent)


def test_a_calibration_set_has_no_effect_on_floats(checkpoint: Find) -> None:
    recipe, late = opened(checkpoint("llama"), precision="fp32")
    with pytest.raises(InputError, match="a calibration set has no effect in fp32"):
        own_codes(recipe, late, [TEXT], silent)


def test_an_export_with_all_of_it_says_what_it_did(checkpoint: Find, tmp_path: Path) -> None:
    config = ExportConfig(
        precision="int4",
        head_bits=8,
        bits=6.5,
        slots=64,
        prefill_chunk=32,
    )
    summary = export(checkpoint("qwen2"), tmp_path / "m.bundle", config, calibration=[TEXT])
    assert summary.parity is not None and summary.parity.logits <= summary.parity.allowed
    stored = Bundle.open(tmp_path / "m.bundle").manifest.weights
    assert stored == summary.weights
    assert stored["head"].stored == {"int8 by 64, float16 for TensorRT": 1}
    kinds = {**stored["attention"].stored, **stored["mlp"].stored}
    assert any(kind.startswith("int4 by 64 with zero points") for kind in kinds)
    scaled, wide = summary.notes[:2]
    assert "by the activations of" in scaled and "logit error" in scaled
    said = (
        r"\d+ of 15 matrices have 8 bits, all together ([\d.]+) a weight, not 5\.\d+: "
        r"logit error (.*), not (.*): model"
    )
    bits, less, more = map(float, re.match(said, wide).groups())  # type: ignore[union-attr]
    assert bits <= 6.5 and less < more
