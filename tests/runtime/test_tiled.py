"""Towers over tiles from end to end: what is answered is what Hugging Face's model would say.

Hugging Face's own processor says what an image puts into a prompt, and its model what tokens are
made of it; nothing of that is taken from the bundle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.inputs.layout import Placed, runs_of
from tightrope.point import OperatingPoint
from tightrope.runtime.model import Model

transformers = pytest.importorskip("transformers", reason="the oracle is Hugging Face's model")

Find = Callable[[str], Path]
Load = Callable[[str], Model]
HuggingFace = Callable[[str], Any]
TILED = ("llava-next", "llava-onevision", "smolvlm", "internvl")
FAMILIES = ("llava-siglip", *TILED)
LOGITS = 2e-4
QUESTION = "what is on the left?"
STEPS = 6
SIZES = [(100, 60), (30, 90), (28, 28)]


_STRATEGY = "vision_feature_select_strategy"
PROCESSORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llava-next": (
        "llava_next",
        {"patch_size": 7, _STRATEGY: "default", "num_additional_image_tokens": 1},
        {},
    ),
    "llava-onevision": (
        "llava_onevision",
        {"num_image_tokens": 16, _STRATEGY: "full", "vision_aspect_ratio": "anyres_max_4"},
        {},
    ),
    "smolvlm": (
        "idefics3",
        {
            "image_seq_len": 4,
            "fake_image_token": "<fake_token_around_image>",
            "global_image_tag": "<global-img>",
        },
        {"return_row_col_info": True},
    ),
    "internvl": (
        "internvl",
        {"image_seq_length": 4, "start_image_token": "<img>", "end_image_token": "</img>"},
        {"crop_to_patches": True},
    ),
}
"""Hugging Face's processor of a family: its module, what it is told, what it asks of pixels."""


def picture(size: tuple[int, int]) -> PIL.Image.Image:
    rng = np.random.default_rng(size)
    return PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


class Oracle:
    """Hugging Face's processor and model of one family."""

    def __init__(self, name: str, folder: Path, model: Any) -> None:
        self.model, self._name = model, name
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.pixels = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")

    def image(self, image: PIL.Image.Image, **limits: Any) -> tuple[list[int], Any]:
        """What one image puts into the prompt: ids, and embeddings [S,E]."""
        import torch

        made, text = self._expanded(image, limits)
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        given = {key: made[key] for key in ("pixel_values", "image_sizes") if key in made}
        seen = self.model.model.get_image_features(**given).pooler_output
        features = (
            torch.cat(list(seen)) if not isinstance(seen, torch.Tensor) else seen.flatten(0, 1)
        )
        visual = torch.tensor(ids) == self.model.config.image_token_id
        embeds = self.model.get_input_embeddings()(torch.tensor(ids))
        assert int(visual.sum()) == len(features), "the processor and the model agree"
        embeds[visual] = features.to(embeds.dtype)
        return ids, embeds

    def _expanded(self, image: PIL.Image.Image, limits: dict[str, Any]) -> tuple[Any, str]:
        """The processor's inputs, and the text that it writes in a placeholder's place."""
        if self._name == "llava-siglip":
            return self.pixels(images=[image], return_tensors="pt"), "<image>" * 16
        module, told, asked = PROCESSORS[self._name]
        made = self.pixels(images=[image], return_tensors="pt", **asked, **limits)
        found = importlib.import_module(f"transformers.models.{module}.processing_{module}")
        (kind,) = (getattr(found, name) for name in found.__all__)
        # Made without its parts: some want what decodes videos.
        processor = object.__new__(kind)
        vars(processor).update(told, image_token="<image>", image_processor=self.pixels)
        return made, processor.replace_image_token(made, 0)

    def prompt(self, ids: list[int], images: list[Any]) -> Any:
        """Embeddings [S,E] of prompt ids, images [S,E] in the place of their placeholders."""
        import torch

        waiting, table = iter(images), self.model.get_input_embeddings()
        marker = self.model.config.image_token_id
        parts = [next(waiting) if i == marker else table(torch.tensor([i])) for i in ids]
        return torch.cat(parts)


@pytest.fixture(scope="module")
def oracle_of(checkpoint: Find, hugging_face: HuggingFace) -> Callable[[str], Oracle]:
    return lambda name: Oracle(name, checkpoint(name), hugging_face(name))


def placed(model: Model, ids: list[int], sizes: list[tuple[int, int]]) -> list[Placed]:
    """The runs of a prompt whose images have these sizes, at the bundle's own resolution."""
    manifest = model.bundle.manifest
    assert manifest.vision is not None and manifest.tower is not None
    side = manifest.vision.resolutions[0]
    layouts = [manifest.tower.layout(size, side) for size in sizes]
    return list(runs_of(ids, manifest.vision.image_token_id, layouts, 0))


