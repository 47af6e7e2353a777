"""What runs on a worker: functions of the installed package that take and return JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed

from tightrope.errors import InputError
from tightrope.latency import check_model
from tightrope.latency_file import LatencyRecord, write_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.boards.facts import Facts, facts_of
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.profile import profile_latency
from tightrope.profiles.quality.ask import Question, Reply, ask
from tightrope.profiles.task.task import Item
from tightrope.quality_file import point_of, point_text
from tightrope.state import held
from tightrope.typed import typed

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

PLUGIN = "tightrope"


class Serving(distributed.WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """The model of a worker: jobs find it there."""

    name = PLUGIN

    def __init__(self, model: Model) -> None:
        self.model = model
        self.facts = json.dumps(asdict(facts_of(model)))


def describe(dask_worker: Any) -> str:
    """The worker's facts, for `facts_from`; dask_worker: handed in by Dask."""
    serving: Serving = dask_worker.plugins[PLUGIN]
    return serving.facts


def answer(text: str) -> str:
    """The replies to what `question_text` wrote, for `replies_from`."""
    asked = json.loads(text)
    item = Item(
        id=asked["id"],
        images=tuple(Path(image["name"]) for image in asked["images"]),
        messages=tuple(asked["messages"]),
        answers=(),
        type="other",
        info={},
        seconds=tuple(asked["seconds"]),
    )
    question = Question(item=item, points=tuple(map(point_of, asked["points"])))
    images = [base64.b64decode(image["base64"]) for image in asked["images"]]
    replies = ask(_model(), question, images, asked["max_tokens"])
    return json.dumps([[point_text(point), asdict(reply)] for point, reply in replies])


def latency(text: str) -> str:
    """What requests take on the worker, kept there, for `record_from`; text: a LatencyConfig."""
    model = _model()
    with held(model.bundle.path):
        record = profile_latency(model, LatencyConfig(**json.loads(text)))
        write_latency(model.bundle, record)
    return json.dumps(asdict(record))


def question_text(question: Question, max_tokens: int) -> str:
    """A question for `answer`, its images as they are encoded.

    Raises InputError for an image that cannot be read.
    """
    images = [{"name": file.name, "base64": _encoded(file)} for file in question.item.images]
    asked = {
        "id": question.item.id,
        "messages": question.item.messages,
        "images": images,
        "seconds": question.item.seconds,
        "points": [point_text(point) for point in question.points],
        "max_tokens": max_tokens,
    }
    return json.dumps(asked)


def facts_from(text: str) -> Facts:
    """What `describe` said."""
    facts: Facts = typed(Facts, json.loads(text), "facts")
    return facts


def replies_from(text: str) -> Iterator[tuple[OperatingPoint, Reply]]:
    """What `answer` said."""
    for point, reply in json.loads(text):
        yield point_of(point), typed(Reply, reply, "reply")


def record_from(text: str) -> LatencyRecord:
    """What `latency` said."""
    record: LatencyRecord = typed(LatencyRecord, json.loads(text), "record")
    check_model(record.model)
    return record


def _model() -> Model:
    serving: Serving = distributed.get_worker().plugins[PLUGIN]
    return serving.model


def _encoded(file: Path) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"image {str(file)!r} cannot be read ({error.strerror})") from error
