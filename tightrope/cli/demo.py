"""`tightrope demo`: the whole way once, on the models that lie in the repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tightrope.cli.demo_bundles import DemoBundle, export_once
from tightrope.cli.demo_deadlines import show_deadlines
from tightrope.cli.output import bytes_text, print_table, progress_on_terminal
from tightrope.errors import InputError
from tightrope.point import OperatingPoint, in_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tightrope.profiles.task.task import Item
    from tightrope.runtime.model import Model

SCENES = Path("tests/data/scenes")
REFERENCE = DemoBundle(
    checkpoint=Path("models/reference"),
    name="reference",
    schedules=("fastv",),
    resolutions=(336, 224, 168),
    usual_seconds=75,
)
SMOLLM2 = DemoBundle(
    checkpoint=Path("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    name="smollm2",
    precision="int4",
    usual_seconds=120,
)

NUM_QUESTIONS = 10
WORDS = 3
"""Of a longer answer the table has no room."""
TURNS = ("What is the capital of France?", "And what is the capital of Italy?")
TURN_TOKENS = 64

POINTS = (
    OperatingPoint(),
    OperatingPoint(selector="flashvlm", keep="50%"),
    OperatingPoint(selector="flashvlm", keep="25%"),
    OperatingPoint(selector="flashvlm", keep="12%"),
    OperatingPoint(selector="fastv", keep="25%"),
    OperatingPoint(policy="snapkv", kv_budget=256),
    OperatingPoint(policy="snapkv", kv_budget=64),
    OperatingPoint(selector="flashvlm", keep="25%", policy="snapkv", kv_budget=64),
)
REPETITIONS = 3
TIMED_TOKENS = 33


def run_demo() -> None:
    """Export, answer questions, chat, show what pruning and budgets buy, and keep deadlines.

    Runs in a clone of the repository. Raises InputError elsewhere.
    """
    for needed in (REFERENCE.checkpoint / "config.json", SCENES / "task.jsonl"):
        if not needed.is_file():
            raise InputError(
                f"{needed} is not in {Path.cwd()}; run the demo in a clone of Tightrope's "
                "repository, where its model and its images are"
            )
    started = perf_counter()
    vision = export_once(REFERENCE)
    language = None
    if SMOLLM2.checkpoint.is_file():
        language = export_once(SMOLLM2)

    import tightrope
    from tightrope.profiles.task.task import read_task

    seeing = tightrope.load(vision, live=False)
    questions = chosen_questions(SCENES)
    show_questions(seeing, questions)
    if language is None:
        print(
            f"\n{SMOLLM2.checkpoint.parent} is empty (`make fetch-smollm2` fills it), "
            "so the conversation is left out."
        )
    else:
        show_conversation(tightrope.load(language, live=False))
    show_points(seeing, questions[0])
    show_deadlines(seeing, read_task(SCENES), questions)
    print(f"\nAll of it took {perf_counter() - started:.0f} s.")


def chosen_questions(task: Path) -> list[Item]:
    """Ten questions with short answers, each about an image of its own, with the types in turn."""
    from tightrope.profiles.task.task import read_task

    items = [
        item
        for item in read_task(task).items
        if item.images and len(item.answers[0].split()) <= WORDS
    ]
    types = list(dict.fromkeys(item.type for item in items))
    chosen: dict[Path, Item] = {}
    for number in range(NUM_QUESTIONS):
        wanted, start = types[number % len(types)], number * len(items) // NUM_QUESTIONS
        item = next(
            item
            for item in items[start:] + items[:start]
            if item.type == wanted and item.images[0] not in chosen
        )
        chosen[item.images[0]] = item
    return list(chosen.values())


def show_questions(model: Model, questions: Sequence[Item]) -> None:
    """The questions' table, with everything that the model can see."""
    from tightrope.runtime.thought import after_thought

    rows, right = [], 0
    with progress_on_terminal() as progress:
        for number, asked in enumerate(questions):
            words = asked.messages[-1]["content"]
            progress(words, number / len(questions))
            answer = model.generate(asked.messages, images=asked.images)
            said = (after_thought(answer.text) or "").strip()
            right += said == asked.answers[0]
            usage = answer.usage
            rows.append(
                (
                    asked.images[0].stem,
                    words,
                    asked.answers[0],
                    said,
                    str(usage.completion_tokens),
                    f"{answer.timings.total_ms:.0f}",
                    str(usage.visual_tokens_kept),
                    str(usage.occupied_slots),
                )
            )
    print_table(
        f"\n{len(questions)} questions about images, {right} answered right, "
        f"on {model.backend.name}",
        ("image", "question", "expected", "answer", "tokens", "ms", "visual", "slots"),
        rows,
        numbers=("tokens", "ms", "visual", "slots"),
    )
    print(
        "tokens: of the answer and of the thought before it, if there is one;\n"
        "visual: visual tokens that the language model saw; slots: occupied at the end"
    )


