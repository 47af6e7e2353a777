"""Several bundles where there is no room for all: which are in memory, and who waits for whom."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.runtime.backends import create_backend
from tightrope.runtime.memory import PROCESS_BYTES, planned_bytes
from tightrope.runtime.model import Model
from tightrope.runtime.server.shelf import Shelf

Find = Callable[[str], Path]
NAMES = ("llama", "qwen2", "llava")


class Loads:
    """Stands for the loading of bundles, and notes it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False
        self._busy = threading.Lock()

    def __call__(self, name: str, bundle: Bundle) -> Any:
        assert self._busy.acquire(blocking=False), "two at once"
        try:
            self.names.append(name)
            assert self.gate.wait(20)
            if self.failing:
                raise BackendError(f"{name} cannot be loaded")
            return SimpleNamespace(name=name, backend=SimpleNamespace(name="onnxruntime"))
        finally:
            self._busy.release()


@pytest.fixture
def made(bundle: Find) -> Callable[[int], tuple[Shelf, Loads]]:
    """`made(2)`: three bundles, and memory for two of them."""

    def make(count: int) -> tuple[Shelf, Loads]:
        bundles = {name: Bundle.open(bundle(name)) for name in NAMES}
        each = max(planned_bytes(one.manifest, "onnxruntime") for one in bundles.values())
        loads = Loads()
        shelf = Shelf(bundles, loads, "auto", PROCESS_BYTES + count * each + 1)
        shelf.fill()
        return shelf, loads

    return make


def asked(shelf: Shelf, name: str) -> str:
    with shelf.using(name) as parts:
        return str(parts.name)  # type: ignore[attr-defined]


def in_background(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_the_first_ones_are_loaded_as_far_as_there_is_room(made: Any) -> None:
    for count in range(4):
        shelf, loads = made(count)
        assert list(shelf.loaded) == loads.names == list(NAMES[: max(1, count)])
        assert shelf.filled


def test_who_is_asked_for_comes_and_who_was_not_for_longest_goes(made: Any) -> None:
    shelf, loads = made(2)
    first, second, third = NAMES
    assert asked(shelf, first) == first and loads.names == [first, second]
    assert asked(shelf, third) == third
    assert sorted(shelf.loaded) == sorted((first, third))
    assert asked(shelf, second) == second
    assert sorted(shelf.loaded) == sorted((third, second))
    assert loads.names == [first, second, third, second]


def test_nobody_is_taken_away_while_it_is_used_nor_given_to_others_then(made: Any) -> None:
    shelf, loads = made(1)
    first, second, _ = NAMES
    said: list[str] = []
    with shelf.using(first):
        waiting = in_background(lambda: said.append(asked(shelf, second)))
        while not shelf._leaving:
            time.sleep(0.001)
        late = in_background(lambda: said.append(asked(shelf, first)))
        time.sleep(0.05)
        assert loads.names == [first] and said == [] and first in shelf.loaded
    waiting.join(20)
    late.join(20)
    assert sorted(said) == sorted((first, second)) and loads.names == [first, second, first]
    assert list(shelf.loaded) == [first]


def test_one_is_loaded_at_a_time_and_those_that_are_there_answer_meanwhile(made: Any) -> None:
    shelf, loads = made(2)
    first, second, third = NAMES
    asked(shelf, first)
    loads.gate.clear()
    threads = [in_background(lambda: asked(shelf, third)) for _ in range(3)]
    while loads.names[-1] != third:
        time.sleep(0.001)
    threads.append(in_background(lambda: asked(shelf, second)))
    assert asked(shelf, first) == first
    loads.gate.set()
    for thread in threads:
        thread.join(20)
    assert loads.names == [first, second, third, second]


def test_what_cannot_be_loaded_is_said_to_who_asks_and_tried_again(made: Any) -> None:
    shelf, loads = made(2)
    first, _, third = NAMES
    asked(shelf, first)
    loads.failing = True
    with pytest.raises(BackendError, match=f"{third} cannot be loaded"):
        asked(shelf, third)
    assert asked(shelf, first) == first
    loads.failing = False
    assert asked(shelf, third) == third


def test_a_server_with_room_for_one_bundle_answers_for_two(
    serve: Any, loaded: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightrope.runtime.server import bundles

    backends: list[weakref.ref[Any]] = []

    def noted(*arguments: Any) -> Any:
        backend = create_backend(*arguments)
        backends.append(weakref.ref(backend))
        return backend

    monkeypatch.setattr(bundles, "create_backend", noted)
    expected = {name: loaded(name).generate("?", max_tokens=4).text for name in ("llava", "llama")}
    megabytes = (PROCESS_BYTES + 250 * 10**6) // 10**6
    with serve("llava", "llama", memory_mb=megabytes) as client:
        told = {one["id"]: one["tightrope"] for one in client.get("/v1/models").json["data"]}
        assert told["llava"]["loaded"] and not told["llama"]["loaded"]
        wrong: list[Any] = []

        def ask(name: str) -> None:
            for _ in range(2):
                reply = client.chat("?", model=name, max_tokens=4)
                if reply.json["choices"][0]["message"]["content"] != expected[name]:
                    wrong.append(reply)

        threads = [in_background(partial(ask, name)) for name in ("llama", "llava") * 2]
        for thread in threads:
            thread.join(120)
        assert wrong == []
        assert client.get("/readyz").status == 200
        end = time.monotonic() + 20
        while sum(ref() is not None for ref in backends) > 1 and time.monotonic() < end:
            gc.collect()
            time.sleep(0.05)
        assert sum(ref() is not None for ref in backends) == 1 and len(backends) > 2
        assert client.chat("?", model="llava", nonsense=1).status == 400  # nothing is loaded for it
