"""The training program: what it feeds, what it computes, and how it stops and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
transformers = pytest.importorskip("transformers", reason="training needs transformers")

from models.training import architecture, checkpoints, release, resume, train, vocabulary  # noqa: E402
from models.training.batches import Batch, make_batch, pack, seen  # noqa: E402
from models.training.checkpoints import TrainingError  # noqa: E402
from models.training.forward import additive, decoder, packed_mask  # noqa: E402
from models.training.labels import ATTRIBUTES, one_hot, patch_labels  # noqa: E402
from models.training.losses import to_tensors, visual_tokens  # noqa: E402
from models.training.stages import STAGES, Stage  # noqa: E402
from models.training.train import Trainer  # noqa: E402
from tightrope.profiles.scenes.draw import draw  # noqa: E402
from tightrope.profiles.scenes.questions import QUESTIONS, ask  # noqa: E402
from tightrope.profiles.scenes.recall import recall  # noqa: E402
from tightrope.profiles.scenes.sample import sample_scene, sample_written, scene_rng  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OF_PICTURES = ("pixels", "values", "owner", "present")
EVERY_ARRAY = (*OF_PICTURES, "ids", "positions", "block", "target")


@pytest.fixture(scope="module")
def model() -> Any:
    """A fresh model none of whose layers is the identity."""
    model = architecture.create(3).eval().requires_grad_(False)
    torch.manual_seed(4)
    for layer in model.model.language_model.layers:
        layer.self_attn.o_proj.weight.normal_(std=0.05)
        layer.mlp.down_proj.weight.normal_(std=0.05)
    return model


@pytest.fixture(scope="module")
def released(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    release.release(model.state_dict(), folder)
    return folder


@pytest.mark.parametrize("pixels", [168, 336])
def test_packed_questions_are_single_prompts_to_hugging_face(
    model: Any, released: Path, pixels: int
) -> None:
    rng = scene_rng("dev", 5, 0)
    scene = sample_scene(rng, "dev", "hard")
    questions = [q for name in QUESTIONS if (q := ask(rng, scene, name)) is not None]
    assert len(questions) >= 8
    shown, picture = seen([scene], pixels), draw(scene, "dev", pixels)[None]
    batch = pack(picture, shown, questions, np.arange(len(shown.asked)), False)
    data = to_tensors(batch, torch.device("cpu"))
    assert data.pixels is not None
    tokens = visual_tokens(model, data.pixels)
    x = model.model.language_model.embed_tokens(data.ids)
    x[0, data.visual[:, 3]] = tokens[0]
    mask = additive(packed_mask(data.block))
    packed = model.lm_head(
        decoder(model, x, data.positions, [mask] * architecture.LAYERS, range(architecture.LAYERS))
    )
    prefix = int((batch.block == 0).sum())
    rest = [mask[:, :, prefix:]] * architecture.LAYERS
    after = model.lm_head(decoder(model, x, data.positions, rest, range(architecture.LAYERS)))
    torch.testing.assert_close(after, packed[:, prefix:], atol=2e-5, rtol=0)

    words = transformers.AutoTokenizer.from_pretrained(released)
    vision = model.model.get_image_features(data.pixels, interpolate_pos_encoding=True)

    def embeds(ids: list[int]) -> Any:
        found = model.get_input_embeddings()(torch.tensor([ids]))
        found[0, torch.tensor(ids) == vocabulary.IDS["<image>"]] = vision.pooler_output[0]
        return found

    for block, question in enumerate(questions, 1):
        messages = [{"role": "user", "content": f"<image> {question.question}"}]
        for user, assistant in reversed(question.earlier):
            messages[0]["content"] = question.question
            messages.insert(0, {"role": "assistant", "content": assistant})
            messages.insert(0, {"role": "user", "content": f"<image> {user}"})
        prompt = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        thought = f"<think> {question.thought} </think>" if question.thought else ""
        ids = words(f"{prompt} {thought} {question.answer}").input_ids
        at = ids.index(vocabulary.IDS["<image>"])
        ids[at : at + 1] = [vocabulary.IDS["<image>"]] * len(shown.asked)
        own = batch.block[0] == block
        assert list(batch.ids[0][(batch.block[0] == 0) | own]) == ids
        expected = model(inputs_embeds=embeds(ids)).logits[0, -int(own.sum()) :]
        assert float((packed[0, own] - expected).abs().max()) < 2e-4


def test_an_empty_thought_is_part_of_the_prompt(released: Path) -> None:
    words = transformers.AutoTokenizer.from_pretrained(released)
    messages = [{"role": "user", "content": "how many stars are there ?"}]
    said = words.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert said.endswith("ASSISTANT: <think> </think>")


def test_every_word_of_every_question_is_a_token_of_its_own() -> None:
    words = vocabulary.tokenizer()
    for index in range(150):
        rng = scene_rng("train", 9, index)
        scene = sample_scene(rng, "train", ("easy", "medium", "hard")[index % 3])
        found = [ask(rng, scene, name) for name in QUESTIONS]
        for question in [*filter(None, found), recall(rng, 60)]:
            text = f"{question.question} {question.thought or ''} {question.answer}"
            ids = vocabulary.encode(text)
            assert vocabulary.IDS["<unk>"] not in ids
            assert words.encode(text, add_special_tokens=False).ids == ids


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_data_of_a_step_do_not_depend_on_the_number_of_processes(stage: Stage) -> None:
    diet = replace(stage.diet, pictures=8, pixels={168: 1.0})
    for step in range(4):
        whole = make_batch(diet, 1, step, 0, 1)
        halves = [make_batch(diet, 1, step, rank, 2) for rank in range(2)]
        assert len(whole.ids) == sum(len(half.ids) for half in halves)
        for place in range(len(whole.ids)):
            half, there = halves[place % 2], place // 2
            for name in EVERY_ARRAY:
                expected, found = getattr(whole, name), getattr(half, name)
                if expected is None:
                    assert found is None
                    continue
                if name in OF_PICTURES:
                    expected, found = expected[shows(whole, place)], found[shows(half, there)]
                else:
                    expected, found = expected[place], found[there]
                    width = min(len(expected), len(found))
                    expected, found = expected[:width], found[:width]
                np.testing.assert_array_equal(expected, found, err_msg=name)


def shows(batch: Batch, sequence: int) -> Any:
    """Pictures of a sequence; a text has a row without patches."""
    if not len(batch.visual):
        return [sequence]
    return np.unique(batch.visual[batch.visual[:, 2] == sequence, 0])


def test_each_thing_owns_the_patches_that_show_it() -> None:
    for index, pixels in enumerate((168, 224, 336) * 4):
        scene = sample_scene(scene_rng("train", 2, index), "train", "hard")
        values, owner = patch_labels(scene, pixels)
        assert set(owner) == {-1, *range(len(scene.things))}
        assert (one_hot(values).sum(1) == len(ATTRIBUTES)).all()
        for place, thing in enumerate(scene.things):
            kinds = {ATTRIBUTES["kind"][value] for value in values[owner == place, 0]}
            assert kinds == {thing.shape or thing.kind}


def _tiny(**changes: Any) -> Stage:
    words = next(stage for stage in STAGES if stage.name == "words")
    diet = replace(words.diet, pictures=2, text=40)
    return replace(words, steps=4, diet=diet, **changes)


def _trainer(out: Path, stage: Stage, seed: int = 0) -> Trainer:
    return Trainer(out, stage, seed, rank=0, world=1, device="cpu")


def test_a_training_that_was_broken_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        for folder in (whole, broken):
            folder.mkdir()
        unbroken = _trainer(whole, _tiny())
        unbroken.run()
        first = _trainer(broken, _tiny())
        for _ in range(2):
            first.advance()
        first.save()
        (broken / ".words.pt.part").write_bytes(b"half of the next checkpoint")
        second = _trainer(broken, _tiny())
        assert second.step == 2
        second.run()
    finally:
        torch.set_num_threads(threads)
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    fresh = architecture.create(0).state_dict()
    moved = unbroken.model.state_dict()["lm_head.weight"]
    assert not torch.equal(moved, fresh["lm_head.weight"])


def test_a_training_goes_on_from_a_checkpoint_that_was_made_small(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, _tiny())
    trainer.advance()
    trainer.save()
    whole = checkpoints.load(trainer.path, train.settings(_tiny(), 0))
    checkpoints.save(trainer.path, checkpoints.small(whole))
    again = _trainer(tmp_path, _tiny())
    assert again.step == 1
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, atol=1e-3, rtol=1e-3)
    again.run()
    assert again.step == _tiny().steps


def test_released_weights_stand_for_the_stage_before(tmp_path: Path, model: Any) -> None:
    release.release(model.state_dict(), tmp_path)
    found = resume.released(tmp_path, seed=9).state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(found[name], weight.half().float(), atol=0, rtol=0)


def test_released_weights_of_fewer_words_keep_them(tmp_path: Path, model: Any) -> None:
    """The words in another order and without one: each row follows its word."""
    release.release(model.state_dict(), tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    ids = content["model"]["vocab"]
    ids["star"], ids["ring"] = ids["ring"], ids["star"]
    del ids["owl"]
    file.write_text(json.dumps(content))
    found = resume.released(tmp_path, seed=9).lm_head.weight
    wanted, fresh = model.lm_head.weight.half().float(), architecture.create(9).lm_head.weight
    star, ring, owl = (vocabulary.IDS[word] for word in ("star", "ring", "owl"))
    assert torch.equal(found[star], wanted[ring]) and torch.equal(found[ring], wanted[star])
    assert torch.equal(found[owl], fresh[owl])


def test_more_processes_than_groups_of_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(checkpoints.TrainingError, match="accepted: up to 2"):
        train.run(tmp_path, ["kinds"], 0, processes=3, device="cpu")


def test_an_interrupted_training_ends_all_its_processes_and_says_how_to_go_on(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "models.training.train", str(out)]
    training = subprocess.Popen(
        [*command, "--stage", "words", "--stage", "sight"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell runs in its background ignores the signal, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until = time.monotonic() + 60
        while not out.exists():
            assert training.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(training.pid, signal.SIGINT)
        said = training.communicate(timeout=60)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(training.pid, signal.SIGKILL)
    assert training.returncode == 130
    assert said == "interrupted: the same command goes on from the last checkpoint\n"


def test_a_training_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    _trainer(tmp_path, _tiny()).save()
    with pytest.raises(TrainingError, match=r"words\.pt comes from a training with another stage"):
        _trainer(tmp_path, _tiny(rate=1.0))
    with pytest.raises(TrainingError, match="another seed"):
        _trainer(tmp_path, _tiny(), seed=1)


def test_a_cut_checkpoint_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, _tiny())
    trainer.save()
    whole = trainer.path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        trainer.path.write_bytes(whole[:length])
        with pytest.raises(TrainingError, match=r"words\.pt cannot be read .*delete it"):
            _trainer(tmp_path, _tiny())


def test_a_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "words.pt")
    with pytest.raises(TrainingError, match="is no checkpoint of this training"):
        _trainer(tmp_path, _tiny())


def test_a_stage_waits_for_the_ones_before_it(tmp_path: Path) -> None:
    bridge = next(stage for stage in STAGES if stage.name == "bridge")
    with pytest.raises(TrainingError, match=r"words\.pt is missing: run the stage that writes it"):
        _trainer(tmp_path, bridge)
    words = next(stage for stage in STAGES if stage.name == "words")
    started = _trainer(tmp_path, words)
    started.save()
    with pytest.raises(TrainingError, match="is at step 0 of"):
        _trainer(tmp_path, bridge)


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(tmp_path, _tiny())
    trainer.save()
    before = trainer.path.read_bytes()

    def full(state: Any, file: Any) -> None:
        file.write(b"some of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save()
    assert trainer.path.read_bytes() == before


def test_texts_have_no_picture_and_are_asked_about_their_facts() -> None:
    batch: Batch = make_batch(replace(STAGES[0].diet, texts=1.0), 0, 0, 0, 1)
    assert batch.pixels is None and batch.visual.shape == (0, 4)
    assert len(batch.named) >= 2 * 3 * len(batch.ids)
    for (row, place, layer), there in zip(batch.named, batch.ground, strict=True):
        (fact,) = np.flatnonzero(there)
        if layer == architecture.NAMES_LAYER:
            said = [vocabulary.WORDS[token] for token in batch.ids[row, fact : place + 1]]
            assert said[1] == "has" and said[2].isdigit() and len(said) == 3
            continue
        assert fact < place
        assert batch.ids[row, fact] == batch.target[row, place], "the answer stands there"
        own = batch.ids[row][batch.block[row] == batch.block[row, place]]
        assert vocabulary.WORDS[batch.ids[row, fact - 2]] in [vocabulary.WORDS[at] for at in own]


def test_questions_look_for_what_they_name() -> None:
    relations = 0
    for index in range(12):
        rng = scene_rng("dev", 6, index)
        scene = sample_scene(rng, "dev", "hard")
        questions = [q for name in ("colour", "relation", "count") if (q := ask(rng, scene, name))]
        shown, picture = seen([scene], 224), draw(scene, "dev", 224)[None]
        batch = pack(picture, shown, questions, np.arange(len(shown.asked)), False)
        for (_, place, layer), there in zip(batch.named, batch.ground, strict=True):
            question = questions[batch.block[0, place] - 1]
            found = {int(at) for at in shown.asked[np.flatnonzero(there) - 2]}
            word = vocabulary.WORDS[batch.ids[0, place]]
            if question.type == "relation":
                relations += 1
                assert layer == architecture.NAMES_LAYER and len(found) == 1
                thing = scene.things[found.pop()]
                assert word in (thing.shape, "object")
            else:
                assert layer == architecture.PROMPT_LAYER and word == "ASSISTANT:"
                assert found == set(question.about)
    assert relations >= 6


def test_a_written_scene_has_something_to_read_in_every_cell() -> None:
    scene = sample_written(scene_rng("train", 0, 0), "train", "hard")
    assert [thing.cell for thing in scene.things] == list(range(9))
    assert {thing.kind for thing in scene.things} == {"plate", "sign"}


def test_where_there_is_only_something_to_read_nothing_else_is_asked() -> None:
    rng = scene_rng("train", 0, 1)
    scene = sample_written(rng, "train", "medium")
    assert {name for name in QUESTIONS if ask(rng, scene, name)} <= {"digit", "word", "list"}
