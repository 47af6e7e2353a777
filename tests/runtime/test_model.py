"""Answers through the public interface against Hugging Face's model read without a cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.profiles.task.task import read_task
from tightrope.runtime.model import Model
from tightrope.runtime.thought import after_thought

Load = Callable[[str], Model]
HuggingFace = Callable[[str], Any]
Floats = npt.NDArray[np.float32]

LOGITS = 1e-4
"""Largest difference of logits in float32."""
REFERENCE = Path(__file__).parents[2] / "models" / "reference"
SCENES = Path(__file__).parents[1] / "data" / "scenes"


def prompt(length: int, seed: int = 5) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.integers(5, 256, length)]


def picture(seed: int, width: int = 80, height: int = 60) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def agree(ours: Floats, theirs: Floats, tokens: Sequence[int], tolerance: float = LOGITS) -> None:
    """Logits within `tolerance`, and every token the one that theirs would have taken."""
    np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)
    assert theirs.argmax(-1).tolist() == list(tokens)


@pytest.mark.parametrize("chunk", [32, 512])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_700_tokens_in_chunks_answer_as_hugging_face(
    name: str, chunk: int, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded(name), hugging_face(name)
    ids = prompt(700)
    model = with_chunk(model, chunk)
    answer = model.generate(ids, max_tokens=20, ignore_eos=True)
    backend: Any = model.backend
    expected = oracle.continued(theirs, oracle.text_embeds(theirs, ids), answer.token_ids)
    agree(backend.logits, expected, answer.token_ids)
    assert answer.usage.prompt_tokens == 700
    assert answer.usage.occupied_slots == 719


def with_chunk(model: Model, chunk: int) -> Model:
    """The same, reading its prompts `chunk` tokens at a time."""
    manifest = replace(model.bundle.manifest, prefill_chunk=chunk)
    return Model(Bundle(model.bundle.path, manifest), model.backend)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_budget_that_holds_everything_changes_nothing(policy: str, recorded: Load) -> None:
    model = recorded("llama")
    backend: Any = model.backend
    free = model.generate(prompt(200), max_tokens=24, ignore_eos=True)
    logits = backend.logits
    backend.forget()
    point = tr.OperatingPoint(policy=policy, kv_budget=223)
    held = model.generate(prompt(200), max_tokens=24, ignore_eos=True, point=point)
    assert held.token_ids == free.token_ids
    # Sums over another capacity round otherwise.
    np.testing.assert_allclose(backend.logits, logits, atol=LOGITS)


def test_a_half_precision_bundle_is_the_model_with_rounded_weights(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model = recorded("llama-fp16")
    backend: Any = model.backend
    rounded = copy.deepcopy(hugging_face("llama"))
    for parameter in rounded.parameters():
        parameter.copy_(parameter.half().float())
    answer = model.generate(prompt(40), max_tokens=10, ignore_eos=True)
    embeds = oracle.text_embeds(rounded, prompt(40))
    agree(backend.logits, oracle.continued(rounded, embeds, answer.token_ids), answer.token_ids)


def test_an_int4_bundle_answers_and_says_how_far_it_is(loaded: Load) -> None:
    model = loaded("llama-int4")
    parity = model.bundle.manifest.parity
    assert parity is not None and parity.logits <= parity.allowed
    assert parity.equal_tokens == parity.tokens == 9
    assert parity.int8_activations is not None and 0 < parity.int8_activations < 0.1
    assert parity.stored_weights is not None and 0 < parity.stored_weights < 1
    answer = model.generate(prompt(50), max_tokens=12, ignore_eos=True)
    assert len(answer.token_ids) == 12
    graph = (model.bundle.path / "graphs" / "host.decoder.onnx").read_bytes()
    assert b"DequantizeLinear" in graph


def test_equal_requests_are_answered_to_the_bit(recorded: Load) -> None:
    model = recorded("llama")
    backend: Any = model.backend
    first = model.generate(prompt(90), max_tokens=16)
    logits = backend.logits
    backend.forget()
    assert model.generate(prompt(90), max_tokens=16).token_ids == first.token_ids
    np.testing.assert_array_equal(backend.logits, logits)


def test_the_bundle_is_not_written_to(bundle: Callable[[str], Path], loaded: Load) -> None:
    loaded("llama").generate(prompt(40), max_tokens=5)
    Bundle.open(bundle("llama"), verify=True)


def pixels(model: Model, images: Sequence[PIL.Image.Image], side: int) -> Floats:
    """pixel_values [I,3,side,side] by Hugging Face's own processor."""
    clip = pytest.importorskip(
        "transformers.models.clip.image_processing_pil_clip",
        reason="the oracle is Hugging Face's own code",
    )
    config = model.bundle.read_json("preprocessor.json")
    square = {"height": side, "width": side}
    options = config | {"size": {"shortest_edge": side}, "crop_size": square}
    values: Floats = clip.CLIPImageProcessorPil(**options)(list(images), return_tensors="np")[
        "pixel_values"
    ]
    return values


