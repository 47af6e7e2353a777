"""One thread a device: whoever asks, from wherever, gets the answer to the own question."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import BackendError
from tightrope.point import OperatingPoint
from tightrope.runtime import engine as engines
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.engine import Engine, engine_of
from tightrope.runtime.model import Model

Load = Callable[[str], Model]
PROMPT = list(range(20, 40))
ENDLESS: dict[str, Any] = {"max_tokens": 10**6, "ignore_eos": True}


class Counting:
    """Work that yields numbers, each after a permit if it is given any, until it is cancelled."""

    def __init__(self, count: int, permits: threading.Semaphore | None = None) -> None:
        self.cancel, self._count, self._permits = Cancel(), count, permits
        self.thread: threading.Thread | None = None
        self.ended = threading.Event()

    def run(self) -> Iterator[int]:
        self.thread = threading.current_thread()
        try:
            for number in range(self._count):
                if self._permits is not None:
                    assert self._permits.acquire(timeout=20)
                if self.cancel.reason is not None:
                    return
                yield number
        finally:
            self.ended.set()


@pytest.fixture
def engine() -> Engine:
    return Engine("test")


def test_work_is_done_in_order_on_one_thread_that_is_not_the_submitters(engine: Engine) -> None:
    works = [Counting(3) for _ in range(4)]
    tickets = [engine.submit(work) for work in works]
    assert [list(ticket) for ticket in tickets] == [[0, 1, 2]] * 4
    threads = {work.thread for work in works}
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_an_error_is_raised_where_it_is_waited_for_and_the_engine_goes_on(engine: Engine) -> None:
    class Broken(Counting):
        def run(self) -> Iterator[int]:
            yield 1
            raise KeyError("broken")

    ticket = engine.submit(Broken(0))
    assert next(ticket) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ticket)
    with pytest.raises(StopIteration):
        next(ticket)
    assert list(engine.submit(Counting(2))) == [0, 1]


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_a_ticket_without_a_listener_is_cancelled(way: str, engine: Engine) -> None:
    permits = threading.Semaphore(1)
    work = Counting(1000, permits)
    ticket = engine.submit(work)
    assert next(ticket) == 0
    if way == "closed":
        ticket.close()
        assert list(ticket) == []
    else:
        gone = weakref.ref(ticket)
        del ticket
        gc.collect()
        assert gone() is None
    permits.release()
    assert work.ended.wait(20) and work.cancel.reason == "cancelled"


def test_a_finished_ticket_cancels_nothing(engine: Engine) -> None:
    work = Counting(2)
    ticket = engine.submit(work)
    assert list(ticket) == [0, 1]
    ticket.close()
    del ticket
    gc.collect()
    assert work.cancel.reason is None


def test_an_idle_engine_has_no_thread_and_gets_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.05)
    first, second = Counting(1), Counting(1)
    assert list(engine.submit(first)) == [0]
    assert first.thread is not None
    first.thread.join(20)
    assert not first.thread.is_alive()
    assert list(engine.submit(second)) == [0]
    assert second.thread is not first.thread


def test_what_was_offered_is_done_once_nothing_else_is_asked(engine: Engine) -> None:
    permits = threading.Semaphore(0)
    first, spare, second = Counting(1, permits), Counting(2), Counting(1, permits)
    tickets = [engine.submit(first)]
    engine.offer(spare)
    tickets.append(engine.submit(second))
    assert not spare.ended.wait(2 * engines.SPARE_SECONDS)
    permits.release(2)
    assert [list(ticket) for ticket in tickets] == [[0], [0]]
    assert not spare.ended.is_set()
    assert spare.ended.wait(20) and spare.thread is first.thread
    assert spare.cancel.reason is None


def test_offered_work_gives_way_to_a_request_at_once(engine: Engine) -> None:
    permits = threading.Semaphore(1)
    spare = Counting(1000, permits)
    engine.offer(spare)
    while spare.thread is None:
        time.sleep(0.01)
    ticket = engine.submit(Counting(1))
    assert spare.cancel.reason == "cancelled"
    permits.release()
    assert list(ticket) == [0] and spare.ended.is_set()
    later = Counting(1)  # a request's own work is never cancelled for another
    tickets = [engine.submit(later), engine.submit(Counting(1))]
    assert [list(ticket) for ticket in tickets] == [[0], [0]] and later.cancel.reason is None


def test_a_closed_engine_does_nothing_that_was_offered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.05)
    permits = threading.Semaphore(0)
    running, waiting, late = Counting(1, permits), Counting(1), Counting(1)
    ticket = engine.submit(running)
    while running.thread is None:
        time.sleep(0.01)
    engine.offer(waiting)
    permits.release()
    engine.close()
    engine.offer(late)
    assert list(ticket) in ([0], [])
    assert waiting.thread is None and late.thread is None


def test_hooks_of_a_cancel_do_not_pile_up() -> None:
    cancel = Cancel()
    called: list[int] = []
    for number in range(3):
        with cancel.interrupting(functools.partial(called.append, number)):
            pass
    cancel.ask()
    assert called == []
    with cancel.interrupting(lambda: called.append(9)):
        assert called == [9]
    cancel.ask("length")
    assert cancel.reason == "cancelled", "the first reason counts"


def test_bundles_of_one_device_share_its_engine(loaded: Load) -> None:
    text, seeing = loaded("llama"), loaded("llava")
    assert text.backend.device == seeing.backend.device == "cpu"
    assert engine_of("cpu") is engine_of("cpu") is not engine_of("null")
    running = text.stream(PROMPT, max_tokens=30, ignore_eos=True)
    other = seeing.generate("what?", max_tokens=4, ignore_eos=True)
    assert len(running.answer().token_ids) == 30 and len(other.token_ids) == 4


def test_sixteen_threads_lose_double_or_mix_no_answer(loaded: Load) -> None:
    model = loaded("llama")
    prompts = [[30 + i, 50, 70 - i, 90, 31 + 2 * i] * 6 for i in range(16)]
    options: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True}
    expected = [model.generate(prompt, **options).token_ids for prompt in prompts]
    assert len(set(expected)) > 8
    found: dict[int, list[Any]] = {number: [] for number in range(16)}

    def ask(number: int) -> None:
        for turn in range(3):
            if number % 4 == 3 and turn == 1:  # some are given up half way
                stream = model.stream(prompts[number], max_tokens=500, ignore_eos=True)
                next(stream)
                stream.cancel()
                *_, last = stream
                assert last.answer is not None
                found[number].append(last.answer.finish_reason)
            elif number % 2:
                pieces = list(model.stream(prompts[number], **options))
                answer = pieces[-1].answer
                assert answer is not None
                assert "".join(piece.text for piece in pieces) == answer.text
                found[number].append(answer.token_ids)
            else:
                found[number].append(model.generate(prompts[number], **options).token_ids)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for number, answers in found.items():
        wanted: list[Any] = [expected[number]] * 3
        if number % 4 == 3:
            wanted[1] = "cancelled"
        assert answers == wanted


def test_a_stream_that_is_dropped_frees_the_device(loaded: Load) -> None:
    model = loaded("llama")
    stream = model.stream(PROMPT, point=OperatingPoint(kv_budget=64), **ENDLESS)
    next(stream)
    del stream
    # It would have run for minutes, and the next one behind it.
    assert model.generate(PROMPT, max_tokens=3).usage.completion_tokens == 3


RUN = """
import os, signal, sys, threading, time
import tightrope as tr

