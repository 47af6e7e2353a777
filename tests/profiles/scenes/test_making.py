"""Task folders: whole or not there, the same every time, and with a card that says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tightrope.errors import InputError
from tightrope.profiles.scenes import making
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.kinds import KINDS
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.scenes.making import make_task, pixel_hash
from tightrope.profiles.scenes.questions import QUESTIONS
from tightrope.profiles.scenes.sample import sample_scene, scene_rng
from tightrope.profiles.task.task import read_task

SMALL_TASKS: dict[str, dict[str, Any]] = {
    "scenes": {"images": 4, "pixels": 168},
    "tiled": {"images": 1},
    "crowded": {"images": 2, "pixels": 168},
    "fine": {"images": 2, "pixels": 224},
    "background": {"images": 2, "pixels": 168},
    "several": {"images": 2, "pixels": 168},
    "board": {"images": 2, "pixels": 168},
    "mix": {"images": 12},
    "clips": {"images": 2, "pixels": 168},
    "views": {"images": 2, "pixels": 168},
}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "task.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small task of each kind, made once."""
    folder = tmp_path_factory.mktemp("tasks")
    for kind, choices in SMALL_TASKS.items():
        make_task(MakeConfig(kind=kind, **choices), folder / kind)
    return {kind: folder / kind for kind in SMALL_TASKS}