@pytest.mark.parametrize("side", [56, 84, 28])
@pytest.mark.parametrize("count", [1, 3])
def test_images_of_every_resolution_answer_as_hugging_face(
    side: int, count: int, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    images = [picture(seed) for seed in range(count)]
    question = "which one? " + "<image> and " * count
    point = tr.OperatingPoint(resolution=side)
    answer = model.generate(question, images, max_tokens=12, ignore_eos=True, point=point)
    backend: Any = model.backend
    visual = (side // 14) ** 2
    assert answer.usage.visual_tokens == answer.usage.visual_tokens_kept == visual * count
    features = oracle.image_embeds(theirs, pixels(model, images, side))
    embeds = oracle.with_images(theirs, model.token_ids(question, count), features)
    assert answer.usage.prompt_tokens == len(embeds)
    agree(backend.logits, oracle.continued(theirs, embeds, answer.token_ids), answer.token_ids)


def test_an_image_seen_before_costs_no_vision(loaded: Load) -> None:
    model = loaded("llava")
    first = model.generate("what?", [picture(91)], max_tokens=6)
    again = model.generate("what?", [picture(91), picture(91)], max_tokens=6)
    assert first.timings.vision_ms > 0
    assert again.timings.vision_ms == 0
    alone = model.generate("what?", [picture(91)], max_tokens=6)
    assert alone.token_ids == first.token_ids


def test_images_are_kept_within_a_bound_whatever_their_size(loaded: Load) -> None:
    real = loaded("llava")

    def seen(model: Model, side: int) -> bool:
        point = tr.OperatingPoint(resolution=side)
        answer = model.generate("what?", [picture(side)], max_tokens=1, point=point)
        return answer.timings.vision_ms == 0

    whole = Model(real.bundle, real.backend)
    assert not seen(whole, 28) and not seen(whole, 84)
    assert whole._loaded.vision is not None
    model = Model(real.bundle, real.backend, image_bytes=whole._loaded.vision.kept.nbytes)
    assert [seen(model, side) for side in (84, 28, 56)] == [False] * 3
    assert [seen(model, side) for side in (28, 56, 84)] == [True, True, False]
    assert [seen(model, side) for side in (84, 56, 28)] == [True, False, False]
    nothing = Model(real.bundle, real.backend, image_bytes=0)
    assert not seen(nothing, 28) and not seen(nothing, 28)


def test_text_alone_is_answered_by_a_bundle_that_sees(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    backend: Any = model.backend
    answer = model.generate("no picture", max_tokens=10, ignore_eos=True)
    embeds = oracle.text_embeds(theirs, model.token_ids("no picture"))
    agree(backend.logits, oracle.continued(theirs, embeds, answer.token_ids), answer.token_ids)


def test_a_text_bundle_refuses_what_only_one_that_sees_can_do(loaded: Load) -> None:
    model = loaded("llama")
    with pytest.raises(InputError, match="image"):
        model.generate("what?", [picture(1)])
    with pytest.raises(InputError, match="sees no images"):
        model.generate("x", point=tr.OperatingPoint(resolution=56))
    with pytest.raises(InputError, match="sees no images"):
        model.generate("x", point=tr.OperatingPoint(selector="fastv", keep=4))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"resolution": 70}, "56, 84, 28"),
        ({"selector": "nosuch", "keep": 3}, "fastv"),
        ({"selector": "divprune", "keep": 17}, "17"),
        ({"selector": "fastv+divprune", "keep": 4}, "before"),
        ({"kv_budget": 9999}, "2048"),
        ({"kv_budget": 10}, "37 or more"),
        ({"kv_budget": (50, 60)}, "one per layer"),
    ],
)
def test_a_point_that_does_not_fit_the_bundle_is_refused(
    point: dict[str, Any], message: str, loaded: Load
) -> None:
    with pytest.raises(InputError, match=message):
        loaded("llava").generate("what?", [picture(1)], point=tr.OperatingPoint(**point))


@pytest.mark.slow
def test_the_reference_model_answers_questions_as_hugging_face(
    loaded: Load, hugging_face: HuggingFace
) -> None:
    import torch
    from transformers import AutoTokenizer

    model, theirs = loaded("reference"), hugging_face("reference")
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    kinds = ("colour", "shape", "count", "relation", "list")
    items = [item for item in read_task(SCENES).items if item.type in kinds][::40][:5]
    right = 0
    for item in items:
        image = PIL.Image.open(item.images[0]).convert("RGB")
        answer = model.generate(item.messages, [image], max_tokens=72)
        text = f"USER: <image> {item.messages[0]['content']} ASSISTANT:"
        ids: list[int] = []
        for token in tokenizer(text)["input_ids"]:
            ids += [token] * (576 if token == 4 else 1)
        generated = theirs.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            pixel_values=torch.from_numpy(pixels(model, [image], 336)),
            max_new_tokens=72,
            do_sample=False,
        )[0, len(ids) :].tolist()
        assert list(answer.token_ids) == generated
        right += after_thought(answer.text) == item.answers[0]
    assert right >= 4, "the reference model is trained for these questions"


@pytest.mark.slow
def test_smollm2_answers_as_hugging_face(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("smollm2"), copy.deepcopy(hugging_face("smollm2"))
    backend: Any = model.backend
    parity = model.bundle.manifest.parity
    assert parity is not None and parity.logits <= parity.allowed
    assert "Paris" in model.generate("What is the capital of France?", max_tokens=24).text
    for parameter in theirs.parameters():
        parameter.copy_(parameter.half().float())
    ids = np.random.default_rng(2).integers(0, 49152, 700).tolist()
    backend.forget()
    free = model.generate(ids, max_tokens=6, ignore_eos=True)
    embeds = oracle.text_embeds(theirs, ids)
    agree(
        backend.logits,
        oracle.continued(theirs, embeds, free.token_ids),
        free.token_ids,
        max(LOGITS, 3 * own_noise(theirs, embeds)),
    )
    point = tr.OperatingPoint(policy="h2o", kv_budget=705)
    held = model.generate(ids, max_tokens=6, ignore_eos=True, point=point)
    assert held.token_ids == free.token_ids


def own_noise(model: Any, embeds: Any) -> float:
    """How far Hugging Face's own attention implementations lie apart on a prompt [S,E]."""
    logits = []
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        logits.append(model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1])
    return float((logits[0] - logits[1]).abs().max())