if __name__ == "__main__":
    model = tr.load({bundle!r}, threads=1)
    endless = dict(
        max_tokens=10**6, ignore_eos=True, point=tr.OperatingPoint(kv_budget=64)
    )
    {body}
"""


def run_script(bundle: Path, body: str) -> subprocess.CompletedProcess[str]:
    code = RUN.format(bundle=str(bundle), body=body.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_interpreter_ends_while_an_answer_is_running(bundle: Callable[[str], Path]) -> None:
    body = """
stream = model.stream(list(range(20, 40)), **endless)
next(stream)
print("leaving", flush=True)"""
    done = run_script(bundle("llama"), body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_control_c_ends_the_wait_and_the_request(bundle: Callable[[str], Path]) -> None:
    body = """
# What a shell runs in its background ignores the signal, and hands that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    model.generate(list(range(20, 40)), **endless)
except KeyboardInterrupt:
    print("interrupted", flush=True)
answer = model.generate(list(range(20, 40)), max_tokens=2, ignore_eos=True)
print(answer.usage.completion_tokens, flush=True)"""
    done = run_script(bundle("llama"), body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n2\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_told_to_load_the_model_itself(bundle: Callable[[str], Path]) -> None:
    body = """
model.generate([30, 31], max_tokens=1)
child = os.fork()
if child == 0:
    try:
        model.generate([30, 31], max_tokens=1)
    except tr.BackendError as error:
        print("forked" if "was forked" in str(error) else error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(model.generate([30, 31], max_tokens=1).usage.completion_tokens, flush=True)"""
    done = run_script(bundle("llama"), body)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "forked\n1\n"


def test_a_closed_engine_ends_its_work_and_another_process_gets_none(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.close()
    work = Counting(5)
    assert list(engine.submit(work)) == []
    assert work.cancel.reason == "cancelled"
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(BackendError, match="forked"):
        engine.submit(Counting(1))


def test_who_watches_hears_of_every_piece_and_of_idle_times(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.05)
    beats: list[str] = []
    engine.watch(lambda: beats.append(threading.current_thread().name))
    end = time.monotonic() + 20
    while len(beats) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert set(beats) == {"tightrope test"}  # nothing was asked
    permits = threading.Semaphore(0)
    work = Counting(2, permits)
    ticket = engine.submit(work)
    time.sleep(0.3)
    silent = len(beats)
    time.sleep(0.3)
    assert len(beats) == silent, "work that hangs is silence"
    permits.release(2)
    assert list(ticket) == [0, 1] and len(beats) > silent
    engine.watch(None)
    work.thread.join(20)  # type: ignore[union-attr]
    assert not work.thread.is_alive()  # type: ignore[union-attr]
