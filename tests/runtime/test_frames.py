"""Clips: where their frames stand, what tells their time, and a video in Hugging Face's hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.inputs.layout import ImageTokens, Visual, assemble
from tightrope.inputs.positions import find_rule
from tightrope.inputs.vision import VisionInfo
from tightrope.point import OperatingPoint
from tightrope.runtime.frames import MOST_FRAMES, place_frames, side_by_side
from tightrope.runtime.model import Model
from tightrope.runtime.options import Frame

Load = Callable[[str], Model]
Oracle = Callable[[str], Any]
STEPS = 6
BUDGETS = {"qwen2_5_vl": 72, "qwen3_vl": 96}
PLAIN = VisionInfo(
    kind="clip", image_token_id=4, image_token="<image>", resolutions=(56,), signals=(), sizes={}
)
TOLD = replace(PLAIN, timestamps=True)
MEASURED = replace(PLAIN, second=2)
IMAGE, VIDEO = {"type": "image"}, {"type": "video"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def sources(images: Sequence[Any]) -> list[Any]:
    return [image.source if isinstance(image, Frame) else image for image in images]


def frames(count: int, interval: float = 2.0) -> list[tuple[float, PIL.Image.Image]]:
    rng = np.random.default_rng(count)
    pictures = rng.integers(0, 256, (count, 50, 90, 3), np.uint8)
    return [(i * interval, PIL.Image.fromarray(one)) for i, one in enumerate(pictures)]


def test_a_question_gets_its_frames_before_the_text() -> None:
    prompt, images = place_frames("what now?", [], [(0.0, "a"), (1.55, "b")], TOLD)
    assert prompt == [
        {
            "role": "user",
            "content": [
                text("<0.0 seconds>"),
                IMAGE,
                text("<1.6 seconds>"),
                IMAGE,
                text("what now?"),
            ],
        }
    ]
    assert sources(images) == ["a", "b"]


def test_a_family_that_is_told_no_time_sees_images() -> None:
    prompt, images = place_frames("?", ["x"], [(0.0, "a"), (1.0, "b")], PLAIN)
    assert prompt == [{"role": "user", "content": [IMAGE, IMAGE, IMAGE, text("?")]}]
    assert sources(images) == ["x", "a", "b"]
    assert [image.behind for image in images if isinstance(image, Frame)] == [None, None]


def test_a_part_of_a_message_marks_where_they_stand() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "see"},
        {"role": "user", "content": [IMAGE, text("first")]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [text("before <image>"), VIDEO, IMAGE, text("after")]},
    ]
    prompt, images = place_frames(messages, ["x", "y", "z"], [(1.0, "a"), (2.5, "b")], MEASURED)
    assert isinstance(prompt, list)
    assert prompt[3]["content"] == [text("before "), IMAGE, IMAGE, IMAGE, IMAGE, text("after")]
    assert prompt[:3] == messages[:3]
    assert sources(images) == ["x", "y", "a", "b", "z"]
    assert [image.behind for image in images if isinstance(image, Frame)] == [None, 3]


def test_among_token_ids_the_frames_come_last() -> None:
    prompt, images = place_frames([5, 4, 6, 4, 4], ["x"], [(0, "a"), (1, "b")], PLAIN)
    assert prompt == [5, 4, 6, 4, 4] and sources(images) == ["x", "a", "b"]


def test_without_frames_nothing_changes() -> None:
    messages = [{"role": "user", "content": "hm"}]
    assert place_frames(messages, ["x"], [], None) == (messages, ["x"])


WRONG: dict[str, tuple[Any, str]] = {
    "no pairs": (["a"], r"frames has 'a'; accepted: a list of pairs"),
    "one frame": ((0.0, "a"), "frames has 0.0"),
    "a text": ("frames", "frames is 'frames'"),
    "no number": ([("now", "a")], "a frame has seconds 'now'"),
    "before the clip": ([(-1, "a")], "a frame has seconds -1; accepted: a number from 0 on"),
    "never": ([(float("nan"), "a")], "seconds nan"),
    "out of order": ([(1, "a"), (1, "b")], "a frame of 1 s stands behind one of 1"),
    "too many": ([(i, "a") for i in range(MOST_FRAMES + 1)], "257 frames were given; accepted: up"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_are_no_frames_is_told(what: str) -> None:
    given, said = WRONG[what]
    with pytest.raises(InputError, match=said):
        place_frames("?", [], given, PLAIN)


@pytest.mark.parametrize(
    ("prompt", "images", "said"),
    [
        ([{"role": "user", "content": [VIDEO, VIDEO]}], [], "places for 2 clips"),
        (
            [{"role": "user", "content": [IMAGE, text("?")]}],
            ["x", "y"],
            "places for 1 images, but 2",
        ),
        ([{"role": "system", "content": "x"}], [], "no message of the user"),
    ],
)
def test_places_that_do_not_fit_are_told(prompt: Any, images: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        place_frames(prompt, images, [(0, "a")], PLAIN)


def test_a_bundle_without_a_tower_sees_no_frames(loaded: Load) -> None:
    with pytest.raises(InputError, match="2 frames were given, but the bundle sees no images"):
        loaded("llama").generate("?", frames=frames(2))


def test_a_mark_without_frames_is_no_part(loaded: Load) -> None:
    messages = [{"role": "user", "content": [VIDEO, text("?")]}]
    with pytest.raises(InputError, match='"video"} marks where frames stand'):
        loaded("llava").generate(messages)


def test_only_frames_of_one_clip_stand_side_by_side() -> None:
    first, second = Frame("a", 0, None), Frame("b", 1, 2)
    ids = [8, 4, 9, 8, 4, 9, 8, 4, 9, 7]
    assert side_by_side(ids, 4, [first, second, "x"]) == [8, 4, 4, 9, 8, 4, 9, 7]
    assert side_by_side(ids, 4, ["x", first, first]) == ids
    assert side_by_side(ids, 4, ["x", first, second]) == [8, 4, 9, 8, 4, 4, 9, 7]


def test_frames_begin_where_the_first_does_and_text_follows_their_longer_side() -> None:
    def embed(ids: Sequence[int]) -> Any:
        return np.zeros((len(ids), 3), np.float32)

    seen = [
        ImageTokens((Visual(6, 3),), np.arange(6), np.zeros((6, 3), np.float32), None, behind)
        for behind in (None, 2, 9)
    ]
    stream = assemble([5, 5, 4, 4, 4, 5, 5], 4, seen, embed)
    found = find_rule("mrope")(stream.runs, stream.ordinals, 0)
    time, row, column = found.positions
    assert time.tolist() == [0, 1, *[2] * 6, *[4] * 6, *[11] * 6, 5, 6]
    assert row.tolist() == [0, 1, *[2, 2, 2, 3, 3, 3] * 3, 5, 6]
    assert column.tolist() == [0, 1, *[2, 3, 4] * 6, 5, 6]
    assert found.delta == 12 - 22  # what is generated follows the largest


@pytest.mark.parametrize("name", sorted(BUDGETS))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_clip_is_read_as_hugging_face_reads_a_video(
    name: str, count: int, recorded: Load, qwen: Oracle
) -> None:
    model = recorded(name)
    backend: Any = model.backend
    clip = frames(count)
    answer = model.generate("what now?", frames=clip, max_tokens=STEPS, ignore_eos=True)
    ids = model.token_ids("what now?", frames=clip)
    whole = qwen(name).clip(ids, [image for _, image in clip], BUDGETS[name], 2.0)
    assert answer.usage.prompt_tokens == len(whole.ids)
    expected = whole.continued(answer.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=1e-4)
    assert expected.argmax(-1).tolist() == list(answer.token_ids)


def test_frames_are_read_in_pairs_and_told_the_time_in_their_middle() -> None:
    clip = [(0.0, "a"), (0.5, "b"), (1.0, "c")]
    prompt, images = place_frames("what now?", ["x"], clip, replace(TOLD, together=2))
    told = [text("<0.2 seconds>"), IMAGE, text("<1.0 seconds>"), IMAGE]
    assert prompt == [{"role": "user", "content": [IMAGE, *told, text("what now?")]}]
    pairs = [image for image in images if isinstance(image, Frame)]
    assert [(pair.source, pair.others) for pair in pairs] == [("a", ("b",)), ("c", ())]
    _, images = place_frames("?", [], clip, replace(MEASURED, together=2))
    assert [image.behind for image in images if isinstance(image, Frame)] == [None, 2]


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("interval", [0.5, 0.7, 2.0])
def test_times_are_written_as_hugging_face_writes_them(count: int, interval: float) -> None:
    module = pytest.importorskip(
        "transformers.models.qwen3_vl.processing_qwen3_vl",
        reason="the oracle is Hugging Face's own code",
    )
    calculate = module.Qwen3VLProcessor._calculate_timestamps
    wanted = [f"<{at:.1f} seconds>" for at in calculate(None, list(range(count)), 1 / interval)]
    clip = [(i / (1 / interval), "a") for i in range(count)]
    prompt, _ = place_frames("?", [], clip, replace(TOLD, together=2))
    assert isinstance(prompt, list) and isinstance(prompt[0], dict)
    told = [part["text"] for part in prompt[0]["content"][:-1] if part != IMAGE]
    assert told == wanted


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_frames_that_are_read_as_one_have_one_size(name: str, loaded: Load) -> None:
    (first, picture), (second, _) = frames(2)
    clip = [(first, picture), (second, picture.resize((50, 90)))]
    said = "frames of 90 x 50 and 50 x 90 pixels would be read as one"
    for ask in (loaded(name).generate, loaded(name).count):
        with pytest.raises(InputError, match=said):
            ask("what now?", frames=clip)
    apart = [*frames(2), (9.0, picture.resize((50, 90)))]
    answer = loaded(name).generate("what now?", frames=apart, max_tokens=2)
    assert answer.usage.visual_tokens == loaded(name).count("?", frames=apart).visual_tokens


def test_a_pair_costs_what_both_pictures_cost(loaded: Load) -> None:
    model = loaded("qwen3_vl")
    pair, single = model.count("?", frames=frames(3)).work.images
    assert (pair.pictures, single.pictures) == (2, 1)
    assert pair.megapixels(None) == 2 * single.megapixels(None) == 2 * 90 * 50 / 1e6


def test_only_the_second_picture_of_a_pair_differs_and_so_does_the_answer(loaded: Load) -> None:
    model, clip = loaded("qwen3_vl"), frames(2)
    still = [(at, clip[0][1]) for at, _ in clip]
    plain = model.generate("what now?", frames=clip[:1], max_tokens=STEPS)
    assert plain.usage.visual_tokens == model.count("?", frames=still).visual_tokens
    moved, same = (
        model.generate("what now?", frames=shown, max_tokens=STEPS) for shown in (clip, still)
    )
    assert moved.token_ids != same.token_ids


def test_a_family_without_videos_answers_as_to_images(loaded: Load) -> None:
    model, clip = loaded("llava"), frames(3)
    told = model.generate("what now?", frames=clip, max_tokens=STEPS)
    plain = model.generate("what now?", [image for _, image in clip], max_tokens=STEPS)
    assert told.token_ids == plain.token_ids
    assert model.count("what now?", frames=clip).visual_tokens == plain.usage.visual_tokens


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_a_chat_goes_on_behind_a_clip(name: str, loaded: Load) -> None:
    model, clip = loaded(name), frames(3)
    chat = model.chat()
    first = chat.ask("what now?", frames=clip, max_tokens=4)
    again = chat.ask("and then?", max_tokens=4)
    assert again.notes == () and again.usage.cached_tokens == first.usage.prompt_tokens + 3
    last = chat.ask("and here?", frames=frames(2), max_tokens=4)
    assert last.notes == () and last.usage.visual_tokens > 0


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_frames_that_no_slots_hold_are_told_before_anything_runs(name: str, loaded: Load) -> None:
    with pytest.raises(InputError, match=r"the prompt needs .* slots, the bundle has 2048"):
        loaded(name).generate("?", frames=frames(200))
    chosen = OperatingPoint(selector="divprune", keep=2)
    answer = loaded(name).generate("?", frames=frames(40), max_tokens=2, point=chosen)
    assert answer.usage.visual_tokens_kept == 40
