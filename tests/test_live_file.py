"""Rings of what requests took: bounded, by key, whole after any kill, and of several writers."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope import live_file
from tightrope.errors import ProfileError
from tightrope.latency import Stages
from tightrope.latency_file import LatencyKey
from tightrope.live_file import (
    KEPT,
    Agreement,
    Entry,
    LiveRequest,
    append,
    keys_of,
    read_agreements,
    read_requests,
)

TOOK = Stages(
    image_decode_ms=1.0,
    preprocess_ms=2.0,
    vision_ms=3.0,
    select_ms=0.5,
    prefill_ms=9.0,
    host_ms=0.25,
    decode_ms=20.0,
)


def request(number: int) -> Entry[LiveRequest]:
    value = LiveRequest(
        point='{"resolution": 84}',
        num_ids=number,
        images=(),
        completion_tokens=5,
        answers=1,
        marks=(),
        reused=(),
        later_turn=False,
        cold=False,
        took=TOOK,
    )
    return Entry(time_s=1000.0 + number, value=value)


def agreement(number: int) -> Entry[Agreement]:
    value = Agreement(point="{}", same=number % 2 == 0, token_agreement=number / 1000)
    return Entry(time_s=float(number), value=value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.state" / live_file.FILE


@pytest.fixture
def key(synthetic: ModuleType) -> LatencyKey:
    found: LatencyKey = synthetic.KEY
    return found


def numbers(file: Path, key: LatencyKey) -> list[int]:
    return [entry.value.num_ids for entry in read_requests(file, key)]


def test_what_was_added_is_read_back_in_order(
    file: Path, key: LatencyKey, synthetic: ModuleType
) -> None:
    assert not read_requests(file, key) and not read_agreements(file, key) and not keys_of(file)
    seen = replace(request(2).value, images=(synthetic.image(), synthetic.image("PNG", 0.3)))
    entries: list[Any] = [request(1), Entry(time_s=7.5, value=seen), agreement(3), request(4)]
    append(file, key, entries[:3])
    append(file, key, entries[3:])
    assert read_requests(file, key) == [entries[0], entries[1], entries[3]]
    assert read_requests(file, key, most=2) == [entries[1], entries[3]]
    assert read_agreements(file, key) == [entries[2]]
    assert list(file.parent.iterdir()) == [file], "nothing stays beside it"


def test_each_key_and_each_kind_has_a_ring_of_its_own(file: Path, key: LatencyKey) -> None:
    hot = replace(key, power_mode="15W")
    append(file, hot, [request(7)])
    append(file, key, [agreement(number) for number in range(5)])
    for start in range(0, KEPT + 300, 100):
        append(file, key, [request(number) for number in range(start, start + 100)])
    assert numbers(file, key) == list(range(300, KEPT + 300))
    assert numbers(file, hot) == [7]
    assert len(read_agreements(file, key)) == 5
    assert keys_of(file) == [hot, key]


def test_many_at_once_leave_the_newest(file: Path, key: LatencyKey) -> None:
    append(file, key, [request(number) for number in range(3 * KEPT)])
    assert numbers(file, key) == list(range(2 * KEPT, 3 * KEPT))
    sizes = []
    for _ in range(3):
        append(file, key, [request(number) for number in range(3 * KEPT)])
        sizes.append(file.stat().st_size)
    assert sizes[2] == sizes[1], "what left makes room for what comes"


WRITE = """
import sys
from pathlib import Path
from tightrope.latency_file import LatencyKey
from tests_live import append, request
key = LatencyKey(bundle="ab" * 32, board="Orin Nano 8GB", power_mode="25W",
                 backend="onnxruntime", threads=2)
"""


def program(body: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `body` in a process that knows this file's entries."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += WRITE.replace("tests_live", Path(__file__).stem) + body
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=300
    )


TWO = """
import os
for start in (0, 80):
    if os.fork() == 0:
        for number in range(start, start + 80, 4):
            append(Path(sys.argv[1]), key, [request(each) for each in range(number, number + 4)])
        os._exit(0)
