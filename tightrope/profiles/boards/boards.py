"""The workers of a scheduler: which there are, and what they are asked."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import distributed

from tightrope.errors import DeviceUnavailable
from tightrope.latency_file import LatencyRecord
from tightrope.profiles.boards import jobs
from tightrope.profiles.boards.facts import Facts, check_alike, facts_of
from tightrope.profiles.boards.scheduler import (
    CONNECT_SECONDS,
    RESOURCE,
    reaching,
    security_for,
)
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.quality.ask import Question, Replies
from tightrope.progress import Progress

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

AHEAD = 2
"""Questions that a worker has at once: one runs, the next is there already."""
LOOK_SECONDS = 2.0
"""So long nothing has to come before the workers are counted."""


class Boards:
    """Workers that have this bundle and these programs."""

    def __init__(
        self, url: str, client: Any, workers: dict[str, Facts], notes: tuple[str, ...]
    ) -> None:
        """workers: their facts by address."""
        self._url, self._client, self.workers = url, client, workers
        self.notes = notes
        """How they differ."""

    def ask(self, questions: Sequence[Question], max_tokens: int) -> Replies:
        """Each question on the next worker that is free, replies as they come; an `Ask`.

        What a worker had begun when it died is asked of another one. Raises DeviceUnavailable where
        none is left, and whatever a question raises on its worker.
        """
        waiting = iter(questions)
        running: dict[Any, Question] = {}
        with reaching(self._url):
            try:
                while True:
                    while len(running) < AHEAD * len(self.workers):
                        if (question := next(waiting, None)) is None:
                            break
                        text = jobs.question_text(question, max_tokens)
                        running[self._submit(jobs.answer, text, list(self.workers))] = question
                    if not running:
                        return
                    for future in self._done(list(running)):
                        question = running.pop(future)
                        for point, reply in jobs.replies_from(future.result()):
                            yield question.item, point, reply
            finally:
                if running:
                    self._client.cancel(list(running))

    def latencies(self, config: LatencyConfig, progress: Progress) -> list[LatencyRecord]:
        """What requests take on each kind of board, mode, backend and threads.

        Each is measured on one worker of its kind, one after another: two that are one machine do
        not disturb each other.
        """
        chosen = {facts.key: address for address, facts in self.workers.items()}
        records = []
        for number, (key, address) in enumerate(chosen.items()):
            progress(str(key), number / len(chosen))
            with reaching(self._url):
                future = self._submit(jobs.latency, json.dumps(asdict(config)), [address])
                self._done([future])
                records.append(jobs.record_from(future.result()))
        return records

    def _submit(self, job: Any, text: str, workers: list[str]) -> Any:
        # Neither is kept as a result for others: an answer is asked for once.
        return self._client.submit(job, text, workers=workers, resources={RESOURCE: 1}, pure=False)

    def _done(self, running: list[Any]) -> list[Any]:
        """Those that are done, once one is; raises DeviceUnavailable where no worker is left."""
        while True:
            try:
                with self._client.as_current():
                    found = distributed.wait(
                        running, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED"
                    )
                return [future for future in running if future in found.done]
            except distributed.TimeoutError:
                if not self.workers.keys() & self._client.nthreads().keys():
                    raise DeviceUnavailable(
                        f"the last worker of {self._url} is gone; what was measured stays: start "
                        "workers again, then the same command"
                    ) from None


@contextlib.contextmanager
def connected(
    url: str,
    model: Model,
    *,
    board: str | None = None,
    power_mode: str | None = None,
    unencrypted: bool = False,
) -> Iterator[Boards]:
    """The workers of the scheduler at `url` that have the model's bundle.

    board, power_mode: only those there. Raises InputError for a `url` that is none or without
    certificates, DeviceUnavailable where no scheduler answers or no such worker is there, and
    ProfileError for workers with another bundle or other programs.
    """
    security = security_for(url, "client", unencrypted=unencrypted)
    with reaching(url), warnings.catch_warnings():
        # Versions are compared here, and what Dask would print is among the notes.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        client = distributed.Client(
            url, security=security, timeout=CONNECT_SECONDS, set_as_default=False
        )
    with contextlib.closing(client):
        with reaching(url):
            workers = _described(client)
        chosen = _chosen(url, workers, board, power_mode)
        notes = check_alike(facts_of(model), {_named(chosen[at], at): chosen[at] for at in chosen})
        yield Boards(url, client, chosen, notes)


def _described(client: Any) -> dict[str, Facts]:
    """Workers of ours by address; others may be there as well, and are left alone."""
    there = client.scheduler_info(n_workers=-1)["workers"]
    ours = [address for address, told in there.items() if RESOURCE in told["resources"]]
    told = client.run(jobs.describe, workers=ours) if ours else {}
    return {address: jobs.facts_from(text) for address, text in told.items()}


def _chosen(
    url: str, workers: dict[str, Facts], board: str | None, power_mode: str | None
) -> dict[str, Facts]:
    if not workers:
        raise DeviceUnavailable(
            f"the scheduler at {url} has no worker of Tightrope; start one on each board: "
            f"`tightrope profile-worker BUNDLE --scheduler {url}`"
        )
    chosen = {
        address: facts
        for address, facts in workers.items()
        if board in (None, facts.key.board) and power_mode in (None, facts.key.power_mode)
    }
    if not chosen:
        wanted = " in ".join(filter(None, (board, power_mode)))
        there = "; ".join(sorted({_place(facts) for facts in workers.values()}))
        raise DeviceUnavailable(f"no worker of {url} is on {wanted}; there are: {there}")
    return chosen


def _place(facts: Facts) -> str:
    return f"{facts.key.board} in {facts.key.power_mode}"


def _named(facts: Facts, address: str) -> str:
    return f"worker {address} on {facts.key.board}"