@pytest.mark.parametrize("kind", SMALL_TASKS)
def test_the_same_choices_make_the_same_files(
    made: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    again = tmp_path / kind
    make_task(MakeConfig(kind=kind, **SMALL_TASKS[kind]), again)
    assert content(again) == content(made[kind])


@pytest.mark.parametrize("kind", SMALL_TASKS)
def test_a_task_can_be_read_and_names_every_file_once(made: dict[str, Path], kind: str) -> None:
    task = read_task(made[kind])
    named = {image for item in task.items for image in item.images}
    depths = {
        made[kind] / view["depth"] for item in task.items for view in item.info.get("views", [])
    }
    assert named | depths == set(made[kind].rglob("*.png"))
    assert {item.type for item in task.items} <= set(KINDS[kind].types)
    for item in task.items:
        assert item.id == f"{item.info['scene']:05}-{item.type}"
        assert len(item.answers) == 1


@pytest.mark.parametrize("kind", SMALL_TASKS)
def test_boxes_lie_in_pictures_and_the_smallest_is_in_336ths(
    made: dict[str, Path], kind: str
) -> None:
    for item in read_task(made[kind]).items:
        if not item.images:
            assert "about" not in item.info
            continue
        pixels, boxes = item.info["pixels"], item.info["about"]
        with Image.open(item.images[0]) as image:
            assert image.size == (pixels, pixels)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= pixels and 0 <= top < bottom <= pixels
        if boxes:
            sides = [min(box[2] - box[0], box[3] - box[1]) * 336 / pixels for box in boxes]
            assert item.info["smallest"] == pytest.approx(min(sides), abs=0.05)
        if len(item.images) > 1:
            shown = item.info["about_images"]
            assert len(shown) == len(boxes) and all(0 <= at < len(item.images) for at in shown)


def test_a_scene_task_shows_the_scene_of_its_seed(made: dict[str, Path]) -> None:
    for line in lines(made["scenes"]):
        if line["images"]:
            info = line["info"]
            rng = scene_rng("test", 0, info["scene"])
            picture = draw(sample_scene(rng, "test", info["level"]), "test", 168)
            with Image.open(made["scenes"] / line["images"][0]) as image:
                np.testing.assert_array_equal(np.asarray(image), picture)


def test_frames_of_a_clip_are_a_second_apart(made: dict[str, Path]) -> None:
    items = read_task(made["clips"]).items
    assert items and all(item.stills == () for item in items)
    for item in items:
        assert [seconds for seconds, _ in item.frames] == [*range(len(item.images))]
    assert all(item.seconds == () for item in read_task(made["several"]).items)


def test_each_type_is_asked_once_a_scene_and_recall_every_second(made: dict[str, Path]) -> None:
    found = lines(made["scenes"])
    for scene in range(4):
        types = [line["type"] for line in found if line["info"]["scene"] == scene]
        assert len(types) == len(set(types))
        assert ("recall" in types) == (scene % 2 == 0)
        assert {"existence", "count"} <= set(types)
    recalls = [line for line in found if line["type"] == "recall"]
    assert all(line["images"] == [] and "level" not in line["info"] for line in recalls)
    assert all(60 <= len(line["question"].split()) < 420 for line in recalls)


def test_a_second_turn_comes_with_the_first(made: dict[str, Path]) -> None:
    followups = [line for line in lines(made["scenes"]) if line["type"] == "followup"]
    assert followups
    for line in followups:
        assert [message["role"] for message in line["messages"]] == ["user", "assistant", "user"]
        assert "question" not in line


def test_thoughts_are_told_where_there_are_any(made: dict[str, Path]) -> None:
    for line in lines(made["scenes"]):
        assert ("thought" in line["info"]) == (line["type"] in ("count", "comparison"))


def test_fewer_types_leave_the_rest_as_it_is(made: dict[str, Path], tmp_path: Path) -> None:
    types = ("digit", "followup", "recall")
    make_task(MakeConfig(images=4, pixels=168, types=types), tmp_path / "some")
    wanted = [line for line in lines(made["scenes"]) if line["type"] in types]
    assert lines(tmp_path / "some") == wanted


def test_questions_about_text_alone_need_no_picture(tmp_path: Path) -> None:
    summary = make_task(MakeConfig(images=3, types=("recall",)), tmp_path / "texts")
    assert (summary.questions, summary.images, summary.placed) == (2, 0, 0)
    assert set(content(tmp_path / "texts")) == {"README.md", "task.jsonl"}


def test_a_level_is_kept_and_a_mix_has_all(tmp_path: Path) -> None:
    config = MakeConfig(images=3, pixels=168, level="easy", types=("count",))
    assert make_task(config, tmp_path / "easy").by_level == {"easy": 3}
    mix = make_task(MakeConfig(images=120, pixels=168, types=("count",)), tmp_path / "mix")
    assert sum(mix.by_level.values()) == 120
    assert 70 <= mix.by_level["hard"] <= 98
    assert 12 <= mix.by_level["medium"] <= 36 and mix.by_level["easy"] >= 4


def test_the_hash_is_of_shape_and_bytes_of_all_pictures(made: dict[str, Path]) -> None:
    digest = hashlib.sha256()
    for name in sorted(content(made["views"])):
        if name.endswith(".png"):
            with Image.open(made["views"] / name) as image:
                pixels = np.asarray(image)
            if name.startswith("depth"):
                assert pixels.ndim == 2 and pixels.min() > 1000 and pixels.max() < 20000
                pixels = pixels.astype("<u2")
            digest.update(str(pixels.shape).encode() + pixels.tobytes())
    assert pixel_hash(made["views"]) == digest.hexdigest()


def test_the_hash_changes_with_one_pixel(made: dict[str, Path], tmp_path: Path) -> None:
    make_task(MakeConfig(images=1, pixels=168), tmp_path / "one")
    before = pixel_hash(tmp_path / "one")
    file = tmp_path / "one" / "images" / "00000.png"
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[3, 5, 1] ^= 1
    Image.fromarray(pixels).save(file)
    assert pixel_hash(tmp_path / "one") != before


@pytest.mark.parametrize("kind", SMALL_TASKS)
def test_the_card_tells_counts_command_hash_and_licence(made: dict[str, Path], kind: str) -> None:
    text = (made[kind] / "README.md").read_text()
    found = lines(made[kind])
    assert f"{len(found)} questions" in text
    for type in {line["type"] for line in found}:
        number = sum(line["type"] == type for line in found)
        assert f"| {type} | {number} |" in text
    assert f"tightrope task make -o {kind} --kind {kind} --split test --seed 0" in text
    assert pixel_hash(made[kind]) in text
    assert "Apache-2.0" in text
    assert ("Alpaydin" in text) == (kind in ("scenes", "several", "tiled", "mix"))
    assert "under 45 units" in text
    assert text.startswith("---\nlicense: apache-2.0\n")


def test_an_interrupted_make_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "write_task", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_task(MakeConfig(images=2, pixels=168), tmp_path / "task")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_leaves_the_old_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "task"
    make_task(MakeConfig(images=1, pixels=168), target)
    before = content(target)

    def fail(*_: object) -> str:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(making, "pixel_hash", fail)
        with pytest.raises(InputError, match="no space left"):
            make_task(MakeConfig(images=2, pixels=168), target, force=True)
    assert content(target) == before and list(tmp_path.iterdir()) == [target]
    make_task(MakeConfig(images=2, pixels=168), target, force=True)
    assert len(list((target / "images").iterdir())) == 2 and list(tmp_path.iterdir()) == [target]


def test_a_task_that_is_there_is_replaced_only_if_forced(tmp_path: Path) -> None:
    config, target = MakeConfig(images=1, pixels=168), tmp_path / "task"
    make_task(config, target)
    with pytest.raises(InputError, match="--force"):
        make_task(config, target)
    make_task(config, target, force=True)


def test_what_is_no_task_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("sir")
    (tmp_path / "file").write_text("x")
    for name in ("letters", "file"):
        with pytest.raises(InputError, match="no task"):
            make_task(MakeConfig(images=1, pixels=168), tmp_path / name, force=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "sir"


def test_an_empty_folder_is_filled_even_the_one_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert make_task(MakeConfig(images=1, pixels=168), Path()).task == "."
    assert read_task(here).items
    assert "make -o here" in (here / "README.md").read_text()


def test_a_type_that_never_comes_up_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no question of type word came up"):
        config = MakeConfig(images=1, seed=wordless(), types=("word",))
        make_task(config, tmp_path / "task")
    assert list(tmp_path.iterdir()) == []


def wordless() -> int:
    """A seed whose first scene has no sign."""
    scenes = (
        (seed, sample_scene(scene_rng("test", seed, 0), "test", "hard")) for seed in range(99)
    )
    return next(s for s, scene in scenes if all(thing.kind != "sign" for thing in scene.things))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "photographs"}, "board, tiled, clips, views, mix"),
        ({"split": "validation"}, "train, dev, test"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"images": 0}, "images is 0"),
        ({"images": -3}, "images is -3"),
        ({"images": 2.0}, "images is 2.0"),
        ({"images": True}, "images is True"),
        ({"pixels": 0}, "336, 224, 168"),
        ({"pixels": 672}, "336, 224, 168"),
        ({"pixels": 336.0}, "pixels of scenes is 336.0"),
        ({"kind": "tiled", "pixels": 336}, "672, 1008"),
        ({"level": "absurd"}, "easy, medium, hard"),
        ({"kind": "tiled", "level": "easy"}, "medium, hard"),
        ({"kind": "views", "level": "hard"}, "leave it out"),
        ({"types": ("colour", "smell")}, "'smell'"),
        ({"types": ()}, "types is empty"),
        ({"kind": "crowded", "level": 41}, "12 to 40: more cannot be drawn without hiding"),
        ({"kind": "crowded", "level": 11}, "level of crowded is 11"),
        ({"kind": "crowded", "level": "hard"}, "level of crowded is 'hard'"),
        ({"kind": "fine", "level": 6}, "7 to 14: in smaller print, strokes are thinner"),
        ({"kind": "fine", "level": 9.0}, "level of fine is 9.0"),
        ({"kind": "background", "level": 5}, "6 to 40: a fainter texture"),
        ({"kind": "several", "level": 5}, "2 to 4"),
        ({"kind": "board", "level": 17}, "4 to 16: a board has no more squares"),
        ({"kind": "board", "level": True}, "level of board is True"),
        ({"kind": "mix", "level": "hard"}, "leave it out"),
        ({"shares": {"scenes": 100}}, "accepted: for a mix alone"),
        ({"kind": "mix", "shares": {"scenes": 60, "fine": 30}}, "add up to 90 percent"),
        ({"kind": "mix", "shares": {"scenes": 60, "fine": 50}}, "add up to 110 percent"),
        ({"kind": "mix", "shares": {"films": 100}}, "kind in a mix is 'films'"),
        ({"kind": "mix", "shares": {"mix": 100}}, "kind in a mix is 'mix'"),
        ({"kind": "mix", "shares": {"scenes": 100, "fine": 0}}, "share of fine is 0"),
        ({"kind": "mix", "shares": {"scenes": 99.5, "fine": 0.5}}, "share of scenes is 99.5"),
        ({"kind": "mix", "shares": {}}, "add up to 0 percent"),
        ({"kind": "views", "types": ("recall",)}, "nearer"),
    ],
)
def test_a_wrong_choice_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MakeConfig(**wrong)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        make_task(MakeConfig(images=1), tmp_path / "file" / "task")


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    told: list[float] = []
    make_task(
        MakeConfig(images=3, types=("count",), pixels=168),
        tmp_path / "task",
        progress=lambda stage, share: told.append(share),
    )
    assert told[0] == 0 and told[-1] == 1 and told == sorted(told)


def test_the_kinds_offer_what_they_ask() -> None:
    assert KINDS["scenes"].types == (*QUESTIONS, "recall")
    assert KINDS["scenes"].pixels[0] == MakeConfig().side == 336
    assert MakeConfig(kind="tiled").side == 672