assert [os.wait()[1] for _ in range(2)] == [0, 0]
"""


def test_two_processes_that_write_at_once_lose_nothing(file: Path, key: LatencyKey) -> None:
    program(TWO, file)
    found = numbers(file, key)
    assert sorted(found) == list(range(160))
    for start in range(0, 160, 4):  # what is added together stands together
        place = found.index(start)
        assert found[place : place + 4] == [start, start + 1, start + 2, start + 3]


KILL = """
import os, random, signal, time
from tightrope.live_file import KEPT, read_requests
file, chance, written, half = Path(sys.argv[1]), random.Random(5), 0, 0
for turn in range(50):
    child = os.fork()
    if child == 0:
        while True:
            append(file, key, [request(written)] * 7)
            written += 1
    time.sleep(chance.uniform(0.001, 0.09))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    half += file.with_name(file.name + "-journal").exists()
    found = [entry.value.num_ids for entry in read_requests(file, key)]
    assert len(found) <= KEPT and (len(found) % 7 == 0 or len(found) == KEPT), len(found)
    batches = sorted(set(found))
    assert batches == list(range(batches[0], batches[-1] + 1)) if batches else not written
    assert all(found.count(number) == 7 for number in batches[1:])
    assert not batches or batches[-1] >= written - 1, "what was there before was lost"
    written = batches[-1] + 1 if batches else 0
print(written, half)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_all_of_it_or_nothing(file: Path) -> None:
    written, half = map(int, program(KILL, file).stdout.split())
    assert written > 10, "too few were whole"
    assert half > 0, "no kill came while something was being written"
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FILL = """
import resource
from tightrope.errors import ProfileError
append(Path(sys.argv[1]), key, [request(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
try:
    append(Path(sys.argv[1]), key, [request(number) for number in range(2, 900)])
except ProfileError as error:
    print(error)
"""


def test_on_a_full_disk_what_was_kept_stays_and_the_error_names_the_way_out(
    file: Path, key: LatencyKey
) -> None:
    told = program(FILL, file).stdout
    for words in (file.name, "cannot be written", "make room", "TIGHTROPE_STATE"):
        assert words in told
    assert numbers(file, key) == [1]
    append(file, key, [request(2)])
    assert numbers(file, key) == [1, 2]


def test_a_folder_that_cannot_be_made_is_named(file: Path, key: LatencyKey) -> None:
    file.parent.write_text("in the way", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"live\.sqlite cannot be written .*TIGHTROPE_STATE"):
        append(file, key, [request(1)])


@pytest.mark.parametrize("first", ["read", "append"])
def test_a_damaged_file_is_moved_aside_and_another_begun(
    first: str, file: Path, key: LatencyKey
) -> None:
    append(file, key, [request(1)])
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(ProfileError, match=r"is damaged .* was moved to live\.sqlite\.damaged-1"):
        if first == "read":
            read_requests(file, key)
        else:
            append(file, key, [request(2)])
    assert file.with_name("live.sqlite.damaged-1").read_bytes().startswith(b"no database")
    assert numbers(file, key) == []
    append(file, key, [request(3)])
    assert numbers(file, key) == [3]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET value = '{}'",
        "UPDATE entries SET value = 'no json'",
        "UPDATE entries SET value = json_set(value, '$.num_ids', 'many')",
        "DROP TABLE entries",
    ],
)
def test_entries_that_nobody_wrote_are_damage(change: str, file: Path, key: LatencyKey) -> None:
    append(file, key, [request(1)])
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(change)
    with pytest.raises(ProfileError, match="is damaged"):
        read_requests(file, key)


def test_a_file_of_another_version_is_refused_and_stays(file: Path, key: LatencyKey) -> None:
    append(file, key, [request(1)])
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE about SET value = '99'")
    for call in (lambda: read_requests(file, key), lambda: append(file, key, [request(2)])):
        with pytest.raises(ProfileError, match="has schema 99, this version knows 1: remove it"):
            call()
    assert file.exists()


def test_a_file_whose_maker_was_killed_at_once_holds_nothing(file: Path, key: LatencyKey) -> None:
    file.parent.mkdir()
    file.touch()
    assert numbers(file, key) == []
    append(file, key, [request(1)])
    assert numbers(file, key) == [1]