def visual_places(runs: list[Placed]) -> list[int]:
    return [run.ordinal + i for run in runs for i in range(run.count)]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_puts_into_the_prompt_what_the_processor_puts_there(
    name: str, loaded: Load, oracle_of: Callable[[str], Oracle]
) -> None:
    model, theirs = loaded(name), oracle_of(name)
    manifest = model.bundle.manifest
    assert manifest.vision is not None
    marker, vocabulary = manifest.vision.image_token_id, manifest.dims.vocab_size
    for size in (*SIZES, (200, 30), (17, 90)):
        expected, _ = theirs.image(picture(size))
        found: list[int] = []
        for run in placed(model, [marker], [size]):
            # The newlines of LLaVA-NeXT are image tokens there.
            found += [marker if token >= vocabulary else token for token in run.ids]
            found += [marker] * run.count
        assert found == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_several_sizes_are_answered_as_by_hugging_face(
    name: str, recorded: Load, oracle_of: Callable[[str], Oracle], oracle: Any
) -> None:
    model, theirs = recorded(name), oracle_of(name)
    backend: Any = model.backend
    pictures = [picture(size) for size in SIZES]
    answer = model.generate(QUESTION, pictures, max_tokens=STEPS, ignore_eos=True)
    ids = model.token_ids(QUESTION, len(pictures))
    embeds = theirs.prompt(ids, [theirs.image(image)[1] for image in pictures])
    assert answer.usage.prompt_tokens == len(embeds)
    count = model.count(QUESTION, pictures)
    runs = placed(model, ids, SIZES)
    assert answer.usage.visual_tokens == count.visual_tokens == len(visual_places(runs))
    assert count.prompt_tokens == len(embeds)
    expected = oracle.continued(theirs.model, embeds, answer.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)
    assert expected.argmax(-1).tolist() == list(answer.token_ids)