def show_conversation(model: Model) -> None:
    """Two turns, the second of which reads only what is new."""
    print("\nA conversation with SmolLM2-135M-Instruct, int4")
    chat = model.chat()
    for turn in TURNS:
        print(f"  you      {turn}\n  SmolLM2  ", end="", flush=True)
        for piece in chat.stream(turn, max_tokens=TURN_TOKENS):
            print(piece.text.replace("\n", "\n           "), end="", flush=True)
            if piece.answer is not None:
                answer = piece.answer
        usage, timings = answer.usage, answer.timings
        speed = 1000 * (usage.completion_tokens - 1) / max(timings.decode_ms, 1e-3)
        print(
            f"\n           ({usage.prompt_tokens} prompt tokens, {usage.cached_tokens} of them "
            f"still in slots; first token\n           after {timings.ttft_ms:.0f} ms, then "
            f"{speed:.0f} tokens/s; {usage.occupied_slots} slots occupied)"
        )


def show_points(model: Model, asked: Item) -> None:
    """One question at several operating points of the one bundle."""
    rows = []
    with progress_on_terminal() as progress:
        fresh = fresh_images(asked.images[0])
        for number, point in enumerate(POINTS):
            progress(in_words(point), number / len(POINTS))
            rows.append((in_words(point), *measured(model, asked, fresh, point)))
    print_table(
        f"\n{asked.images[0].name}: {asked.messages[-1]['content']} One bundle, "
        f"{len(POINTS)} operating points",
        ("point", "answer", "TTFT ms", "prefill", "TPOT ms", "slots", "slot bytes"),
        rows,
        numbers=("TTFT ms", "prefill", "TPOT ms", "slots", "slot bytes"),
    )
    print(
        "TTFT: from the request to the first token, image and vision tower included;\n"
        f"prefill: the language model's part of it, in ms; both medians of {REPETITIONS}.\n"
        f"TPOT: time per token after the first, over {TIMED_TOKENS - 1} tokens, the answer's end "
        "ignored.\nslots: occupied after the answer, in the layer that holds most; "
        "slot bytes: allocated."
    )


def measured(
    model: Model, asked: Item, images: Iterator[npt.NDArray[np.uint8]], point: OperatingPoint
) -> tuple[str, ...]:
    """Answer, TTFT, prefill, TPOT, occupied slots and slot bytes at `point`, as text."""
    options: dict[str, Any] = {"point": replace(point)}
    answers = [
        model.generate(asked.messages, images=[next(images)], **options) for _ in range(REPETITIONS)
    ]
    longer = model.generate(
        asked.messages, images=[next(images)], max_tokens=TIMED_TOKENS, ignore_eos=True, **options
    )
    return (
        answers[0].text.strip(),
        f"{median(answer.timings.ttft_ms for answer in answers):.0f}",
        f"{median(answer.timings.prefill_ms for answer in answers):.0f}",
        f"{longer.timings.decode_ms / (TIMED_TOKENS - 1):.1f}",
        str(answers[0].usage.occupied_slots),
        bytes_text(answers[0].usage.slot_bytes),
    )


def fresh_images(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The image with a corner pixel that differs each time, so that none is remembered."""
    import numpy as np

    from tightrope.profiles.bench import altered
    from tightrope.runtime.images import load_image

    image = np.asarray(load_image(path))
    for number in range(256):
        yield altered(image, number)