@pytest.mark.parametrize("name", ["llava-next", "smolvlm", "internvl"])
def test_a_second_turn_brings_an_image_of_another_size(
    name: str, recorded: Load, oracle_of: Callable[[str], Oracle], oracle: Any
) -> None:
    model, theirs = recorded(name), oracle_of(name)
    backend: Any = model.backend
    chat, pictures = model.chat(), [picture(size) for size in SIZES[:2]]
    chat.ask("what is it?", pictures[:1], max_tokens=4)
    backend.forget()
    last = chat.ask("and this one?", pictures[1:], max_tokens=4)
    ids = model.token_ids(chat.messages[:-1], 2)
    embeds = theirs.prompt(ids, [theirs.image(image)[1] for image in pictures])
    assert last.usage.prompt_tokens == len(embeds)
    expected = oracle.continued(theirs.model, embeds, last.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)
    assert expected.argmax(-1).tolist() == list(last.token_ids)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in FAMILIES for method in ("divprune", "uniform")),
        ("llava-next", "flashvlm"),
        ("llava-next", "visionzip"),
    ],
)
def test_a_selector_keeps_its_share_of_each_image_and_every_separator(
    name: str,
    method: str,
    recorded: Load,
    oracle_of: Callable[[str], Oracle],
    oracle: Any,
) -> None:
    model, theirs = recorded(name), oracle_of(name)
    backend: Any = model.backend
    pictures = [picture(size) for size in SIZES]
    point = OperatingPoint(selector=method, keep="25%")
    answer = model.generate(QUESTION, pictures, max_tokens=STEPS, ignore_eos=True, point=point)
    ids = model.token_ids(QUESTION, len(pictures))
    embeds = theirs.prompt(ids, [theirs.image(image)[1] for image in pictures])
    given, ordinals = backend.prompt
    dropped = set(range(len(embeds))) - set(ordinals.tolist())
    runs = placed(model, ids, SIZES)
    visual = visual_places(runs)
    assert dropped < set(visual)
    for image in range(len(pictures)):
        own = visual_places([run for run in runs if run.image == image])
        # Merged tokens may share a place.
        assert int(np.isin(ordinals, own).sum()) == -(-len(own) // 4)
    count = model.count(QUESTION, pictures, point=point)
    assert count.visual_tokens_kept == answer.usage.visual_tokens_kept
    shortened = embeds[ordinals.tolist()]
    text = ~np.isin(ordinals, visual)
    np.testing.assert_allclose(given[text], shortened.numpy()[text], atol=1e-6)
    if method != "visionzip":  # whose merged tokens are its own, and some share an ordinal
        np.testing.assert_allclose(given, shortened.numpy(), atol=LOGITS)
        expected = oracle.continued(theirs.model, shortened, answer.token_ids, ordinals)
        np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("keep", ["100%", "most"])
def test_keeping_everything_changes_no_token(name: str, keep: str, recorded: Load) -> None:
    model = recorded(name)
    backend: Any = model.backend
    tower, vision = model.bundle.manifest.tower, model.bundle.manifest.vision
    assert tower is not None and vision is not None
    # A count that only the largest image has: all of every other.
    count = tower.most_tokens(vision.resolutions[0])
    pictures = [picture(size) for size in SIZES]
    whole = model.generate(QUESTION, pictures, max_tokens=STEPS)
    logits = backend.logits
    backend.forget()
    point = OperatingPoint(selector="divprune", keep=keep if keep.endswith("%") else count)
    kept = model.generate(QUESTION, pictures, max_tokens=STEPS, point=point)
    assert kept.token_ids == whole.token_ids
    assert kept.usage.visual_tokens_kept == whole.usage.visual_tokens
    np.testing.assert_array_equal(backend.logits, logits)


def test_a_budget_as_long_as_the_prompt_and_its_answer_changes_no_token(loaded: Load) -> None:
    for name in FAMILIES:
        model, pictures = loaded(name), [picture(size) for size in SIZES]
        whole = model.generate(QUESTION, pictures, max_tokens=STEPS)
        point = OperatingPoint(kv_budget=whole.usage.prompt_tokens + STEPS, policy="h2o")
        kept = model.generate(QUESTION, pictures, max_tokens=STEPS, point=point)
        assert kept.token_ids == whole.token_ids


def test_fastv_leaves_the_sum_of_the_keeps_and_every_separator(recorded: Load) -> None:
    model = recorded("smolvlm")
    backend: Any = model.backend
    pictures = [picture(size) for size in SIZES]
    point = OperatingPoint(selector="fastv", keep="25%")
    answer = model.generate(QUESTION, pictures, max_tokens=STEPS, ignore_eos=True, point=point)
    runs = placed(model, model.token_ids(QUESTION, 3), SIZES)
    visual = visual_places(runs)
    held = set(backend.slots.position[2][0, 0].tolist()) - {-1}
    missing = set(range(answer.usage.prompt_tokens)) - held
    assert missing < set(visual)
    assert len(visual) - len(missing) == answer.usage.visual_tokens_kept
    own = [len(visual_places([run for run in runs if run.image == i])) for i in range(3)]
    assert answer.usage.visual_tokens_kept == sum(-(-count // 4) for count in own)


@pytest.mark.parametrize(
    ("name", "resolution", "limits"),
    [
        ("smolvlm", 56, {"size": {"longest_edge": 56}}),
        ("internvl", 49, {"max_patches": 3}),
    ],
)
def test_at_a_lower_resolution_the_answer_is_that_of_fewer_tiles(
    name: str,
    resolution: int,
    limits: dict[str, Any],
    recorded: Load,
    oracle_of: Callable[[str], Oracle],
    oracle: Any,
) -> None:
    model, theirs = recorded(name), oracle_of(name)
    backend: Any = model.backend
    pictures = [picture(size) for size in SIZES[:2]]
    point = OperatingPoint(resolution=resolution)
    answer = model.generate(QUESTION, pictures, max_tokens=STEPS, ignore_eos=True, point=point)
    whole = model.count(QUESTION, pictures)
    assert answer.usage.visual_tokens < whole.visual_tokens
    ids = model.token_ids(QUESTION, len(pictures))
    embeds = theirs.prompt(ids, [theirs.image(image, **limits)[1] for image in pictures])
    expected = oracle.continued(theirs.model, embeds, answer.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)


@pytest.mark.parametrize("name", TILED)
def test_an_image_too_long_and_thin_is_refused_before_anything_runs(
    name: str, loaded: Load
) -> None:
    model, thin = loaded(name), picture((2010, 10))
    for ask in (model.count, model.generate):
        with pytest.raises(InputError, match=r"2010 x 10 pixels.*cut it into pieces"):
            ask(QUESTION, [thin])


def test_a_count_beyond_the_largest_image_is_refused(loaded: Load) -> None:
    model = loaded("internvl")
    point = OperatingPoint(selector="divprune", keep=29)
    with pytest.raises(InputError, match="keep is 29; an image has 28 tokens here"):
        model.generate(QUESTION, [picture((28, 28))], point=point)


def test_an_image_that_is_asked_about_again_is_not_computed_again(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("internvl")
    fresh = Model(model.bundle, model.backend)
    calls, real = [], model.backend.vision

    def counted(inputs: Any, cancel: Any) -> Any:
        calls.append(len(inputs["pixel_values"]))
        return real(inputs, cancel)

    monkeypatch.setattr(model.backend, "vision", counted)
    pictures = [picture((100, 60)), picture((28, 28)), picture((100, 60))]
    fresh.generate(QUESTION, pictures, max_tokens=1)
    fresh.generate(QUESTION, pictures[:2], max_tokens=1)
    assert calls == [7, 1]
